import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pilot import cli, journal
from pilot.review import audit
from tests.pilot.reviewed import make_run, result

ROOT = Path(__file__).resolve().parents[2]


def make_log(folder: Path, count: int = 8) -> list[bytes]:
    audit.append(folder, ({"action": "vote", "item": f"item-{i}"} for i in range(count)))
    return (folder / audit.LOG).read_bytes().splitlines(keepends=True)


def chained(lines: list[bytes], start: int = 0) -> list[bytes]:
    """The lines from `start` on with numbers and hashes that fit again: as who knows the format forges."""
    previous = json.loads(lines[start - 1])["hash"] if start else audit.START
    forged = lines[:start]
    for number, line in enumerate(lines[start:], start + 1):
        entry = json.loads(line) | {"n": number, "previous": previous}
        entry.pop("hash")
        text = json.dumps(entry)
        previous = hashlib.sha256(text.encode()).hexdigest()
        forged.append(f'{text[:-1]}, "hash": "{previous}"}}\n'.encode())
    return forged


def forged_alone(line: bytes) -> bytes:
    """A changed line whose own hash fits, which its successor's `previous` then does not name."""
    entry = json.loads(line) | {"item": "another"}
    entry.pop("hash")
    text = json.dumps(entry)
    return f'{text[:-1]}, "hash": "{hashlib.sha256(text.encode()).hexdigest()}"}}\n'.encode()


def changed(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[3].replace(b"item-3", b"item-9"), *lines[4:]]


TAMPERED = {
    "a word changed": (changed, ["line 4 was changed"]),
    "a line changed with its own hash": (
        lambda lines: [*lines[:3], forged_alone(lines[3]), *lines[4:]],
        ["line 5 does not follow line 4"],
    ),
    "a line without its hash": (
        lambda lines: [*lines[:3], lines[3][:60] + b"}\n", *lines[4:]],
        ["line 4 was changed"],
    ),
    "a line missing": (lambda lines: lines[:3] + lines[4:], ["number 4 is missing before line 4"]),
    "three lines missing": (
        lambda lines: lines[:3] + lines[6:],
        ["numbers 4 to 6 are missing before line 4"],
    ),
    "the first line missing": (lambda lines: lines[1:], ["number 1 is missing before line 1"]),
    "a line added": (
        lambda lines: [*lines[:4], *chained([*lines[:4], lines[0]], 4)[4:], *lines[4:]],
        ["line 6 is number 5, after number 5: it was added, repeated or moved"],
    ),
    "a line repeated": (lambda lines: lines[:4] + lines[3:], ["line 5 is number 4, after number 4"]),
    "two lines swapped": (
        lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]],
        ["number 4 is missing before line 4", "line 5 is number 4, after number 5"],
    ),
    "an empty line": (lambda lines: [*lines[:3], b"\n", *lines[3:]], ["line 4 was changed"]),
    "the last line's end missing": (
        lambda lines: [*lines[:-1], lines[-1][:-9]],
        ["line 8 has no end"],
    ),
    "a line moved from another log": (
        lambda lines: [*lines[:3], chained([lines[7], *lines[:4]])[3], *lines[4:]],
        ["line 4 does not follow line 3"],
    ),
}
INVISIBLE = {
    "the end cut off": lambda lines: lines[:5],
    "the last line rewritten": lambda lines: [*lines[:-1], forged_alone(lines[-1])],
    "all of it rewritten": lambda lines: chained([line.replace(b"item-3", b"item-9") for line in lines]),
    "a line added and all after it rewritten": lambda lines: chained([*lines[:4], lines[0], *lines[4:]], 4),
}


def put(folder: Path, lines: list[bytes]) -> None:
    (folder / audit.LOG).write_bytes(b"".join(lines))


def test_a_whole_log_is_found_whole_and_its_head_is_known(tmp_path):
    lines = make_log(tmp_path)
    found = audit.verify(tmp_path)
    assert found == audit.Checked(8, json.loads(lines[-1])["hash"], ())
    assert audit.head(tmp_path) == found.head
    put(tmp_path, lines[:6])
    middle = audit.head(tmp_path)
    put(tmp_path, lines)
    assert audit.verify(tmp_path, middle).covered == 6


def test_the_chain_is_one_that_anybody_can_compute(tmp_path):
    lines = make_log(tmp_path)
    assert chained(lines) == lines


@pytest.mark.parametrize("how", TAMPERED)
def test_tampering_is_found_and_placed(tmp_path, how):
    tamper, said = TAMPERED[how]
    put(tmp_path, tamper(make_log(tmp_path)))
    found = audit.verify(tmp_path).findings
    for words in said:
        assert [finding for finding in found if words in finding], found
    assert len(found) <= len(said) + 2


@pytest.mark.parametrize("how", INVISIBLE)
def test_what_only_a_head_kept_elsewhere_shows(tmp_path, how):
    lines = make_log(tmp_path)
    head = audit.head(tmp_path)
    put(tmp_path, INVISIBLE[how](lines))
    assert audit.verify(tmp_path).findings == ()
    (finding,) = audit.verify(tmp_path, head).findings
    assert finding == f"no line has the head {head}: the end was cut off, or the log was rewritten"


def test_what_verify_cannot_see_is_said_without_a_head(tmp_path, capsys):
    lines = make_log(tmp_path)
    assert cli.main(["verify", str(tmp_path)]) == 0
    assert audit.BLIND in capsys.readouterr().out
    assert cli.main(["verify", str(tmp_path), "--head", audit.head(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "Line 8 has the head given" in told and audit.BLIND not in told
    put(tmp_path, changed(lines))
    assert cli.main(["verify", str(tmp_path)]) == 1
    assert "line 4 was changed" in capsys.readouterr().out


def test_a_line_that_a_kill_left_half_written_is_set_aside_and_told(tmp_path):
    lines = make_log(tmp_path)
    half = lines[-1][:40]
    put(tmp_path, [*lines, half])
    audit.append(tmp_path, [{"action": "vote", "item": "next"}])
    assert audit.verify(tmp_path).findings == ()
    torn, after = map(json.loads, (tmp_path / audit.LOG).read_bytes().splitlines()[-2:])
    assert (torn["action"], torn["sha256"]) == ("torn", hashlib.sha256(half).hexdigest())
    assert after["item"] == "next"


def test_nothing_is_built_on_a_changed_last_line(tmp_path):
    lines = make_log(tmp_path)
    put(tmp_path, [*lines[:-1], lines[-1].replace(b"item-7", b"item-1")])
    with pytest.raises(audit.AuditError, match="last line .* was changed"):
        audit.append(tmp_path, [{"action": "vote"}])


def test_several_programs_write_one_chain(tmp_path):
    code = (
        "import sys; from pathlib import Path; from pilot.review import audit\n"
        "for i in range(20): audit.append(Path(sys.argv[1]), [{'action': 'vote', 'who': sys.argv[2]}])"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(i)], cwd=ROOT) for i in range(3)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    found = audit.verify(tmp_path)
    assert (found.lines, found.findings) == (60, ())


def test_a_run_and_each_of_its_verdicts_has_a_line_once(tmp_path):
    make_run(tmp_path, ("review", "pass"), operator="Olga")
    audit.add_verdicts(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / audit.LOG).read_bytes().splitlines()]
    assert [(line["action"], line["who"]) for line in lines] == [
        ("run", "Olga"),
        ("verdict", "Olga"),
        ("verdict", "Olga"),
    ]
    source = tmp_path / "pictures" / lines[1]["item"] / "source.png"
    assert lines[1]["files"]["source"] == hashlib.sha256(source.read_bytes()).hexdigest()


def test_results_that_a_killed_run_did_not_log_are_logged_later(tmp_path):
    make_run(tmp_path, ("review",))
    with journal.Journal(tmp_path) as book:
        book.append(result(tmp_path, 2, "pass"))
    audit.add_verdicts(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / audit.LOG).read_bytes().splitlines()]
    assert [line.get("item") for line in lines] == [None, f"{1:012x}-auto", f"{2:012x}-auto"]


def test_a_verdict_that_another_program_logged_first_is_not_logged_again(tmp_path):
    make_run(tmp_path, ("review",))
    log = audit.Verdicts(tmp_path)
    for number, first in ((2, True), (3, False)):
        row = result(tmp_path, number, "pass")
        with journal.Journal(tmp_path) as book:
            book.append(row)
        if first:
            audit.add_verdicts(tmp_path)
        log.add(row)
    lines = [json.loads(line) for line in (tmp_path / audit.LOG).read_bytes().splitlines()]
    assert [line.get("item") for line in lines] == [None, *(f"{n:012x}-auto" for n in (1, 2, 3))]
