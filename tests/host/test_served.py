"""What the page asks the server for, over HTTP: the server's own routes, on a port of the test's."""

import json
import re
from pathlib import Path
from urllib.parse import quote

import pytest
from aiohttp.test_utils import TestClient, TestServer

pytestmark = pytest.mark.filterwarnings("ignore:Bare functions")  # the host's routes
ROOT = Path(__file__).resolve().parents[2]
PACK = "eta-inversion"


@pytest.fixture(scope="module")
def get(host):
    """get(path) -> (status, body)"""
    host.server.add_routes()
    run = host.server.loop.run_until_complete

    async def connect():
        client = TestClient(TestServer(host.server.app))
        await client.start_server()
        return client

    async def fetch(path):
        async with client.get(quote(path)) as response:
            return response.status, await response.read()

    client = run(connect())
    yield lambda path: run(fetch(path))
    run(client.close())


def test_the_translations_arrive(get):
    status, body = get("/i18n")
    assert status == 200
    for language in ("en", "ja"):
        served = json.loads(body)[language]
        ours = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
        assert {name: served["nodeDefs"][name] for name in ours} == ours
        assert served["dataTypes"]["ETA_INVERSION"]


def test_help_pages_and_their_pictures_arrive(get, ours):
    """The page asks for docs/<node>/<language>.md, then docs/<node>.md, and reads pictures from docs/ on."""
    for name in ours:
        assert get(f"/extensions/{PACK}/docs/{name}/fr.md")[0] == 404
        for address in (f"{name}.md", f"{name}/ja.md"):
            status, body = get(f"/extensions/{PACK}/docs/{address}")
            assert status == 200 and body.startswith(b"# "), address
            for picture in re.findall(rb"!\[[^\]]+\]\(([^)\s]+)\)", body):
                assert get(f"/extensions/{PACK}/docs/{picture.decode()}")[0] == 200


def test_the_example_workflows_arrive_with_their_thumbnails(get):
    offered = json.loads(get("/workflow_templates")[1])[PACK]
    assert sorted(offered) == sorted(path.stem for path in (ROOT / "example_workflows").glob("*.json"))
    for name in offered:
        for ending in ("json", "jpg"):
            assert get(f"/api/workflow_templates/{PACK}/{name}.{ending}")[0] == 200, name


def test_the_blueprint_arrives(get):
    entries = json.loads(get("/global_subgraphs")[1])
    (key,) = (key for key, entry in entries.items() if entry["info"]["node_pack"] == f"custom_nodes.{PACK}")
    assert entries[key]["name"] == "Eta edit"
    served = json.loads(json.loads(get(f"/global_subgraphs/{key}")[1])["data"])
    assert served == json.loads((ROOT / "subgraphs" / "Eta edit.json").read_text(encoding="utf-8"))
