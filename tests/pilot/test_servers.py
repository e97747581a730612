"""Runs on two real servers, of which one or the other is killed."""

import signal

from devtools.demo.prepare import CHECKPOINT
from pilot import cli, journal, run
from pilot.server import Server
from tests.pilot.hosts import Doing, by_server, counts, finished, of_seeds, program, servers, short_run, until


def test_a_server_that_is_killed_leaves_its_items_to_the_other_and_does_more_when_it_is_back(
    hosts, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(run, "GRACE_SECONDS", 0.5)
    one, other = hosts
    out, count = tmp_path / "out", 24
    held = []

    def kill():
        one.kill()
        held.append(by_server(out)[one.address])

    doing = Doing(
        (lambda: by_server(out)[one.address] > 1 and any(Server(one.address).queue()), kill),
        (lambda: by_server(out)[other.address] > 3, one.start),
    )
    assert cli.main(short_run(of_seeds(tmp_path, count), out, *servers(hosts))) == 0
    doing.finish()
    assert counts(out) == {("a.png", seed, "ok"): 1 for seed in range(count)}
    done = by_server(out)
    assert set(done) == {one.address, other.address} and done[one.address] > held[0] + 1
    told = capsys.readouterr().out
    assert f"{one.address} does not answer" in told and f"{one.address} answers again" in told
    assert f"[{count}/{count}]" in told
    page = (out / "report.html").read_text(encoding="utf-8")
    for address in done:
        assert address in page
    assert set(journal.load(out)["servers"]) == set(done)


def test_what_a_killed_run_left_on_either_server_is_taken_from_there(hosts, tmp_path):
    out, count = tmp_path / "out", 6
    before = sum(host.prompts() for host in hosts)
    items = of_seeds(tmp_path, count)
    process = program(*short_run(items, out, *servers(hosts), "--set", "EtaInversion.steps=5"))
    until(lambda: all(all(Server(host.address).queue()) for host in hosts), process)
    process.send_signal(signal.SIGKILL)
    finished(process, -signal.SIGKILL)
    assert cli.main(short_run(items, out, *servers(hosts[::-1]), "--set", "EtaInversion.steps=5")) == 0
    assert counts(out) == {("a.png", seed, "ok"): 1 for seed in range(count)}
    assert sum(host.prompts() for host in hosts) - before == count


def test_an_item_that_kills_two_servers_is_not_given_to_a_third(hosts, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "GRACE_SECONDS", 0.2)
    out = tmp_path / "out"
    one, other = hosts

    def runs(host):
        return lambda: bool(Server(host.address).queue()[0])

    doing = Doing((runs(one), one.kill), (runs(other), other.kill), (lambda: True, one.start))
    slow = ("--set", "EtaInversion.steps=500")
    assert cli.main(short_run(of_seeds(tmp_path, 1), out, *servers(hosts), *slow)) == 0
    doing.finish()
    (row,) = journal.rows(out)
    assert row["status"] == "error" and "the server went away" in row["error"]
    assert one.prompts() == 0


def test_servers_with_other_weights_are_refused_and_no_server_is_named_twice(hosts, tmp_path, capsys):
    out, items = tmp_path / "out", of_seeds(tmp_path, 1)
    weights = hosts[1].environment.base / "models" / "checkpoints" / CHECKPOINT
    whole = weights.read_bytes()
    weights.write_bytes(whole + b" ")
    try:
        assert cli.main(short_run(items, out, *servers(hosts))) == 1
    finally:
        weights.write_bytes(whole)
    said = capsys.readouterr().err
    assert f"{CHECKPOINT} is another file on {hosts[1].address} than on {hosts[0].address}" in said
    assert cli.main(short_run(items, out, *servers([hosts[0]] * 2))) == 1
    assert "twice" in capsys.readouterr().err
    assert not journal.rows(out)
