"""Cancel over HTTP, at random steps of each node that samples, in the real server."""

import asyncio
import io
import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import pytest
from PIL import Image

from devtools.environment import ROOT
from pilot.graph import graph_of
from tests.pilot.test_served import Host, Server
from tests.web.conftest import shrink_pictures

SECONDS = 120
STEPS, TRIALS = 4, 4
CALLS = {"EtaInversion": STEPS, "EtaTune": TRIALS, "EtaSampler": STEPS}


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    base = tmp_path_factory.mktemp("base")
    host = Host(base)
    shrink_pictures(base)
    host.start()
    yield host
    host.kill()


@pytest.fixture(scope="module")
def graph(host) -> dict:
    workflow = (ROOT / "example_workflows/Find the eta for your pictures.json").read_text(encoding="utf-8")
    graph = graph_of(json.loads(workflow), Server(host.address).object_info())
    for node in graph.values():
        node["inputs"] |= {"EtaInversion": {"steps": STEPS}, "EtaTune": {"trials": TRIALS}}.get(
            node["class_type"], {}
        )
    return graph


def uncached(graph: dict, seed: int) -> dict:
    """The same graph, which the server has to compute anew: an exact inversion draws nothing by its seed."""
    graph = json.loads(json.dumps(graph))
    for node in graph.values():
        if node["class_type"] == "EtaInversion":
            node["inputs"]["inversion_seed"] = seed
    return graph


def queued(*given) -> tuple[str, str]:
    """`run` in a thread of its own: the thread of the page's tests has a loop that runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(run(*given))).result()


async def run(address: str, graph: dict, cancel_in: str | None = None, calls: int = 0) -> tuple[str, str]:
    """Queue a graph -> how it ended, and its id. cancel_in: the kind of node to cancel after some calls."""
    client, prompt_id = uuid.uuid4().hex, str(uuid.uuid4())
    body = {"prompt": graph, "client_id": client, "prompt_id": prompt_id}
    async with (
        aiohttp.ClientSession(address, timeout=aiohttp.ClientTimeout(SECONDS)) as session,
        session.ws_connect(f"/ws?clientId={client}") as told,
    ):
        answer = await (await session.post("/prompt", json=body)).json()
        assert not answer["node_errors"], answer
        async for message in told:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            event = json.loads(message.data)
            kind, data = event["type"], event["data"]
            runs = graph[data["node"]]["class_type"] if kind == "progress" else ""
            if runs == cancel_in and data["value"] >= calls:
                await session.post("/interrupt")
            if kind in ("execution_success", "execution_error", "execution_interrupted"):
                return kind, prompt_id
    raise AssertionError("the server went away")


def result(host: Host, graph: dict) -> list[bytes]:
    """The pixels of the pictures that a whole run saves."""
    ended, prompt_id = queued(host.address, graph)
    assert ended == "execution_success"
    server = Server(host.address)
    while not (entry := server.history(prompt_id)):  # the server writes it after it has told the end
        time.sleep(0.05)

    saved = sorted(node_id for node_id, node in graph.items() if node["class_type"] == "SaveImage")
    shown = [entry.output(node_id) for node_id in saved]
    pictures = [Image.open(io.BytesIO(server.view(image))) for output in shown for image in output.images]
    return [picture.tobytes() for picture in pictures]


def test_the_result_after_cancels_is_what_it_would_have_been(host, graph, draw, rounds):
    seeds = iter(range(1000))
    wanted = result(host, uncached(graph, next(seeds)))
    assert len(set(wanted)) == 2
    for _ in range(rounds):
        for kind, most in CALLS.items():
            calls = draw.randrange(1, most)
            ended, _ = queued(host.address, uncached(graph, next(seeds)), kind, calls)
            assert ended == "execution_interrupted", (kind, calls)
        assert result(host, uncached(graph, next(seeds))) == wanted
