"""Out of memory: the same edit, one row after the other. What a failed call left must not count."""

import sys
from contextlib import contextmanager, nullcontext

import pytest
import torch

from devtools.studio import STEPS, left_half, picture
from tests.host.test_methods import blended, every_method, masa_ctrl, plug_and_play, region_edit
from tests.host.test_sampling import close, pack

ALWAYS = 10**6


class Short:
    """A clone of the studio's model that runs out of memory, at the end of a call, where that has several
    rows. times: how often at most. least: rows of the smallest call that fails. first: how many calls go well
    before.
    """

    def __init__(self, studio, times: int = ALWAYS, least: int = 2, first: int = 0):
        self.model, self.rows, self.failed = studio.model.clone(), [], []
        self.management = sys.modules["comfy.model_management"]

        def ask(apply_model, args):
            answer = apply_model(args["input"], args["timestep"], **args["c"])
            if len(answer) >= least and len(self.failed) < times and len(self.rows) >= first:
                self.failed.append(self.management.OOM_EXCEPTION("planted"))
                raise self.failed[-1]
            self.rows.append(len(answer))
            self.heard()
            return answer

        self.heard = lambda: None
        self.model.set_model_unet_function_wrapper(ask)


def test_an_inversion_and_the_words_it_reads(studio, caplog):
    short, inputs = Short(studio), dict(cfg=3.0, negative=studio.negative)
    plain, found = (studio.invert(**inputs | more) for more in ({}, {"model": short.model}))
    assert close(found.trajectory.x, plain.trajectory.x, 1e-4)
    assert close(found.trajectory.maps, plain.trajectory.maps, 1e-4)
    assert short.rows == [1] * 2 * STEPS and len(short.failed) == 1
    assert caplog.text.count("Out of memory") == 1


@every_method
def test_an_edit_with_a_method(studio, inversion, method, caplog):
    short = Short(studio)
    inputs = dict(edit=method(studio, inversion), mask=left_half(), eta=studio.eta(end_eta=0.0))
    plain = studio.edit(inversion, **inputs)
    assert close(studio.edit(inversion, model=short.model, **inputs), plain, 1e-4)
    assert set(short.rows) == {1} and len(short.failed) == 1
    assert caplog.text.count("Out of memory") == 1


@pytest.fixture
def breaking(studio):
    """A clone of the model whose first call of several rows runs out of memory before its last block."""
    model, failed = studio.model.clone(), []
    last = len(model.model.diffusion_model.output_blocks) - 1

    def late(h, skipped, options):
        if options["block"] == ("output", last) and len(h) > 1 and not failed:
            failed.append(len(h))
            raise sys.modules["comfy.model_management"].OOM_EXCEPTION("planted")
        return h, skipped

    model.set_model_output_block_patch(late)
    return model, failed


def test_words_read_by_a_call_that_broke_off_do_not_count(studio, breaking, monkeypatch):
    (model, failed), inputs = breaking, dict(cfg=3.0, negative=studio.negative)
    monkeypatch.setattr(pack(studio.host, "host.families.unet"), "AT_ONCE", 1)  # read before the call ends
    plain, found = (studio.invert(**inputs | more) for more in ({}, {"model": model}))
    assert failed and close(found.trajectory.maps, plain.trajectory.maps, 1e-4)


def test_words_of_a_local_blend_in_a_call_that_broke_off_do_not_count(
    studio, inversion, breaking, monkeypatch
):
    (model, failed), edit, seen = breaking, blended(studio, inversion), []
    blend = type(edit.methods[0].local_blend())
    region = blend.region

    def look(self, maps, size):
        seen.append(torch.stack(list(maps)))
        return region(self, maps, size)

    monkeypatch.setattr(blend, "region", look)
    studio.edit(inversion, edit=edit)
    plain = list(seen)
    seen.clear()
    studio.edit(inversion, edit=edit, model=model)
    assert failed and len(seen) == len(plain) > 0
    assert all(close(ours, theirs, 1e-3) for ours, theirs in zip(seen, plain))


def test_memory_that_runs_out_in_a_later_step(studio, inversion):
    """The local blend has gathered the words of the steps before, which count once."""
    inputs = dict(edit=blended(studio, inversion), eta=studio.eta(end_eta=0.0))
    plain, short = studio.edit(inversion, **inputs), Short(studio, first=2)
    assert close(studio.edit(inversion, model=short.model, **inputs), plain, 1e-4)
    assert short.rows[:2] == [4, 4] and set(short.rows[2:]) == {1}


@pytest.mark.parametrize("method", [None, blended])
@pytest.mark.parametrize("variants", [1, 2])
def test_the_targets_words_and_the_mask_they_make(studio, inversion, variants, method, monkeypatch):
    """What the broken call had read does not count, and what the step before had read does. A second variant
    runs out of memory in its first step.
    """
    monkeypatch.setattr(pack(studio.host, "host.families.unet"), "AT_ONCE", 1)  # read before the call ends
    words = studio.target_words("dog", read=1.0, threshold=0.0, edit=method and method(studio, inversion))
    inputs = dict(edit=words, mask=0.3 * left_half(), variants=variants, background_lock=1.0)
    plain, short = studio.edit_all(inversion, **inputs), Short(studio, first=1)
    found = studio.edit_all(inversion, model=short.model, **inputs)
    assert all(close(ours, theirs, 1e-4) for ours, theirs in zip(found, plain))
    assert len(short.failed) == variants and set(short.rows[1:]) == {1}
    assert (plain[2] > inputs["mask"] + 0.1).any()


def test_several_edits_in_regions(studio, inversion):
    short = Short(studio)
    inputs = dict(edit=region_edit(studio, "a bird on a bench", left_half(), method=masa_ctrl(studio)))
    plain = studio.edit(inversion, **inputs)
    assert close(studio.edit(inversion, model=short.model, **inputs), plain, 1e-4)


def test_variants_begin_again_one_after_the_other(studio, inversion, caplog):
    short, inputs = Short(studio), dict(variants=3, noise_blend=0.5, edit=plug_and_play(studio))
    plain = studio.edit(inversion, **inputs)
    assert close(studio.edit(inversion, model=short.model, **inputs), plain, 1e-4)
    assert set(short.rows) == {1} and len(short.failed) == 1
    assert caplog.text.count("Out of memory: the edit begins again, one variant after the other") == 1


def test_a_flow_edit_and_an_edit_mask(studio, inversion):
    for run in (
        lambda studio: studio.flow_edit(picture(), cfg=1.5),
        lambda studio: studio.edit_mask(studio.invert(inverter="midpoint"), positive=studio.prompt("a dog"))[
            0
        ],
    ):
        short = Short(studio)
        plain = run(studio)
        assert close(run(studio.on(short.model)), plain, 1e-4) and short.failed


def test_one_row_alone_ends_in_the_hosts_error_and_leaves_the_model_as_it_was(studio, inversion, caplog):
    plain, short = studio.edit(inversion), Short(studio, times=2, least=1)
    before = str(short.model.model_options)
    with pytest.raises(short.management.OOM_EXCEPTION, match="^planted$") as raised:
        studio.edit(inversion, model=short.model, edit=masa_ctrl(studio))
    assert raised.value is short.failed[1]
    assert "take a smaller picture" in caplog.text
    assert str(short.model.model_options) == before
    assert not any(module._forward_hooks for module in short.model.model.diffusion_model.modules())
    assert torch.equal(studio.edit(inversion, model=short.model), plain)


def test_cancel_is_heard_between_the_rows(studio, inversion):
    plain, short = studio.edit(inversion), Short(studio)
    short.heard = lambda: len(short.rows) == 3 and short.management.interrupt_current_processing()
    with pytest.raises(short.management.InterruptProcessingException):
        studio.edit(inversion, model=short.model)
    assert len(short.rows) < 2 * STEPS
    assert torch.equal(studio.edit(inversion), plain)


# --- the memory that newer hosts lay out for a block ----------------------------------------------


@pytest.fixture
def paused(host, monkeypatch):
    """Plants the newer hosts' pause. Holds a value as long as it lasts."""
    found = []

    @contextmanager
    def pause():
        found.append(True)
        yield
        found.pop()

    for module in ("attention", "steering", "steered_transformer", "families.unet"):
        monkeypatch.setattr(pack(host, f"host.{module}"), "outside_the_blocks_memory", pause)
    return found


def test_what_is_read_of_words_is_formed_outside_a_blocks_memory(studio, inversion, paused, monkeypatch):
    formed, attention = [], pack(studio.host, "host.attention")
    maps, local = pack(studio.host, "host").MapRecorder, pack(studio.host, "host.steering")
    keep, blend = maps.add, local.BlendMaps.add
    monkeypatch.setattr(maps, "add", lambda self, *found: formed.append(len(paused)) or keep(self, *found))
    monkeypatch.setattr(
        local.BlendMaps, "add", lambda self, *found: formed.append(len(paused)) or blend(self, *found)
    )
    studio.invert(steps=1)
    read = len(formed)
    studio.edit(inversion, edit=blended(studio, inversion))
    assert 0 < read < len(formed) and set(formed) == {1}
    block = torch.zeros(3)
    assert attention.outlasting(block) is not block
    monkeypatch.setattr(attention, "outside_the_blocks_memory", nullcontext)
    assert attention.outlasting(block) is block


def test_what_the_source_leaves_for_later_calls_is_no_blocks_own(studio, inversion, monkeypatch):
    rows, kept = pack(studio.host, "host.steered_rows"), []
    own = rows.outlasting
    monkeypatch.setattr(rows, "outlasting", lambda *given: kept.append(given) or own(*given))
    edit = masa_ctrl(studio)
    studio.edit(inversion, edit=edit)
    assert not kept, "one call for all branches keeps nothing past its block"
    studio.edit(inversion, edit=edit, model=Short(studio).model)
    assert kept and all(short for _, short in kept)
