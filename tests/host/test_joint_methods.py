"""Editing methods in transformers of one sequence: what they take from the source, read in the attention."""

import pytest
import torch

from devtools.studio import SOURCE, TARGET
from tests.host.flow import FAMILIES
from tests.host.test_flow import FlowStudio, half
from tests.host.test_sampling import close

IMAGE = 4 * 3  # tokens of the tall picture


@pytest.fixture(scope="module", params=["SD3", "Flux"])
def flow(host, request) -> FlowStudio:
    return FlowStudio(host, *FAMILIES[request.param](host))


@pytest.fixture(scope="module")
def inverted(flow):
    return flow.invert(steps=3)


def masa_ctrl(studio, inversion, **changes):
    return studio.host.call("EtaMasaCtrl", **dict(start=0.0, start_layer=0.0) | changes)[0]


def plug_and_play(studio, inversion, **changes):
    return studio.host.call("EtaPlugAndPlay", **dict(feature_end=1.0, attention_end=1.0) | changes)[0]


def prompt_to_prompt(studio, inversion, target=TARGET, **changes):
    inputs = dict(
        inversion=inversion,
        clip=studio.clip,
        positive=studio.prompt(target),
        mode="auto",
        cross_replace_start=0.0,
        cross_replace_end=1.0,
        self_replace_start=0.0,
        self_replace_end=0.0,
        word_steps="",
        equalizer=1.0,
        equalizer_words="",
        local_blend=False,
        blend_words="",
        blend_threshold=0.3,
        blend_start=0.0,
        source_prompt=SOURCE,
        target_prompt=target,
    )
    return studio.host.call("EtaPromptToPrompt", **inputs | changes)[0]


def attention_of(studio, inversion, **inputs) -> list[tuple]:
    """(q, k, v) of the last step's calls, [tokens, width] each: with another pack's override on the model the
    source's come first, then the target's, and each sees what this pack made of them.
    """
    calls, model = [], studio.model.clone()

    def theirs(attend, q, k, v, heads, *args, **kwargs):
        split = kwargs.get("skip_reshape", False)
        flat = (t[0].transpose(0, 1) if split else t[0] for t in (q, k, v))
        calls.append(tuple(t.reshape(len(t), -1).clone() for t in flat))
        return attend(q, k, v, heads, *args, **kwargs)

    model.model_options["transformer_options"]["optimized_attention_override"] = theirs
    studio.on(model).edit(inversion, cfg=1.0, eta=studio.eta(end_eta=0.0), **inputs)
    return calls[len(calls) // 3 * 2 :]


def halves(calls: list) -> list[tuple]:
    """Each layer's (source, target)."""
    return list(zip(calls[: len(calls) // 2], calls[len(calls) // 2 :], strict=True))


@pytest.mark.parametrize(
    ("method", "taken"), [(masa_ctrl, (False, True, True)), (plug_and_play, (True, True, True))]
)
def test_the_image_tokens_are_the_sources_and_the_texts_the_targets(flow, inverted, method, taken):
    plain = halves(attention_of(flow, inverted, edit=method(flow, inverted)))
    steered = [pair for pair in plain if len(pair[0][0]) > IMAGE]
    late = steered if method is masa_ctrl else steered[len(steered) // 2 :]
    for source, target in late:
        for mine, theirs, wanted in zip(target, source, taken):
            assert torch.equal(mine[-IMAGE:], theirs[-IMAGE:]) == wanted
            assert not torch.equal(mine[:-IMAGE], theirs[:-IMAGE])


def test_a_start_layer_leaves_the_layers_before_it(flow, inverted):
    pairs = halves(attention_of(flow, inverted, edit=masa_ctrl(flow, inverted, start_layer=0.6)))
    taken = [torch.equal(source[1][-IMAGE:], target[1][-IMAGE:]) for source, target in pairs]
    assert taken == [i >= 0.6 * len(pairs) for i in range(len(pairs))]


def test_inside_the_free_mask_the_target_keeps_its_own(flow, inverted):
    """KV-Edit, and ProEdit's mixture: the free side differs from the source by what is left of its own."""
    mask = half()
    free = [x == 0 for _ in range(4) for x in range(3)]
    partly, wholly = [], []
    for inside in (0.0, 0.6, 1.0):
        method = masa_ctrl(flow, inverted, free_mask=mask, source_inside=inside)
        source, target = halves(attention_of(flow, inverted, edit=method))[0]
        apart = (target[2] - source[2])[-IMAGE:].norm(dim=-1)
        wholly.append(float(apart[torch.tensor(free)].mean()))
        partly.append(float(apart[torch.tensor([x == 2 for _ in range(4) for x in range(3)])].max()))
    assert partly == pytest.approx([0, 0, 0], abs=1e-6)
    assert wholly[2] == pytest.approx(0, abs=1e-6) and 0 < wholly[1] < 0.8 * wholly[0]


@pytest.mark.parametrize(
    "neutral",
    [
        lambda studio, inversion: masa_ctrl(studio, inversion, start=1.0),
        lambda studio, inversion: masa_ctrl(studio, inversion, start_layer=1.0),
        lambda studio, inversion: plug_and_play(studio, inversion, feature_end=0.0, attention_end=0.0),
        lambda studio, inversion: prompt_to_prompt(studio, inversion, cross_replace_end=0.0),
    ],
)
def test_neutral_settings_are_bit_identical_to_no_method(flow, inverted, neutral):
    assert torch.equal(flow.edit(inverted, edit=neutral(flow, inverted)), flow.edit(inverted))


@pytest.mark.parametrize("method", [masa_ctrl, plug_and_play, prompt_to_prompt])
def test_every_method_changes_the_edit(flow, inverted, method):
    assert not close(flow.edit(inverted, edit=method(flow, inverted)), flow.edit(inverted), 1e-3)


def test_the_source_prompt_controls_itself_without_effect(flow, inverted):
    same = dict(positive=flow.prompt(SOURCE), eta=flow.eta(end_eta=0.0), cfg=1.0)
    steered = flow.edit(inverted, edit=prompt_to_prompt(flow, inverted, target=SOURCE), **same)
    plain = flow.edit(inverted, **same)
    # the target has drifted from the source by the inversion's error, and its columns are then the source's
    assert (steered - plain).abs().mean() < 0.2 * (plain - flow.picture()["samples"]).abs().mean()


def test_regions_keep_the_two_sides_apart(flow, inverted):
    sides = dict(source_mask=half(), target_mask=half())
    apart = flow.edit(inverted, edit=masa_ctrl(flow, inverted, **sides))
    assert not close(apart, flow.edit(inverted, edit=masa_ctrl(flow, inverted)), 1e-3)


def test_a_local_blend_holds_the_picture_where_the_words_do_not_look(flow, inverted):
    blended = prompt_to_prompt(flow, inverted, local_blend=True, blend_words="cat", blend_threshold=0.9)
    same = dict(eta=flow.eta(end_eta=0.0))
    source = flow.picture()["samples"]
    moved = (flow.edit(inverted, edit=blended, **same) - source).abs()
    assert float((moved < 1e-3).float().mean()) > 0.2


def test_the_methods_work_without_an_inversion(flow):
    latent = flow.picture()
    steered = flow.flow_edit(latent, edit=masa_ctrl(flow, None))
    assert not close(steered, flow.flow_edit(latent), 1e-3)


def test_methods_beside_reference_pictures_are_refused(host):
    flux = FlowStudio(host, *FAMILIES["Flux"](host))
    (shown,) = host.call("ReferenceLatent", conditioning=flux.prompt(TARGET), latent=flux.picture())
    inversion = flux.invert(steps=2)
    with pytest.raises(ValueError, match="shows reference pictures.*disconnect `edit`"):
        flux.edit(inversion, positive=shown, edit=masa_ctrl(flux, inversion))
