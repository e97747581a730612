"""Where an edit begins, and whose features Plug-and-Play takes."""

import logging
import re

import pytest
import torch

from devtools.studio import SOURCE, TARGET, left_half, picture
from eta_core.trajectory import INVERTERS
from tests.host.test_errors import raises
from tests.host.test_methods import every_method, masa_ctrl, plug_and_play, prompt_to_prompt, region_edit
from tests.host.test_sampling import close

STEPS = 8


@pytest.fixture(scope="module")
def inverted(studio):
    return studio.invert(steps=STEPS)


@pytest.fixture
def rows(studio, inverted, caplog):
    """How many rows an edit sends through the network."""

    def count(**inputs) -> int:
        caplog.clear()
        with caplog.at_level(logging.INFO, "eta-inversion"):
            studio.edit(inverted, **inputs)
        return int(re.search(r"(\d+) rows through the network", caplog.text)[1])

    return count


def test_an_edit_that_begins_at_the_noise_is_what_it_always_was(studio, inverted):
    assert torch.equal(studio.edit(inverted, start=1.0), studio.edit(inverted))


@pytest.mark.parametrize(("start", "left"), [(0.5, 4), (0.75, 6), (0.64, 6), (0.02, 1)])
def test_the_skipped_steps_are_not_computed(rows, start, left):
    assert rows(start=start) * STEPS == rows() * left


@pytest.mark.parametrize("inverter", INVERTERS)
def test_the_later_an_edit_begins_the_nearer_it_stays(studio, inverter):
    inversion, source = studio.invert(inverter=inverter), picture()["samples"]
    same = dict(eta=studio.eta(end_eta=0.0), cfg=1.5)
    distances = [
        float((studio.edit(inversion, start=start, **same) - source).square().mean())
        for start in (1.0, 0.5, 0.25)
    ]
    assert distances[0] > distances[1] > distances[2] > 0


@every_method
def test_a_method_acts_on_an_edit_that_begins_on_the_way(studio, inverted, method):
    edit = method(studio, inverted)
    assert not close(studio.edit(inverted, start=0.5, edit=edit), studio.edit(inverted, start=0.5), 0.005), (
        "the method has no effect"
    )


def test_the_lock_and_regions_hold_for_an_edit_that_begins_on_the_way(studio, inverted):
    mask, source = left_half(), picture()["samples"]
    edited = studio.edit(inverted, start=0.5, mask=mask, background_lock=1.0)
    assert close(edited[..., 4:], source[..., 4:]) and not close(edited[..., :4], source[..., :4], 0.01)
    region = region_edit(studio, TARGET, mask)
    assert not close(
        studio.edit(inverted, start=0.5, edit=region, positive=studio.prompt(SOURCE)), edited, 0.01
    )


@pytest.mark.parametrize("start", [0.0, -1.0, 1.5, float("nan")])
def test_a_start_by_a_link_is_checked(studio, inverted, start):
    with raises(f"start is {start:g}", "from above 0 to 1"):
        studio.edit(inverted, start=start)


# --- Plug-and-Play's giver ------------------------------------------------------------------------


def test_the_empty_prompt_as_giver_saves_a_row_a_step(studio, rows):
    own, empty = (
        plug_and_play(studio, feature_end=1.0, attention_end=1.0, giver=g)
        for g in ("own rows", "empty prompt")
    )
    assert rows(edit=own) == 4 * STEPS and rows(edit=empty) == 3 * STEPS


def test_without_an_empty_prompt_of_its_own_the_giver_takes_the_negative(studio, inverted):
    given, default = (
        plug_and_play(studio, giver="empty prompt", **more)
        for more in ({"source_negative": studio.prompt("")}, {})
    )
    assert torch.equal(studio.edit(inverted, edit=given), studio.edit(inverted, edit=default))
    other = plug_and_play(studio, giver="empty prompt", source_negative=studio.prompt(SOURCE))
    assert not close(studio.edit(inverted, edit=other), studio.edit(inverted, edit=default), 1e-3)


def test_own_rows_under_equal_prompts_are_the_empty_prompts_row(studio, inverted):
    """Where source, target and negative prompt are all the empty prompt, both givers have the same row."""
    empty = studio.prompt("")
    inversion = studio.invert(steps=STEPS, positive=empty)
    own, one = (
        studio.edit(inversion, positive=empty, cfg=1.0, edit=plug_and_play(studio, giver=giver))
        for giver in ("own rows", "empty prompt")
    )
    assert close(own, one, 1e-4)


def test_parity_takes_the_giver_of_the_authors_program_where_plug_and_play_stands_alone(studio, inverted):
    same = dict(parity=True, noise_candidates=1)
    own, empty = (plug_and_play(studio, giver=giver) for giver in ("own rows", "empty prompt"))
    assert torch.equal(studio.edit(inverted, edit=own, **same), studio.edit(inverted, edit=empty, **same))
    both = masa_ctrl(studio, edit=own)
    assert torch.equal(
        studio.edit(inverted, edit=both, **same), studio.edit(inverted, edit=both, noise_candidates=1)
    )


@pytest.mark.parametrize("parity", [True, False])
def test_parity_counts_steps_as_the_authors_program_does(studio, inverted, parity):
    """Half of the steps is left out. There, Plug-and-Play's first half is over, MasaCtrl's second never
    begins, and what Prompt-to-Prompt's first half covers is all that is left.
    """

    def edit(method=None) -> torch.Tensor:
        return studio.edit(inverted, start=0.5, edit=method, noise_candidates=1, parity=parity)

    half, whole = (
        edit(prompt_to_prompt(studio, inverted, cross_replace_end=share, self_replace_end=share))
        for share in (0.5, 1.0)
    )
    assert torch.equal(half, whole) is parity
    plain = edit()
    for method in (
        plug_and_play(studio, feature_end=0.5, attention_end=0.5),
        masa_ctrl(studio, start=0.5),
    ):
        assert torch.equal(edit(method), plain) is parity


def test_the_empty_prompt_as_giver_is_refused_beside_what_reads_the_sources_own_prompt(studio, inverted):
    method = plug_and_play(studio, giver="empty prompt")
    with raises("giver 'empty prompt' cannot be used with other methods", "set giver to 'own rows'"):
        studio.edit(inverted, edit=masa_ctrl(studio, edit=method))
    friendly = studio.invert(steps=STEPS, inverter="edit_friendly")
    with raises("cannot be used with an edit_friendly inversion", "set giver to 'own rows'"):
        studio.edit(friendly, edit=method)


def test_an_unknown_giver_is_refused(studio):
    with raises("giver 'nobody' is unknown", "own rows, empty prompt"):
        plug_and_play(studio, giver="nobody")


# --- edit-friendly inversion under a guidance of its own ------------------------------------------


def test_the_source_comes_back_under_the_guidance_its_noise_was_recorded_at(studio):
    """source_cfg is the source's guidance alone: with the source prompt at that cfg the picture plays back
    exactly.
    """
    inversion = studio.invert(steps=STEPS, inverter="edit_friendly")
    same = dict(eta=studio.eta(end_eta=0.0), positive=studio.prompt(SOURCE), source_cfg=1.5)
    back, away = (studio.edit(inversion, cfg=cfg, **same) for cfg in (1.5, 4.0))
    assert close(back, picture()["samples"], 1e-3) and not close(away, picture()["samples"], 0.05)


def test_other_inversions_do_not_read_source_cfg(studio, inverted):
    assert torch.equal(studio.edit(inverted, source_cfg=4.0), studio.edit(inverted))
