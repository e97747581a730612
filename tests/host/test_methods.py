"""Editing methods, several edits at once and the inverters, inside the host's own sampling."""

import logging
import sys

import pytest
import torch
from safetensors.torch import save_file

from devtools.studio import SOURCE, STEPS, TARGET, left_half, picture
from tests.host.test_errors import raises
from tests.host.test_sampling import close, pack

PROMPT_TO_PROMPT = dict(
    mode="auto",
    cross_replace_start=0.0,
    cross_replace_end=0.5,
    self_replace_start=0.0,
    self_replace_end=0.5,
    word_steps="",
    equalizer=2.0,
    equalizer_words="",
    local_blend=False,
    blend_words="",
    blend_threshold=0.3,
    blend_start=0.2,
    source_prompt=SOURCE,
)


def prompt_to_prompt(studio, inversion, target: str = TARGET, **changes):
    inputs = dict(clip=studio.clip, positive=studio.prompt(target), target_prompt=target)
    return studio.host.call("EtaPromptToPrompt", inversion=inversion, **PROMPT_TO_PROMPT | inputs | changes)[
        0
    ]


def masa_ctrl(studio, inversion=None, **changes):
    return studio.host.call("EtaMasaCtrl", **dict(start=0.0, start_layer=0.5) | changes)[0]


def plug_and_play(studio, inversion=None, **changes):
    return studio.host.call("EtaPlugAndPlay", **dict(feature_end=0.8, attention_end=0.5) | changes)[0]


def region_edit(studio, text: str, mask: torch.Tensor, **changes):
    inputs = dict(positive=studio.prompt(text), mask=mask, eta_scale=1.0, cfg=3.0, overlap="over")
    return studio.host.call("EtaRegionEdit", **inputs | changes)[0]


def blended(studio, inversion, **changes):
    return prompt_to_prompt(studio, inversion, local_blend=True, **changes)


METHODS = [prompt_to_prompt, blended, masa_ctrl, plug_and_play]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda make: make.__name__)


# --- what a method does ---------------------------------------------------------------------------


@every_method
def test_a_method_changes_the_edit(studio, inversion, method):
    assert not close(studio.edit(inversion, edit=method(studio, inversion)), studio.edit(inversion), 0.01)


@pytest.mark.parametrize(
    "method, neutral",
    [
        (prompt_to_prompt, dict(cross_replace_end=0.0, self_replace_end=0.0)),
        (masa_ctrl, dict(start=1.0)),
        (masa_ctrl, dict(start_layer=1.0)),
        (plug_and_play, dict(feature_end=0.0, attention_end=0.0)),
    ],
    ids=["prompt-to-prompt", "masactrl, no step", "masactrl, no layer", "plug-and-play"],
)
@pytest.mark.parametrize("candidates", [1, 3])
def test_a_neutral_method_is_no_method_to_the_bit(studio, inversion, method, neutral, candidates):
    inputs = dict(noise_candidates=candidates)
    edited = studio.edit(inversion, edit=method(studio, inversion, **neutral), **inputs)
    assert torch.equal(edited, studio.edit(inversion, **inputs))


def test_a_local_blend_of_nothing_is_the_source(studio, inversion):
    method = prompt_to_prompt(
        studio, inversion, local_blend=True, blend_start=0.0, blend_mask=torch.zeros(1, 64, 64)
    )
    edited, source = studio.edit_both(inversion, edit=method)
    assert close(edited, source, 1e-6)


def test_a_local_blend_of_everything_is_none(studio, inversion):
    everything = prompt_to_prompt(studio, inversion, local_blend=True, blend_mask=torch.ones(1, 64, 64))
    assert torch.equal(
        studio.edit(inversion, edit=everything),
        studio.edit(inversion, edit=prompt_to_prompt(studio, inversion)),
    )


def test_all_methods_at_full_strength_with_the_source_prompt_give_the_source_back(studio):
    """cfg 1, eta 0 and the fixed point: nothing but the methods could move the target from the source."""
    inverted = studio.invert(inverter="fixed_point", iterations=5, steps=8)
    full = dict(cross_replace_end=1.0, self_replace_end=1.0, mode="refine", equalizer=1.0)
    method = prompt_to_prompt(studio, inverted, SOURCE, **full)
    method = masa_ctrl(
        studio, start_layer=0.0, edit=plug_and_play(studio, feature_end=1.0, attention_end=1.0, edit=method)
    )
    inputs = dict(positive=studio.prompt(SOURCE), cfg=1.0, eta=studio.eta(end_eta=0.0))
    edited, source = studio.edit_both(inverted, edit=method, **inputs)
    other, _ = studio.edit_both(inverted, edit=method, **inputs | dict(positive=studio.prompt(TARGET)))
    assert close(edited, source, 0.05) and not close(other, source, 0.05)


def test_more_steps_of_self_attention_keep_more_of_the_source(studio):
    inverted = studio.invert(steps=8)
    plain = studio.eta(end_eta=0.0)

    def distance(end: float) -> float:
        method = prompt_to_prompt(
            studio, inverted, cross_replace_end=end, self_replace_end=end, equalizer=1.0
        )
        edited, source = studio.edit_both(inverted, edit=method, eta=plain)
        return float((edited - source).square().mean())

    assert distance(1.0) < distance(0.0)


@pytest.mark.parametrize(
    "target, mode",
    [
        ("a dog sitting on a red wooden bench", "auto"),
        ("a corgi on a bench", "refine"),
        ("a dog " * 30, "auto"),
        ("a dog " * 30, "refine"),
        ("(a dog:1.3) on a bench", "auto"),
    ],
)
def test_prompts_of_any_length_are_aligned(studio, inversion, target, mode):
    method = prompt_to_prompt(studio, inversion, target, mode=mode)
    plain, steered = (
        studio.edit(inversion, positive=studio.prompt(target), edit=edit) for edit in (None, method)
    )
    assert not close(steered, plain, 0.01), "the method has no effect"


def test_a_word_may_have_steps_of_its_own(studio, inversion):
    usual = studio.edit(inversion, edit=prompt_to_prompt(studio, inversion, self_replace_end=0.0))
    own = prompt_to_prompt(studio, inversion, self_replace_end=0.0, word_steps="dog:0-0, sitting:1")
    every = prompt_to_prompt(
        studio, inversion, self_replace_end=0.0, word_steps="a:0-0, dog:0-0, sitting:0-0, on:0-0, bench:0-0"
    )
    assert not close(studio.edit(inversion, edit=own), usual, 1e-3)
    assert not close(studio.edit(inversion, edit=every), studio.edit(inversion), 1e-3), (
        "start, end and padding are steered too"
    )


def test_the_equalizer_makes_a_word_count_for_more(studio, inversion):
    inputs = dict(self_replace_end=0.0, cross_replace_end=1.0)
    one, five = (
        studio.edit(inversion, edit=prompt_to_prompt(studio, inversion, equalizer_words=f"dog:{f}", **inputs))
        for f in (1, 5)
    )
    assert not close(one, five, 1e-3)


def test_masactrl_with_masks_of_everything_is_masactrl(studio, inversion):
    whole = torch.ones(1, 64, 64)
    masked = studio.edit(inversion, edit=masa_ctrl(studio, source_mask=whole, target_mask=whole))
    assert close(masked, studio.edit(inversion, edit=masa_ctrl(studio)), 1e-4)
    halves = studio.edit(inversion, edit=masa_ctrl(studio, source_mask=left_half(), target_mask=left_half()))
    assert not close(halves, masked, 1e-3)


# --- one call or several --------------------------------------------------------------------------


@pytest.fixture
def apart(host, monkeypatch):
    """Makes every branch a call of its own."""
    return lambda: monkeypatch.setattr(
        pack(host, "host.sampling").BranchGuider, "_can_join", lambda *names: False
    )


@pytest.fixture
def calls(studio):
    """A clone of the model, and the rows of each of its network calls."""
    model, rows = studio.model.clone(), []

    def count(apply_model, args):
        rows.append(len(args["input"]))
        return apply_model(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(count)
    return model, rows


@every_method
def test_branches_in_one_call_give_what_separate_calls_give(studio, inversion, apart, calls, method):
    model, rows = calls
    edit, mask = method(studio, inversion), left_half()
    inputs = dict(edit=edit, mask=mask, model=model, eta=studio.eta(end_eta=0.0))
    together = studio.edit(inversion, **inputs)
    assert set(rows) <= {2, 4} and 4 in rows and len(rows) == STEPS
    rows.clear()
    apart()
    separate = studio.edit(inversion, **inputs)
    assert set(rows) == {2} and len(rows) > STEPS
    assert close(together, separate, 1e-4)


@every_method
def test_positive_and_negative_apart_give_what_one_call_gives(studio, inversion, calls, method, monkeypatch):
    """With little memory the host splits a call; the target, of another length, is asked after the source."""
    model, rows = calls
    long = "a dog sitting on a bench " * 20
    edit = (
        method(studio, inversion)
        if method in (masa_ctrl, plug_and_play)
        else method(studio, inversion, target=long)
    )
    inputs = dict(model=model, positive=studio.prompt(long), edit=edit, eta=studio.eta(end_eta=0.0))
    together = studio.edit(inversion, **inputs)
    assert set(rows) == {2}
    rows.clear()
    management = sys.modules["comfy.model_management"]
    plenty = management.get_free_memory

    def little(device=None, torch_free_too=False):
        return plenty(device, True) if torch_free_too else 0

    monkeypatch.setattr(management, "get_free_memory", little)
    split = studio.edit(inversion, **inputs)
    assert set(rows) == {1}
    assert close(split, together, 1e-4)


def test_perturbed_attention_guidance_is_the_same_in_one_call_and_apart(studio, inversion, apart):
    (guided,) = studio.host.call("PerturbedAttentionGuidance", model=studio.model, scale=3.0)
    inputs = dict(edit=masa_ctrl(studio, start_layer=0.0), eta=studio.eta(end_eta=0.0), model=guided)
    together = studio.edit(inversion, **inputs)
    apart()
    assert close(studio.edit(inversion, **inputs), together, 1e-4)


def test_prompts_of_other_lengths_are_asked_apart(studio, inversion, calls):
    model, rows = calls
    long = "a dog " * 40
    studio.edit(inversion, model=model, positive=studio.prompt(long), parity=True)
    assert set(rows) == {2} and len(rows) == 2 * STEPS


def test_the_source_is_asked_only_in_steps_that_read_it(studio, calls):
    model, rows = calls
    inverted = studio.invert(steps=10)
    studio.edit(inverted, model=model, eta=studio.eta(end_eta=0.0), edit=masa_ctrl(studio, start=0.7))
    assert rows == [2] * 7 + [4] * 3


# --- beside other packs ---------------------------------------------------------------------------


def same_attention(q, k, v, extra_options):
    from comfy.ldm.modules.attention import optimized_attention

    return optimized_attention(q, k, v, extra_options["n_heads"])


def stronger_attention(q, k, v, extra_options):
    return 5 * same_attention(q, k, v, extra_options)


@every_method
def test_attention_replaced_by_another_pack_stays_in_force(studio, inversion, method):
    """Under the key (name, number), and under (name, number, index)."""
    edit = method(studio, inversion)

    def patched(attention, index):
        model = studio.model.clone()
        for kind in ("attn1", "attn2"):
            for place in (("input", 1), ("output", 1), ("output", 3)):
                getattr(model, f"set_model_{kind}_replace")(attention, *place, index)
        return studio.edit(inversion, model=model, edit=edit)

    expected = studio.edit(inversion, edit=edit)
    for index in (None, 0):
        assert close(patched(same_attention, index), expected, 1e-5), index
        assert not close(patched(stronger_attention, index), expected, 1e-3), index


@pytest.fixture(scope="module")
def perturbed(studio, inversion):
    """A model under perturbed attention guidance, and its edit without a method."""
    (guided,) = studio.host.call("PerturbedAttentionGuidance", model=studio.model, scale=3.0)
    return guided, studio.edit(inversion, model=guided)


@every_method
def test_perturbed_attention_guidance_keeps_its_effect(studio, inversion, perturbed, method):
    guided, without = perturbed
    (idle,) = studio.host.call("PerturbedAttentionGuidance", model=studio.model, scale=1e-7)
    edit = method(studio, inversion)
    both, plain = studio.edit(inversion, model=guided, edit=edit), studio.edit(inversion, edit=edit)
    assert not close(both, plain, 1e-2)
    assert not close(both, without, 1e-2)
    assert close(studio.edit(inversion, model=idle, edit=edit), plain, 1e-3)


def test_perturbed_attention_guidance_reaches_the_layers_a_method_holds(studio, inversion):
    """PAG puts its own attention under the block's key in a second call; MasaCtrl holds the same block."""
    edit = masa_ctrl(studio, start_layer=0.0)
    edited = []
    for scale in (1.0, 2.0):
        (guided,) = studio.host.call("PerturbedAttentionGuidance", model=studio.model, scale=scale)
        edited.append(studio.edit(inversion, model=guided, edit=edit, cfg=1.0))
    plain = studio.edit(inversion, edit=edit, cfg=1.0)
    assert not close(edited[0], plain, 1e-3) and not close(edited[0], edited[1], 1e-3)


@pytest.mark.parametrize(
    "node, inputs",
    [
        ("TomePatchModel", dict(ratio=0.5)),
        ("HyperTile", dict(tile_size=1, swap_size=2, max_depth=3, scale_depth=False)),
    ],
)
def test_packs_that_reshape_attention_leave_the_method_out_there_and_say_so(studio, caplog, node, inputs):
    (model,) = studio.host.call(node, model=studio.model, **inputs)
    inverted = studio.invert(model=model, latent_image=picture(size=(32, 32)), steps=2)
    with caplog.at_level(logging.WARNING, "eta-inversion"):
        edited = studio.edit(inverted, model=model, edit=masa_ctrl(studio, start_layer=0.0))
    assert bool(edited.isfinite().all())
    if "changes the attention's shape" not in caplog.text:
        assert not close(edited, studio.edit(inverted, model=model), 1e-3), "neither steered nor said"


def test_an_area_of_the_target_leaves_the_method_out_there_and_says_so(studio, inversion, caplog):
    (area,) = studio.host.call(
        "ConditioningSetArea",
        conditioning=studio.prompt("a dog"),
        width=32,
        height=64,
        x=0,
        y=0,
        strength=1.0,
    )
    (both,) = studio.host.call(
        "ConditioningCombine", conditioning_1=studio.prompt(TARGET), conditioning_2=area
    )
    edited = studio.edit(inversion, positive=both, edit=masa_ctrl(studio))
    assert bool(edited.isfinite().all()) and "changes the attention's shape" in caplog.text


def area(studio, text: str, x: int) -> list:
    """The text in the left (x 0) or the right half (x 32) of the picture."""
    inputs = dict(conditioning=studio.prompt(text), width=32, height=64, x=x, y=0, strength=1.0)
    return studio.host.call("ConditioningSetArea", **inputs)[0]


def test_features_do_not_wander_from_area_to_area(studio, caplog):
    inverted = studio.invert(positive=area(studio, SOURCE, 0))
    inputs = dict(positive=area(studio, TARGET, 32), eta=studio.eta(end_eta=0.0), cfg=1.0)
    edited = studio.edit(inverted, edit=plug_and_play(studio, feature_end=1.0, attention_end=0.0), **inputs)
    assert close(edited, studio.edit(inverted, **inputs), 1e-6)
    assert "the editing method is left out there" in caplog.text


def test_an_area_of_the_negative_prompt_costs_no_maps(studio):
    negative, (whole,) = area(studio, "ugly", 0), [studio.prompt("ugly")]
    with_area = studio.invert(cfg=1.5, negative=negative).trajectory
    without = studio.invert(cfg=1.5, negative=whole).trajectory
    assert torch.corrcoef(torch.stack([with_area.maps.flatten(), without.maps.flatten()]))[0, 1] > 0.95


@pytest.mark.parametrize("block", [1, 3])
def test_deep_shrink_changes_the_grid_for_some_steps_alone(studio, block):
    """PatchModelAddDownscale halves the grid of the first half of the steps."""
    inputs = dict(
        block_number=block,
        downscale_factor=2.0,
        start_percent=0.0,
        end_percent=0.5,
        downscale_after_skip=True,
    )
    (model,) = studio.host.call(
        "PatchModelAddDownscale",
        model=studio.model,
        downscale_method="bicubic",
        upscale_method="bicubic",
        **inputs,
    )
    latent = picture(size=(16, 16))
    plain, inverted = (studio.invert(model=m, latent_image=latent) for m in (studio.model, model))
    assert inverted.trajectory.maps.shape == plain.trajectory.maps.shape
    for method in METHODS[1:]:  # the local blend has the first one in it
        assert bool(studio.edit(inverted, model=model, edit=method(studio, inverted)).isfinite().all())


def test_an_area_of_the_source_does_not_leak_into_the_target(studio):
    """Processed together, the host would give every branch the others' areas."""
    (area,) = studio.host.call(
        "ConditioningSetArea", conditioning=studio.prompt(SOURCE), width=32, height=64, x=0, y=0, strength=1.0
    )
    (both,) = studio.host.call(
        "ConditioningCombine", conditioning_1=studio.prompt("a bench"), conditioning_2=area
    )
    inverted = studio.invert(positive=both)
    read = studio.edit(inverted, noise_candidates=2, noise_blend=0.0, eta=studio.eta(end_eta=1e-9))
    unread = studio.edit(inverted, eta=studio.eta(end_eta=0.0))
    assert close(read, unread, 1e-4)


# --- several edits at once ------------------------------------------------------------------------


def test_an_edit_of_the_whole_picture_is_the_edit_itself(studio, inversion):
    whole = region_edit(studio, TARGET, torch.ones(1, 64, 64))
    nothing = dict(positive=studio.prompt("a bench"), mask=torch.ones(1, 64, 64))
    assert close(studio.edit(inversion, edit=whole, **nothing), studio.edit(inversion), 1e-4)


def test_two_regions_are_two_edits_side_by_side(studio, inversion):
    """In one step the halves are those of the single edits; outside both, the locked source."""
    inverted = studio.invert(steps=1)
    left, right = left_half(), 1 - left_half()
    both = region_edit(studio, "a red fox", right, edit=region_edit(studio, TARGET, left))
    inputs = dict(positive=studio.prompt(SOURCE), noise_candidates=1)
    edited = studio.edit(inverted, edit=both, **inputs)
    for text, half in ((TARGET, slice(0, 4)), ("a red fox", slice(4, 8))):
        alone = studio.edit(inverted, positive=studio.prompt(text), noise_candidates=1)
        assert close(edited[..., half], alone[..., half], 1e-4)
    quarter = torch.zeros(1, 64, 64)
    quarter[..., :16] = 1
    locked, source = studio.edit_both(
        inversion, edit=region_edit(studio, TARGET, quarter), background_lock=1.0, **inputs
    )
    assert close(locked[..., 2:], source[..., 2:], 1e-6) and not close(locked[..., :2], source[..., :2], 0.05)


def test_where_two_regions_meet_the_later_lies_over_or_under(studio, inversion):
    whole = torch.ones(1, 64, 64)
    inputs = dict(positive=studio.prompt(SOURCE), noise_candidates=1)

    def overlapping(overlap: str):
        first = region_edit(studio, TARGET, whole)
        return studio.edit(
            inversion, edit=region_edit(studio, "a red fox", whole, overlap=overlap, edit=first), **inputs
        )

    dog, fox = (
        studio.edit(inversion, edit=region_edit(studio, text, whole), **inputs)
        for text in (TARGET, "a red fox")
    )
    assert close(overlapping("over"), fox, 1e-4) and close(overlapping("under"), dog, 1e-4)
    shared = overlapping("share")
    assert not close(shared, fox, 1e-2) and not close(shared, dog, 1e-2)


def test_a_region_has_its_own_eta_guidance_and_method(studio, inversion):
    def run(**changes):
        return studio.edit(
            inversion, edit=region_edit(studio, TARGET, left_half(), **changes), noise_candidates=1
        )

    usual = run()
    for changes in (dict(eta_scale=0.0), dict(cfg=6.0), dict(method=masa_ctrl(studio))):
        assert not close(run(**changes)[..., :4], usual[..., :4], 1e-3), changes


@pytest.mark.parametrize("method", METHODS[:1] + METHODS[2:], ids=lambda make: make.__name__)
def test_methods_on_several_edits_are_each_its_own(studio, inversion, method):
    """The target's method acts on the left, the region's, which begins a step later, on the right."""
    right, eta = 1 - left_half(), studio.eta(end_eta=0.0)
    late = masa_ctrl(studio, start=0.25, start_layer=0.0)
    region = region_edit(studio, TARGET, right, method=late)
    both = studio.edit(
        inversion,
        eta=eta,
        edit=region_edit(studio, TARGET, right, method=late, edit=method(studio, inversion)),
    )
    alone = studio.edit(inversion, eta=eta, edit=region)
    assert not close(both[..., :4], alone[..., :4], 1e-2)
    everywhere = region_edit(
        studio, TARGET, torch.ones(1, 64, 64), method=late, edit=method(studio, inversion)
    )
    assert close(
        studio.edit(inversion, eta=eta, edit=everywhere), studio.edit(inversion, eta=eta, edit=late), 1e-4
    )


def test_a_local_blend_leaves_other_edits_regions_alone(studio, inversion):
    """The blend holds all of the target on the source; the region's edit stays."""
    nothing = prompt_to_prompt(
        studio, inversion, local_blend=True, blend_start=0.0, blend_mask=torch.zeros(1, 64, 64)
    )
    edit = region_edit(studio, "a red fox", 1 - left_half(), edit=nothing)
    edited, source = studio.edit_both(inversion, edit=edit)
    assert close(edited[..., :4], source[..., :4], 1e-6) and not close(edited[..., 4:], source[..., 4:], 0.1)


def test_a_guided_region_beside_an_unguided_target_is_steered_whole(studio, inversion):
    """At cfg 1 the host asks for no negative; the region's method wants the source's."""
    whole, method = torch.ones(1, 64, 64), masa_ctrl(studio, start_layer=0.0)
    unguided, nearly = (
        studio.edit(
            inversion,
            cfg=cfg,
            noise_candidates=1,
            edit=region_edit(studio, TARGET, whole, cfg=7.5, method=method),
        )
        for cfg in (1.0, 1.0001)
    )
    assert close(unguided, nearly, 1e-2)


def test_variants_are_the_edits_of_the_next_seeds(studio, calls):
    model, rows = calls
    pictures = torch.cat([picture(seed)["samples"] for seed in (1, 2)])
    inverted = studio.invert(latent_image={"samples": pictures})
    mask = torch.cat([left_half(), 1 - left_half()])
    method = prompt_to_prompt(studio, inverted, local_blend=True)
    inputs = dict(mask=mask, background_lock=0.5, edit=method)
    gallery = studio.edit(inverted, variants=3, seed=7, model=model, **inputs)
    assert gallery.shape == (6, *pictures.shape[1:])
    assert rows == [2 * (2 + 6)] * STEPS, "one source for all variants"
    for i in range(3):
        assert close(gallery[2 * i : 2 * i + 2], studio.edit(inverted, seed=7 + i, **inputs), 1e-3)


# --- inverters ------------------------------------------------------------------------------------


def error_of(studio, inverted, **inputs) -> float:
    edited, source = studio.edit_both(
        inverted, **dict(eta=studio.eta(end_eta=0.0), positive=studio.prompt(SOURCE), cfg=1.0) | inputs
    )
    return float((edited - source).square().mean().sqrt() / source.std())


def test_fixed_point_iterations_play_back_better_and_report_their_residual(studio, inversion, caplog):
    plain = error_of(studio, inversion)
    with caplog.at_level(logging.INFO, "eta-inversion"):
        refined = error_of(studio, studio.invert(inverter="fixed_point", iterations=4))
    assert refined < 0.5 * plain and "residual" in caplog.text


def test_a_warm_start_plays_back_better_for_one_evaluation_more(studio, inversion, caplog):
    plain = error_of(studio, inversion)
    with caplog.at_level(logging.INFO, "eta-inversion"):
        warm = error_of(studio, studio.invert(inverter="warm"))
    assert warm < 0.5 * plain and f"{STEPS + 1} rows" in caplog.text


def test_one_fixed_point_iteration_is_ddim(studio, inversion):
    assert torch.equal(
        studio.invert(inverter="fixed_point", iterations=1).trajectory.x, inversion.trajectory.x
    )


def test_negative_prompt_inversion_plays_back_at_any_guidance(studio, inversion):
    inverted = studio.invert(inverter="negative_prompt")
    assert torch.equal(inverted.trajectory.x, inversion.trajectory.x)
    without = error_of(studio, inversion, cfg=7.5)
    assert error_of(studio, inverted, cfg=7.5) < 0.5 * without
    assert error_of(studio, inverted, cfg=7.5) == pytest.approx(error_of(studio, inverted), rel=1e-2)


def test_edit_friendly_noise_gives_the_source_back_exactly_at_any_guidance(studio):
    inverted = studio.invert(inverter="edit_friendly")
    assert error_of(studio, inverted, cfg=7.5, negative=studio.prompt("")) < 1e-4
    assert inverted.trajectory.maps is not None


def test_eta_renews_edit_friendly_noise(studio):
    inverted = studio.invert(inverter="edit_friendly")
    kept, half, renewed = (
        studio.edit(inverted, eta=studio.eta(end_eta=eta), noise_candidates=1) for eta in (0.0, 0.5, 1.0)
    )
    _, source = studio.edit_both(inverted)
    assert (kept - source).norm() < (half - source).norm() < (renewed - source).norm()
    assert not close(kept, source, 0.01), "another prompt edits without eta"


def test_edit_friendly_noise_depends_on_its_seed(studio):
    one, two = (studio.invert(inverter="edit_friendly", inversion_seed=seed).trajectory.x for seed in (1, 2))
    assert torch.equal(one[0], two[0]) and not close(one[1:], two[1:], 0.1)


@pytest.mark.parametrize("scheduler", ["simple", "karras"])
def test_edit_friendly_noise_gives_the_source_back_with_schedules_that_end_at_0(studio, scheduler):
    inverted = studio.invert(inverter="edit_friendly", scheduler=scheduler)
    edited, source = studio.edit_both(
        inverted, positive=studio.prompt(SOURCE), cfg=1.0, eta=studio.eta(end_eta=0.0)
    )
    assert close(edited, source, 1e-4)


def test_a_saved_inversion_keeps_its_inverter(studio):
    inverted = studio.invert(inverter="edit_friendly")
    studio.host.call("EtaSaveInversion", inversion=inverted, filename_prefix="inverter/inversion")
    path = max((studio.host.base / "output/inverter").glob("*.eta.safetensors"))
    (loaded,) = studio.host.call("EtaLoadInversion", file=f"inverter/{path.name} [output]")
    assert torch.equal(studio.edit(loaded), studio.edit(inverted))


# --- layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family, count, features", [("SD15", 16, 4), ("SD20", 16, 4), ("SDXL", 70, 4)])
def test_layers_come_from_the_model(host, studio, family, count, features):
    import comfy.ops
    import comfy.supported_models
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    config = dict(getattr(comfy.supported_models, family).unet_config) | dict(
        image_size=32, in_channels=4, out_channels=4
    )
    depths = {"SDXL": [0, 0, 2, 2, 10, 10]}.get(family, [1, 1, 1, 1, 1, 1, 0, 0])
    outputs = {"SDXL": [0, 0, 0, 2, 2, 2, 10, 10, 10]}.get(family, [1] * 9 + [0] * 3)
    config |= dict(
        model_channels=32,
        num_res_blocks=[2] * len(depths[::2]),
        channel_mult=(1, 2, 4, 4)[: len(depths) // 2],
        transformer_depth=depths,
        transformer_depth_output=outputs,
        transformer_depth_middle=10 if family == "SDXL" else 1,
        num_head_channels=32,
        context_dim=48,
        use_spatial_transformer=True,
        legacy=False,
        adm_in_channels=None,
    )
    unet = UNetModel(**config, operations=comfy.ops.disable_weight_init, device="meta")
    model = studio.model.clone()
    model.add_object_patch("diffusion_model", unet)
    families = pack(host, "host.families.unet")
    layers = families.unet_of(model, (64, 64)).layers
    assert len(layers) == count and [layer.share for layer in layers.values()] == [
        i / count for i in range(count)
    ]
    assert families.feature_block(unet) == features
    if family == "SD15":
        assert list(layers)[10] == ("output", 6, 0)
        assert list(families.unet_of(model, (64, 64)).map_layers) == [
            ("input", 7, 0),
            ("input", 8, 0),
            ("output", 3, 0),
            ("output", 4, 0),
            ("output", 5, 0),
        ]


# --- errors ---------------------------------------------------------------------------------------


def test_a_method_twice_in_a_chain(studio):
    with raises("MasaCtrl stands twice", "remove one"):
        masa_ctrl(studio, edit=masa_ctrl(studio))


def test_replacing_words_in_prompts_of_other_lengths(studio, inversion):
    with raises("mode replace", "source prompt has 6 words", "target 3", "use mode refine"):
        prompt_to_prompt(studio, inversion, "a dog sitting", mode="replace")


def test_reweighting_prompts_that_differ(studio, inversion):
    with raises("mode reweight needs the same prompt", "cat", "dog"):
        prompt_to_prompt(studio, inversion, mode="reweight")


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            dict(equalizer_words="zebra:2"),
            ("equalizer_words: ['zebra'] not in the target prompt", "dog, sitting"),
        ),
        (dict(word_steps="zebra:0.5"), ("word_steps: ['zebra'] not in the target prompt",)),
        (dict(word_steps="dog"), ("word_steps: 'dog' has no steps", "dog:0-0.2")),
        (dict(word_steps="dog:0.8-0.2"), ("word_steps of 'dog' runs from 0.8 to 0.2", "start <= end")),
        (
            dict(local_blend=True, blend_words="zebra"),
            ("blend_words: ['zebra'] not in the two prompts", "cat", "dog"),
        ),
        (dict(cross_replace_start=0.7), ("cross_replace runs from 0.7 to 0.5", "start <= end")),
        (dict(equalizer_words="dog:99"), ("the factor 99 of 'dog'", "0..10")),
    ],
    ids=lambda value: str(value)[:40],
)
def test_words_and_steps_that_make_no_sense(studio, inversion, changes, words):
    with raises(*words):
        prompt_to_prompt(studio, inversion, **changes)


def test_a_local_blend_where_nothing_changed(studio, inversion):
    with raises("the local blend has no words", "blend_words"):
        prompt_to_prompt(studio, inversion, SOURCE, local_blend=True)


def test_a_prompt_of_several_entries(studio, inversion):
    (two,) = studio.host.call(
        "ConditioningCombine", conditioning_1=studio.prompt(TARGET), conditioning_2=studio.prompt("a")
    )
    with raises("the target prompt has 2 entries", "one prompt each"):
        prompt_to_prompt(studio, inversion, positive=two)


def test_prompt_to_prompt_of_another_inversion(studio, inversion):
    other = studio.invert(positive=studio.prompt("a bench"))
    method = prompt_to_prompt(studio, other, source_prompt="a bench")
    with raises("another source prompt", "same inversion"):
        studio.edit(inversion, edit=method)


def test_prompt_to_prompt_of_another_target(studio, inversion, caplog):
    method = prompt_to_prompt(studio, inversion)
    studio.edit(inversion, positive=studio.prompt("a fox sitting on a bench"), edit=method)
    assert "another target prompt" in caplog.text
    with raises("a target prompt of 77 rows", "[154]"):
        studio.edit(inversion, positive=studio.prompt("a dog " * 40), edit=method)


def test_one_mask_of_two(studio):
    with raises("target_mask is not connected"):
        masa_ctrl(studio, source_mask=left_half())


def test_an_empty_region(studio):
    with raises("mask is empty", "lower the threshold"):
        region_edit(studio, TARGET, 0 * left_half())
    with raises("target_mask is empty"):
        masa_ctrl(studio, source_mask=left_half(), target_mask=0 * left_half())


def test_more_eta_than_there_is(studio, inversion):
    edit = region_edit(studio, TARGET, left_half(), eta_scale=2.0)
    with raises("eta reaches 0.8", "scales it by 2", "lower eta_scale"):
        studio.edit(inversion, edit=edit, eta=studio.eta(end_eta=0.8))


def test_a_region_within_a_region_and_its_local_blend(studio, inversion):
    inner = region_edit(studio, TARGET, left_half())
    with raises("`method` holds further region edits"):
        region_edit(studio, TARGET, left_half(), method=inner)
    with raises("local blend holds the whole picture"):
        region_edit(studio, TARGET, left_half(), method=prompt_to_prompt(studio, inversion, local_blend=True))


def test_a_method_on_a_model_without_cross_attention(studio, inversion):
    model = studio.model.clone()
    model.add_object_patch("diffusion_model", torch.nn.Identity())
    with raises("cannot be steered by Prompt-to-Prompt", "disconnect `edit`"):
        pack(studio.host, "host").plan_methods(
            model, {"target": [masa_ctrl(studio).methods[0]]}, STEPS, (8, 8)
        )


# --- both prompts in one node ---------------------------------------------------------------------


def test_a_prompt_pair_encodes_both_and_hands_on_what_changed(studio):
    source, target, gone, new, source_text, target_text = studio.host.call(
        "EtaPromptPair",
        clip=studio.clip,
        source_prompt=SOURCE,
        target_prompt="a big dog sitting on a red bench",
    )
    assert torch.equal(source[0][0], studio.prompt(SOURCE)[0][0])
    assert torch.equal(target[0][0], studio.prompt("a big dog sitting on a red bench")[0][0])
    assert (gone, new) == ("cat", "big dog, red")
    assert (source_text, target_text) == (SOURCE, "a big dog sitting on a red bench")


@pytest.mark.parametrize(
    "source, target, gone, new",
    [
        ("portrait: cat on a mat", "photo, dog on a mat", "portrait, cat", "photo, dog"),
        ("a clock 4:3 on a wall", "a clock on a wall", "4, 3", ""),
        (r"a cat \(tabby\) on a mat", "a cat on a mat", "tabby", ""),
        ("a (cat:1.3) on a mat", "a (dog:1.3) on a mat", "cat", "dog"),
        ("a café on the street", "a shop on the street", "café", "shop"),
        ("ein Bär im Wald", "ein Hund im Wald", "bär", "hund"),
        ("a \N{CAT FACE} on a mat", "a \N{DOG FACE} on a mat", "\N{CAT FACE}", "\N{DOG FACE}"),
        ("a dog " * 40 + "and a cat", "a dog " * 40 + "and a fox", "cat", "fox"),
    ],
)
def test_the_words_of_a_prompt_pair_are_words_the_other_nodes_know(studio, source, target, gone, new):
    pair = studio.host.call("EtaPromptPair", clip=studio.clip, source_prompt=source, target_prompt=target)
    assert pair[2:4] == (gone, new)
    inverted = studio.invert(positive=pair[0], steps=1)
    studio.region(inverted, gone, threshold=0.0, source_prompt=source)
    words = dict(blend_words=gone, equalizer_words=new, local_blend=True, source_prompt=source)
    prompt_to_prompt(studio, inverted, target, positive=pair[1], **words)


@pytest.mark.parametrize(
    "source, target, warning",
    [
        ("a cat", "a cat", "the two prompts are the same"),
        ("a cat", "a (cat:1.5)", "only weights, punctuation or embeddings"),
        ("a cat and a cat", "a dog and a cat", "'cat' also stands unchanged in the source prompt"),
    ],
)
def test_a_prompt_pair_warns_of_words_that_tell_nothing(studio, caplog, source, target, warning):
    studio.host.call("EtaPromptPair", clip=studio.clip, source_prompt=source, target_prompt=target)
    assert warning in caplog.text


def test_textual_inversions_are_told_apart(studio, host):
    folder = host.base / "models" / "embeddings"
    folder.mkdir(parents=True, exist_ok=True)
    width = studio.prompt("a")[0][0].shape[-1]
    for seed, name in enumerate(("eta_foo", "eta_bar")):
        values = torch.randn(2, width, generator=torch.Generator().manual_seed(seed))
        save_file({"emb_params": values}, folder / f"{name}.safetensors")
    source, target = "a embedding:eta_foo on a mat", "a embedding:eta_bar on a mat"
    inverted = studio.invert(positive=studio.prompt(source), steps=1)
    method = prompt_to_prompt(studio, inverted, target, source_prompt=source).methods[0]
    assert (method.scale != 1).nonzero().flatten().tolist() == [2, 3]
    studio.region(inverted, "embedding:eta_foo", threshold=0.0, source_prompt=source)
    with raises("words", "embedding:eta_bar", "not in the source prompt"):
        studio.region(inverted, "embedding:eta_bar", threshold=0.0, source_prompt=source)


@pytest.mark.parametrize("words", ["", " , "])
def test_an_equalizer_of_no_word_says_so(studio, inversion, caplog, words):
    prompt_to_prompt(studio, inversion, SOURCE, mode="reweight", equalizer=5.0, equalizer_words=words)
    assert "the equalizer 5 acts on no word" in caplog.text


@pytest.fixture
def graph(checkpoint):
    """From the prompt pair, or from two CLIPTextEncode, to a Prompt-to-Prompt edit; no word typed twice."""

    def build(pair: bool) -> dict:
        source, target = (["pair", 0], ["pair", 1]) if pair else (["source", 0], ["target", 0])
        prompts = (
            {"pair": ("EtaPromptPair", dict(clip=["loader", 1], source_prompt=SOURCE, target_prompt=TARGET))}
            if pair
            else {
                name: ("CLIPTextEncode", dict(clip=["loader", 1], text=text))
                for name, text in (("source", SOURCE), ("target", TARGET))
            }
        )
        p2p = {key: value for key, value in PROMPT_TO_PROMPT.items() if key != "source_prompt"}
        nodes = {
            "loader": ("CheckpointLoaderSimple", dict(ckpt_name=checkpoint)),
            **prompts,
            "empty": ("CLIPTextEncode", dict(clip=["loader", 1], text="")),
            "picture": ("EmptyLatentImage", dict(width=64, height=64, batch_size=1)),
            "invert": (
                "EtaInversion",
                dict(
                    model=["loader", 0],
                    positive=source,
                    latent_image=["picture", 0],
                    steps=STEPS,
                    cfg=1.0,
                    scheduler="ddim_uniform",
                ),
            ),
            "mask": (
                "AttentionMask",
                dict(
                    inversion=["invert", 0],
                    clip=["loader", 1],
                    words=["pair", 2] if pair else "cat",
                    threshold=0.2,
                    grow=0,
                    blur=0.0,
                    invert=False,
                ),
            ),
            "method": (
                "EtaPromptToPrompt",
                dict(inversion=["invert", 0], clip=["loader", 1], positive=target, **p2p),
            ),
            "eta": (
                "EtaSchedule",
                dict(preset="linear", start_t=0.0, start_eta=0.0, end_t=1.0, end_eta=0.4, power=1.0),
            ),
            "edit": (
                "EtaSampler",
                dict(
                    model=["loader", 0],
                    inversion=["invert", 0],
                    eta=["eta", 0],
                    positive=target,
                    negative=["empty", 0],
                    cfg=3.0,
                    seed=1,
                    noise_candidates=2,
                    noise_blend=0.0,
                    mask=["mask", 0],
                    edit=["method", 0],
                ),
            ),
            "save": (
                "SaveLatent",
                dict(samples=["edit", 0], filename_prefix=f"methods/{'pair' if pair else 'plain'}"),
            ),
        }
        return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}

    return build


def test_a_prompt_pair_and_plain_encoding_make_the_same_edit(host, graph):
    from safetensors.torch import load_file

    for pair in (True, False):
        outcome = host.run(graph(pair))
        assert outcome.success, outcome.error
    plain, paired = (
        load_file(path)["latent_tensor"]
        for path in sorted((host.base / "output/methods").glob("p*.latent"), reverse=True)
    )
    assert torch.equal(plain, paired)


@pytest.mark.parametrize(
    ("node", "inputs"), [("Mahiro", {}), ("RenormCFG", dict(cfg_trunc=100.0, renorm_cfg=1.0))]
)
def test_guidance_over_a_whole_call_sees_one_branch_alone(studio, inversion, node, inputs):
    """The source branch is evaluated beside the target where there is a choice of noise; with hardly any eta
    that must not matter.
    """
    model = studio.host.call(node, model=studio.model, **inputs)[0]
    alone, beside = (
        studio.edit(inversion, model=model, eta=studio.eta(end_eta=1e-7), noise_candidates=n) for n in (1, 3)
    )
    assert close(alone, beside, 1e-4)
