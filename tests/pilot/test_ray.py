"""A run on a real Ray cluster of two nodes on this machine, each with a ComfyUI of its own."""

import sys

import psutil
import pytest

from pilot import cli, cluster, journal, run, start
from pilot.lane import Patience
from tests.pilot.hosts import Doing, by_server, counts, of_seeds, short_run


@pytest.fixture
def ray(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    return pytest.importorskip("ray", reason="Ray is optional: pip install ray")


@pytest.fixture
def nodes(ray, hosts):
    """(the cluster, its two nodes with a server): each knows its own by its environment; a third has none."""
    from ray.cluster_utils import Cluster

    addresses = [*(host.address for host in hosts), "http://127.0.0.1:9"]
    own = [
        {"num_cpus": 1, "include_dashboard": False, "env_vars": {cluster.VARIABLE: address}}
        for address in addresses
    ]
    made = Cluster(initialize_head=True, head_node_args=own[0])
    yield made, [made.head_node, *(made.add_node(**each) for each in own[1:])][:2]
    ray.shutdown()
    made.shutdown()


def worker_of(node) -> psutil.Process:
    """The process in which a node's lane runs."""
    (raylet,) = (one.process for one in node.all_processes["raylet"])
    (found,) = (
        one for one in psutil.Process(raylet.pid).children(recursive=True) if "NodeDriver" in one.name()
    )
    return found


def test_a_worker_and_then_a_node_are_killed_and_every_item_is_there_once(
    hosts, nodes, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(run, "GRACE_SECONDS", 0.5)
    made, (head, other) = nodes
    out, count = tmp_path / "out", 14

    def done(host) -> int:
        return sum(number for name, number in by_server(out).items() if name.startswith(host.address))

    def kill_node():
        made.remove_node(other, allow_graceful=False)
        hosts[1].kill()

    doing = Doing(
        (lambda: done(hosts[0]) > 1, lambda: worker_of(head).kill()),
        (lambda: done(hosts[1]) > 2, kill_node),
    )
    assert cli.main(short_run(of_seeds(tmp_path, count), out, "--ray", made.address)) == 0
    doing.finish()
    assert counts(out) == {("a.png", seed, "ok"): 1 for seed in range(count)}
    told = capsys.readouterr().out
    assert "its worker ended" in told and "answers again" in told
    assert "http://127.0.0.1:9 does not answer" in told and "it is not used" in told
    assert sorted(name.partition(" on ")[0] for name in by_server(out)) == sorted(
        host.address for host in hosts
    )
    assert set(journal.load(out)["servers"]) == set(by_server(out))


def test_without_ray_it_says_how_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main(short_run(of_seeds(tmp_path, 1), tmp_path / "out", "--ray", "auto")) == 1
    assert "pip install ray" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:9", "no cluster answers there"),
        ("ray://127.0.0.1:9", "no cluster"),
        ("a:b", "is no address"),
    ],
)
def test_an_address_without_a_cluster_is_said_before_ray_tries_for_minutes(monkeypatch, address, said):
    monkeypatch.setitem(sys.modules, "ray", None)  # not even asked
    with pytest.raises(cluster.ClusterError, match=said):
        cluster.lanes(address, start.ADDRESS, Patience())
