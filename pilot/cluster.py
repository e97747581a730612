"""A run's lanes on the nodes of a Ray cluster: each in an actor that drives its own node's server.

Ray is optional: pip install ray, the same version as the cluster's. The actors get this pack's code from the
driver. The items' pictures are read by the driver, and go to the nodes as bytes.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from concurrent.futures import Future, TimeoutError
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .lane import Lane, Patience
from .privacy import shown
from .server import SECONDS, Refused, Server, Unreachable

ROOT = Path(__file__).resolve().parent.parent
VARIABLE = "ETA_PILOT_SERVER"
START_SECONDS = 120  # of an actor
REACH_SECONDS = 5
CODE = ("pilot", "eta_core")


class ClusterError(Exception):
    """The cluster cannot be used, and why."""


def lanes(address: str, server: str, limits: Patience) -> Sequence[NodeLane]:
    """A lane for each node that has a server now.

    server: its address as the node sees it, where the node's environment variable VARIABLE names no other.
    Raises ClusterError, and Unreachable where no node has a server.
    """
    ray = _ray(address)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    tried = [NodeLane(ray, node, server, limits) for node in nodes]
    asked = [(lane, lane.call("look")) for lane in tried]
    found: dict[str, NodeLane] = {}
    for lane, answer in asked:
        try:
            lane.name = answer.result(START_SECONDS)
        except (Unreachable, Refused) as error:
            print(f"node {lane.node}: {error}; it is not used")
        except TimeoutError:
            print(f"node {lane.node}: no worker within {START_SECONDS} s; it is not used")
        else:
            found.setdefault(lane.name, lane)  # two nodes on one machine may share a server
    if not found:
        raise Unreachable(
            f"no node of {address} has a ComfyUI that answers: start one on each, at {shown(server)} or "
            f"where the node's environment variable {VARIABLE} says"
        )
    return list(found.values())


def _ray(address: str) -> Any:
    _check_reachable(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray = import_module("ray")
    except ImportError:
        raise ClusterError(
            "--ray needs the package ray, in the version of the cluster: pip install ray"
        ) from None
    if ray.is_initialized():  # by an earlier run of this program
        return ray
    before = signal.getsignal(signal.SIGTERM)
    try:
        code = [str(ROOT / name) for name in CODE]
        given = {"log_to_driver": False, "logging_level": "ERROR", "runtime_env": {"py_modules": code}}
        ray.init(address=address, **given)
    except Exception as error:  # Ray has no common one
        raise ClusterError(f"--ray {address} is no cluster that can be used: {error}") from None
    finally:
        signal.signal(signal.SIGTERM, before)
    return ray


def _check_reachable(address: str) -> None:
    """Raises ClusterError where nothing listens at HOST:PORT: Ray itself would try for minutes."""
    parts = urlsplit(address if "//" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ClusterError(f"--ray {address} is no address: {error}") from None
    if host and port:
        try:
            socket.create_connection((host, port), REACH_SECONDS).close()
        except OSError as error:
            raise ClusterError(f"--ray {address}: no cluster answers there ({error})") from None


class NodeDriver:
    """What runs on a node: a lane, and how its errors go back."""

    def __init__(self, server: str, node: str, limits: Patience):
        address = os.environ.get(VARIABLE) or server
        self._server = Server(address, min(SECONDS, limits.timeout))
        self._lane, self._node = Lane(self._server, limits), node

    def call(self, method: str, given: tuple) -> tuple[Any, Exception | None]:
        try:
            return (self._look() if method == "look" else getattr(self._lane, method)(*given)), None
        except (Unreachable, Refused) as error:
            return None, error

    def _look(self) -> str:
        self._server.stats()
        return f"{self._server.address} on {self._node}"


class NodeLane:
    """A lane in an actor on a node; where the actor dies and the node lives, in a new one."""

    def __init__(self, ray: Any, node: dict, server: str, limits: Patience):
        self._ray, self._id, self.node = ray, node["NodeID"], node["NodeManagerAddress"]
        self.name, self._given, self._actor = self.node, (server, self.node, limits), None

    def call(self, method: str, *given: Any) -> Future:
        """Unreachable: the node or its actor is gone."""
        answer = Future()
        try:
            actor = self._actor or self._start()
        except Unreachable as error:
            answer.set_exception(error)
            return answer
        actor.call.remote(method, given).future().add_done_callback(lambda done: self._pass_on(done, answer))
        return answer

    def _start(self) -> Any:
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        if self._id not in alive:
            raise Unreachable(f"{self.name}: the node is gone")
        scheduling = import_module("ray.util.scheduling_strategies")
        here = scheduling.NodeAffinitySchedulingStrategy(self._id, soft=False)
        made = self._ray.remote(num_cpus=0)(NodeDriver)
        self._actor = made.options(scheduling_strategy=here).remote(*self._given)
        return self._actor

    def _pass_on(self, done: Future, answer: Future) -> None:
        try:
            found, error = done.result()
        except self._ray.exceptions.RayTaskError as error:  # a fault of ours
            answer.set_exception(error.cause)
        except Exception as error:
            self._actor = None
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            answer.set_exception(Unreachable(f"{self.name}: its worker ended ({first})"))
        else:
            answer.set_exception(error) if error is not None else answer.set_result(found)
