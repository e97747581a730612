"""Run folders of small pictures, as `pilot run` leaves them, without a server."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from pilot import journal
from pilot.review import audit
from pilot.review.desk import Desk
from pilot.review.store import Conflict, Person

SETTINGS = {"workflow": "w.json", "policy": "advertising", "limits": ""}
VERDICTS = ("review", "pass", "review", "reject", "review", "pass")


def make_run(folder: Path, verdicts=VERDICTS, operator: str = "", size: int = 96, names=()) -> Path:
    """A finished run of an item for each verdict, called item-1 and so on."""
    with journal.Journal(folder) as book:
        run = journal.settle(folder, SETTINGS)
        audit.begin_run(folder, run, operator)
        log = audit.Verdicts(folder)
        for number, verdict in enumerate(verdicts, 1):
            row = result(folder, number, verdict, operator, size=size)
            row["name"] = names[number - 1] if number <= len(names) else row["name"]
            book.append(row)
            log.add(row)
    return folder


def result(
    folder: Path, number: int, verdict: str, operator: str = "", seed: int = 0, size: int = 96
) -> dict:
    """A row and its pictures."""
    key = f"{number:012x}-auto"
    files = {name: f"pictures/{key}/{name}.png" for name in ("source", "edited", "mask")}
    for name, picture in pictures(number, seed, size).items():
        path = folder / files[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    row = {
        "key": key,
        "status": "ok",
        "mode": "auto",
        "number": number,
        "name": f"item-{number}.png",
        "category": "still",
        "source_prompt": "a grey disc on a wall",
        "target_prompt": "a blue disc on a wall",
        "words": "grey",
        "verdict": verdict,
        "reasons": [] if verdict == "pass" else ["background PSNR 22 dB: at least 25 to pass"],
        "figures": [{"background_psnr": 22.5, "changed_area": 9.0}],
        "files": files,
        "scored": "auto",
        "mask": "auto",
        "size": [size, size],
        "given_size": [size, size],
        "seed": seed,
        "seconds": 2.5,
        "finished": "2026-11-02T03:04:05+00:00",
    }
    return row | ({"operator": operator} if operator else {})


def pictures(number: int, seed: int = 0, size: int = 96) -> dict[str, Image.Image]:
    """A disc on a wall, grey before and blue after; each item's wall has its own tone."""
    found = {}
    box = [size // 4, size // 4, size * 3 // 4, size * 3 // 4]
    for name, disc in (("source", (150, 150, 150)), ("edited", (120, 110 + seed % 30, 195))):
        found[name] = Image.new("RGB", (size, size), (200, 180 - number % 80, 150))
        ImageDraw.Draw(found[name]).ellipse(box, fill=disc)
    found["mask"] = Image.new("L", (size, size), 0)
    ImageDraw.Draw(found["mask"]).ellipse(box, fill=255)
    return found


def race(desks: Sequence[Desk]) -> tuple[list[str], list[str], list[Exception]]:
    """A person at each desk approves everything at once -> keys of the votes that count, of those that came
    too late, and errors.
    """
    won, lost, failed = [], [], []

    def work(desk: Desk, person: Person) -> None:
        for one in desk.items():
            try:
                desk.vote(person, one.key, one.binding, "approve")
                won.append(one.key)
            except Conflict:
                lost.append(one.key)
            except Exception as error:
                failed.append(error)

    threads = [
        threading.Thread(target=work, args=(desk, Person(f"P{i}", "reviewer")))
        for i, desk in enumerate(desks)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won, lost, failed
