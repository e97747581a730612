"""The part of the standing attack that needs the host; the rest is in tests/attack."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from devtools.environment import ROOT
from devtools.studio import left_half
from tests.attack.conftest import draw, full_disk, rounds  # noqa: F401 (fixtures)
from tests.attack.mutations import ODD, mutated, words
from tests.host.test_clean import At, before, cancel, cancelled, unharmed  # noqa: F401 (fixtures)
from tests.host.test_errors import raises
from tests.host.test_inversion_file import SUFFIX, files, forged, parts, saved  # noqa: F401 (fixtures)

TRIES = 120


def test_what_is_read_of_a_mutated_file_can_be_sampled(studio, files, saved, draw, rounds, tmp_path):  # noqa: F811
    about, tensors = parts(saved)
    sampled = 0
    for _ in range(TRIES * rounds):
        changed = {name: _mutated_tensor(tensor, draw) for name, tensor in tensors.items()}
        header = mutated(about, draw, draw.randrange(3))
        try:
            path = forged(tmp_path / f"mutated{SUFFIX}", header, changed)
        except UnicodeEncodeError:  # half a character fits into no file
            continue
        try:
            trajectory, positive = files.load(path)
        except files.InversionFileError as error:
            assert len(str(error)) < 600
            continue
        if sampled < 3:
            sampled += 1
            loaded = type(studio.invert(steps=1))(trajectory, positive)
            _edited_or_refused(studio, loaded)


def _mutated_tensor(tensor: torch.Tensor, draw) -> torch.Tensor:  # noqa: F811
    changes = (
        lambda t: t.int(),
        lambda t: t[:, :1],
        lambda t: t * float("nan"),
        lambda t: t[None],
        lambda t: t[:0],
    )
    return draw.choice(changes)(tensor) if draw.random() < 0.04 else tensor


def _edited_or_refused(studio, loaded) -> None:
    try:
        assert bool(studio.edit(loaded).isfinite().all())
    except ValueError as error:
        assert str(error)


NODES = {
    "EtaSchedule": dict(
        preset="custom", start_t=0.0, start_eta=0.0, end_t=1.0, end_eta=0.4, power=1.0, curve="0:0, 1:0.4"
    ),
    "EtaSampler": dict(
        cfg=3.0,
        seed=1,
        noise_candidates=2,
        noise_blend=0.0,
        parity=False,
        background_lock=0.0,
        variants=1,
        start=1.0,
        source_cfg=0.0,
    ),
    "AttentionMask": dict(
        words="cat", threshold=0.1, grow=0, blur=0.0, invert=False, combine="intersect", source_prompt=None
    ),
    "EtaPromptPair": dict(source_prompt="a cat", target_prompt="a dog"),
    "EtaMetrics": dict(source_prompt="", target_prompt="", changed_above=5.0),
    "EtaCompare": dict(gain=4.0),
    "EtaVerdict": dict(policy="free", let_through="everything", custom_policy=""),
}


@pytest.mark.parametrize("node", NODES)
def test_odd_values_by_a_link_are_taken_or_refused_in_words(studio, inversion, node, draw, rounds):  # noqa: F811
    picture = torch.rand(1, 64, 64, 3)
    given = {
        "EtaSampler": dict(
            model=studio.model,
            inversion=inversion,
            eta=studio.eta(),
            positive=studio.prompt("a dog"),
            negative=studio.negative,
            mask=left_half(),
        ),
        "AttentionMask": dict(inversion=inversion, clip=studio.clip),
        "EtaPromptPair": dict(clip=studio.clip),
        "EtaMetrics": dict(source=picture, edited=picture, mask=left_half()),
        "EtaCompare": dict(before=picture, after=picture),
        "EtaVerdict": dict(
            figures=studio.host.call("EtaMetrics", source=picture, edited=picture)[0], image=picture
        ),
    }.get(node, {})
    numbers = [value for value in ODD if isinstance(value, (int, float)) and value is not None]
    for _ in range(12 * rounds):
        inputs = dict(NODES[node])
        name = draw.choice(list(inputs))
        value = inputs[name]
        inputs[name] = words(draw) if isinstance(value, (str, type(None))) else draw.choice(numbers)
        if name in ("noise_candidates", "variants") and inputs[name] is True:
            continue
        try:
            studio.host.call(node, **given | inputs)
        except ValueError as error:
            assert str(error), (name, inputs[name])


@pytest.mark.usefixtures("unharmed")
def test_cancel_at_a_random_call_leaves_the_next_result_as_it_was(studio, inversion, draw):  # noqa: F811
    wanted = studio.invert(), studio.edit(inversion)
    for run in ("invert", "edit"):
        stopped = At(studio.model, draw.randrange(1, 4), cancel)
        with cancelled():
            getattr(studio, run)(*([inversion] if run == "edit" else []), model=stopped.model)
    assert torch.equal(studio.invert().trajectory.x, wanted[0].trajectory.x)
    assert torch.equal(studio.edit(inversion), wanted[1])


def test_a_full_disk_is_told_and_leaves_nothing(studio, inversion):
    folder = studio.host.base / "output/full-disk"
    with full_disk(folder):
        with raises("the disk is full", "MB", "save again"):
            studio.host.call("EtaSaveInversion", inversion=inversion, filename_prefix="full-disk/x")
        assert os.listdir(folder) == ["filling"]


def test_a_killed_save_leaves_a_whole_file_or_none(files, saved, draw, rounds, tmp_path):  # noqa: F811
    """The saving process is killed at a random moment; whatever has an inversion's name is whole."""
    code = f"""
import os, sys
from pathlib import Path
from safetensors.torch import load_file, save_file
half, path = Path({str(tmp_path / "x.part")!r}), Path({str(tmp_path)!r})
tensors = load_file({str(saved)!r})
from safetensors import safe_open
with safe_open({str(saved)!r}, "pt") as file:
    metadata = file.metadata()
print("ready", flush=True)
for i in range(10**6):
    save_file(tensors, half, metadata)
    os.link(half, path / f"{{i}}{SUFFIX}")
    half.unlink()
"""
    for _ in range(2 * rounds):
        for path in tmp_path.iterdir():
            path.unlink()
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
        assert writer.stdout.readline().strip() == b"ready"
        time.sleep(draw.random() / 10)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        for path in tmp_path.glob(f"*{SUFFIX}"):
            files.load(path)
