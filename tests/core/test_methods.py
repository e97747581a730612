"""Where each method acts: the papers' settings on 50 steps and SD1's 16 layers."""

import pytest
import torch

from eta_core.methods import NEVER, Injection, Layer, LocalBlend, MasaCtrl, PlugAndPlay, PromptToPrompt, Span

STEPS = range(50)
PARTS = ["input"] * 6 + ["middle"] + ["output"] * 9
SCALES = [1, 1, 2, 2, 4, 4, 8, 4, 4, 4, 2, 2, 2, 1, 1, 1]
LAYERS = [Layer(i / 16, scale, part, late=i >= 8) for i, (part, scale) in enumerate(zip(PARTS, SCALES))]


def prompt_to_prompt(cross=NEVER, self_attention=NEVER, blend=None, rows=77):
    return PromptToPrompt(torch.eye(rows), torch.ones(rows), (cross,) * rows, self_attention, blend)


def acts(method, done, cond=True):
    """The numbers of the layers that borrow at a step, and what."""
    found = {i: method.injection(done, 50, layer, cond) for i, layer in enumerate(LAYERS)}
    return {i: borrowed for i, borrowed in found.items() if any(borrowed)}


def control_acts(method, done, steps):
    control = method.cross_control(done, steps)
    return control is not None and control.steers


def read_at(method):
    return [done for done in STEPS if method.reads_source(done, 50)]


def test_prompt_to_prompt_steers_cross_attention_in_the_first_20_steps():
    method = prompt_to_prompt(cross=Span(0.0, 0.4))
    assert [done for done in STEPS if control_acts(method, done, 50)] == list(range(20)) == read_at(method)
    assert [method.weight(done, 50).unique().tolist() for done in STEPS] == [[1.0]] * 20 + [[0.0]] * 30


def test_every_word_has_steps_of_its_own():
    method = PromptToPrompt(
        torch.eye(3), torch.ones(3), (Span(0.0, 0.2), Span(0.1, 0.4), Span(0.0, 1.0)), NEVER
    )
    assert [method.weight(done, 50).tolist() for done in (0, 5, 9, 10, 19, 20, 49)] == [
        [1, 0, 1],
        [1, 1, 1],
        [1, 1, 1],
        [0, 1, 1],
        [0, 1, 1],
        [0, 0, 1],
        [0, 0, 1],
    ]
    assert read_at(method) == list(STEPS)


def test_cross_attention_is_counted_over_one_step_more_as_in_the_reference():
    method = prompt_to_prompt(cross=Span(0.0, 0.9), self_attention=Span(0.0, 0.9))
    assert [control_acts(method, done, 5) for done in range(5)] == [True] * 5  # int(0.9 * 6) = 5
    assert [method.weight(done, 5).unique().tolist() for done in range(5)] == [[1.0]] * 5
    assert [any(method.injection(done, 5, LAYERS[4], True)) for done in range(5)] == [True] * 4 + [False]


def test_prompt_to_prompt_takes_self_attention_of_half_size_and_less_in_the_first_30_steps():
    method = prompt_to_prompt(self_attention=Span(0.0, 0.6))
    coarse = {i: Injection(q=True, k=True) for i in range(2, 13)}
    assert [acts(method, done) for done in STEPS] == [coarse] * 30 + [{}] * 20
    assert read_at(method) == list(range(30))


def test_prompt_to_prompt_leaves_the_negative_prompts_rows_alone():
    assert acts(prompt_to_prompt(self_attention=Span(0.0, 0.6)), 0, cond=False) == {}


@pytest.mark.parametrize("cond", [True, False])
def test_masactrl_looks_into_the_source_from_step_4_and_layer_10_on(cond):
    method = MasaCtrl(Span(0.08, 1.0))
    decoder = {i: Injection(k=True, v=True) for i in range(10, 16)}
    assert [acts(method, done, cond) for done in STEPS] == [{}] * 4 + [decoder] * 46
    assert read_at(method) == list(range(4, 50))


@pytest.mark.parametrize("cond", [True, False])
def test_plug_and_play_takes_features_for_40_steps_and_late_attention_for_25(cond):
    method = PlugAndPlay(Span(0.0, 0.8), Span(0.0, 0.5))
    late = {i: Injection(q=True, k=True) for i in range(8, 16)}
    assert [acts(method, done, cond) for done in STEPS] == [late] * 25 + [{}] * 25
    assert [done for done in STEPS if method.features.covers(done, 50)] == list(range(40)) == read_at(method)


def test_two_methods_borrow_together():
    assert Injection(q=True, k=True) | Injection(k=True, v=True) == Injection(True, True, True)
    assert Injection(q=True) | Injection() == Injection(q=True)


@pytest.mark.parametrize(
    "method",
    [
        prompt_to_prompt(),
        prompt_to_prompt(Span(0.5, 0.5), Span(1.0, 1.0)),
        prompt_to_prompt(blend=LocalBlend((), (2,))),
        prompt_to_prompt(blend=LocalBlend((), (), mask=torch.ones(1, 1, 4, 4))),
        MasaCtrl(Span(1.0, 1.0)),
        MasaCtrl(Span(0.08, 1.0), 1.0),
        PlugAndPlay(NEVER, NEVER),
    ],
)
def test_a_neutral_method_takes_nothing_and_never_reads_the_source(method):
    assert read_at(method) == []
    assert all(not acts(method, done, cond) for done in STEPS for cond in (True, False))


def test_a_local_blend_with_words_of_the_source_reads_it_at_every_step():
    assert read_at(prompt_to_prompt(blend=LocalBlend((2,), (2,)))) == list(STEPS)


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_from_0_to_1_is_every_step(steps):
    assert all(Span(0.0, 1.0).covers(done, steps) for done in range(steps))
    assert not any(NEVER.covers(done, steps) for done in range(steps))


@pytest.mark.parametrize(
    "span",
    [Span(0.6, 0.4), Span(-0.1, 0.4), Span(0.0, 1.1), Span(float("nan"), 0.4), Span(0.0, float("inf"))],
)
def test_a_span_that_is_none_is_refused_by_its_name(span):
    with pytest.raises(
        ValueError, match=f"cross_replace runs from {span.start:g} to {span.end:g}: .* 0 <= start <= end"
    ):
        span.check("cross_replace")


def test_a_span_that_is_one_passes():
    assert Span(0.2, 0.2).check("cross_replace") == Span(0.2, 0.2)


# --- local blend ----------------------------------------------------------------------------------


def test_the_local_blend_begins_after_a_fifth_of_the_steps():
    assert [done for done in STEPS if LocalBlend((1,), (1,)).acts(done, 50)] == list(range(10, 50))


def test_a_words_region_is_what_comes_near_its_maximum_and_a_step_around():
    words = torch.full((2, 6, 6), 0.2)
    words[0, 1, 1] = 1.0
    words[1, 4, 4] = 0.1  # the second picture is flat but for a hole: all of it is near its maximum
    region = LocalBlend((1,), (), threshold=0.3).region([words], (6, 6))
    expected = torch.zeros(6, 6)
    expected[0:3, 0:3] = 1.0
    assert region.shape == (2, 1, 6, 6)
    assert torch.equal(region[0, 0], expected)
    assert torch.equal(region[1, 0], torch.ones(6, 6))


def test_the_threshold_is_a_part_of_the_maximum():
    words = torch.zeros(1, 3, 12)
    words[0, 1, 2], words[0, 1, 6], words[0, 1, 10] = 50.0, 16.0, 14.0
    region = LocalBlend((1,), (), threshold=0.3).region([words], (3, 12))
    assert region[0, 0, 1].tolist() == [0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0]


def test_both_prompts_words_are_free_each_by_its_own_maximum():
    source, target = torch.zeros(1, 4, 8), torch.zeros(1, 4, 8)
    source[0, :, 0], target[0, :, 7] = 100.0, 1.0
    region = LocalBlend((1,), (1,)).region([source, target], (8, 16))
    assert torch.equal(region[0, 0], torch.tensor([1.0, 1, 1, 1, *[0] * 8, 1, 1, 1, 1]).expand(8, 16))


def test_a_mask_takes_the_place_of_the_words():
    mask = torch.rand(1, 1, 4, 4)
    assert LocalBlend((), (), mask=mask).region([torch.ones(1, 2, 2)], (4, 4)) is mask


def test_a_local_blend_without_words_is_refused():
    with pytest.raises(ValueError, match="no words: name words of either prompt in blend_words"):
        LocalBlend((), ())


@pytest.mark.parametrize("threshold", [-0.1, 1.0, float("nan")])
def test_a_threshold_outside_0_to_1_is_refused(threshold):
    with pytest.raises(ValueError, match=f"blend_threshold = {threshold:g}"):
        LocalBlend((1,), (), threshold=threshold)


def test_masks_of_a_method_are_fitted_and_nothing_else_changes():
    mask, twice = torch.ones(1, 1, 2, 2), lambda m: 2 * m
    blended = prompt_to_prompt(Span(0.0, 0.4), blend=LocalBlend((), (), 0.5, 0.1, mask)).fitted(twice)
    assert torch.equal(blended.blend.mask, 2 * mask)
    assert (blended.blend.threshold, blended.blend.start, blended.cross[0]) == (0.5, 0.1, Span(0.0, 0.4))
    regions = MasaCtrl(Span(0.0, 1.0), 0.5, (mask, 3 * mask)).fitted(twice).regions
    assert [float(region.max()) for region in regions] == [2.0, 6.0]
