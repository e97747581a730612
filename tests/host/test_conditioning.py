"""Conditioning as users have it: what the host's nodes make of prompts goes through inversion and edit."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from devtools.studio import SOURCE, TARGET, picture
from tests.host import families
from tests.host.flow import seeded
from tests.host.test_families import Quick, family_studio  # noqa: F401 (fixtures)
from tests.host.test_sampling import close, pack

LONG = "a photo of a quiet street in the old town, " * 15


def call(studio, node: str, **inputs):
    return studio.host.call(node, **inputs)[0]


@pytest.fixture
def apart(host, monkeypatch):
    """Switches the joining of branches into one network call off."""
    return lambda: monkeypatch.setattr(
        pack(host, "host.sampling").BranchGuider, "_can_join", lambda *names: False
    )


def ranged(studio, start: float, end: float, text: str = SOURCE) -> list:
    return call(
        studio, "ConditioningSetTimestepRange", conditioning=studio.prompt(text), start=start, end=end
    )


def in_area(studio, x: int, text: str = SOURCE) -> list:
    return call(
        studio,
        "ConditioningSetArea",
        conditioning=studio.prompt(text),
        width=32,
        height=64,
        x=x,
        y=0,
        strength=1.0,
    )


PARTS = {
    "steps": lambda studio: ranged(studio, 0.0, 0.5),
    "no step": lambda studio: ranged(studio, 0.0, 0.0),
    "an area": lambda studio: in_area(studio, 0),
    "a mask": lambda studio: call(
        studio,
        "ConditioningSetMask",
        conditioning=studio.prompt(SOURCE),
        mask=torch.ones(1, 64, 64),
        strength=1.0,
        set_cond_area="default",
    ),
}
WHOLES = {
    "steps": lambda studio: ranged(studio, 0.0, 0.5) + ranged(studio, 0.5, 1.0),
    "areas": lambda studio: in_area(studio, 0) + in_area(studio, 32),
    "a prompt": lambda studio: studio.prompt(SOURCE),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_prompt_that_covers_a_part_is_warned_of(studio, inversion, caplog, part):
    prompt = PARTS[part](studio)
    studio.invert(positive=prompt)
    assert "the source prompt covers only a part" in caplog.text
    studio.edit(inversion, positive=prompt)
    assert "the prompt of the target covers only a part" in caplog.text


@pytest.mark.parametrize("whole", WHOLES)
def test_prompts_that_cover_everything_together_are_not_warned_of(studio, caplog, whole):
    studio.invert(positive=WHOLES[whole](studio))
    assert "covers only" not in caplog.text


# --- prompts --------------------------------------------------------------------------------------


def test_a_word_of_the_third_chunk_has_its_region(studio):
    source = LONG + SOURCE
    encoded = studio.prompt(source)
    assert encoded[0][0].shape[1] == 231
    inversion = studio.invert(positive=encoded)
    cat, street = (
        studio.region(inversion, word, threshold=0.0, source_prompt=source)[0] for word in ("cat", "street")
    )
    assert not torch.equal(cat, street)
    edited = studio.edit(inversion, positive=studio.prompt(LONG + TARGET))
    assert not close(edited, picture()["samples"], 0.01)


def test_branches_of_unequal_length_are_edited_as_if_alone(studio, inversion, apart):
    """A target of 231 rows beside a source of 77: never in one call, with or without joining."""
    target = studio.prompt(LONG + TARGET)
    edited = studio.edit(inversion, positive=target)
    apart()
    assert close(studio.edit(inversion, positive=target), edited, 1e-5)


@pytest.mark.parametrize("weighted", ["a (cat:1.4) sitting on a bench", "a cat sitting on a ((bench))"])
def test_a_weighted_prompt_has_its_words(studio, weighted):
    inversion = studio.invert(positive=studio.prompt(weighted))
    assert studio.region(inversion, "cat, bench", source_prompt=weighted)[0].any()


@pytest.mark.parametrize(
    "node, inputs",
    [
        ("ConditioningConcat", dict(conditioning_to=SOURCE, conditioning_from="in the rain")),
        (
            "ConditioningAverage",
            dict(conditioning_to=SOURCE, conditioning_from="a dog", conditioning_to_strength=0.7),
        ),
    ],
)
def test_prompts_put_together_are_inverted_and_their_words_asked_for(studio, caplog, node, inputs):
    mixed = call(
        studio, node, **{k: studio.prompt(v) if isinstance(v, str) else v for k, v in inputs.items()}
    )
    inversion = studio.invert(positive=mixed)
    assert close(studio.edit_both(inversion)[1], picture()["samples"])
    mask, _ = studio.region(inversion, "cat", source_prompt=SOURCE)
    assert mask.any() and "is not what was encoded" in caplog.text
    with pytest.raises(ValueError, match="connect the text to source_prompt"):
        studio.region(inversion, "cat", source_prompt=None)


def phases(studio, first: str, then: str) -> list:
    parts = [
        call(
            studio,
            "ConditioningSetTimestepRange",
            conditioning=studio.prompt(text),
            start=start,
            end=start + 0.5,
        )
        for text, start in ((first, 0.0), (then, 0.5))
    ]
    return call(studio, "ConditioningCombine", conditioning_1=parts[0], conditioning_2=parts[1])


def test_a_target_may_change_on_the_way(studio, inversion):
    edited = studio.edit(inversion, positive=phases(studio, TARGET, "a tree"))
    for text in (TARGET, "a tree"):
        assert not close(edited, studio.edit(inversion, positive=studio.prompt(text)), 1e-3)
    assert close(
        studio.edit(inversion, positive=phases(studio, TARGET, TARGET)), studio.edit(inversion), 1e-4
    )


def test_an_area_of_the_target_leaves_the_rest_to_the_other_prompt(studio, inversion):
    area = call(
        studio,
        "ConditioningSetArea",
        conditioning=studio.prompt("a tree"),
        width=32,
        height=64,
        x=0,
        y=0,
        strength=1.0,
    )
    both = call(studio, "ConditioningCombine", conditioning_1=studio.prompt(TARGET), conditioning_2=area)
    edited, plain = studio.edit(inversion, positive=both), studio.edit(inversion)
    assert (edited - plain)[..., :4].abs().mean() > (edited - plain)[..., 4:].abs().mean()


# --- hooks, GLIGEN, unCLIP, adapters --------------------------------------------------------------


@pytest.fixture(scope="module")
def lora(host, studio) -> str:
    """A LoRA of rank 1 on one layer of the small network."""
    out, inner = studio.model.model.diffusion_model.input_blocks[1][0].in_layers[2].weight.shape[:2]
    name = "lora_unet_input_blocks_1_0_in_layers_2"
    state = {f"{name}.lora_up.weight": torch.ones(out, 1, 1, 1), f"{name}.alpha": torch.tensor(1.0)}
    state[f"{name}.lora_down.weight"] = torch.full((1, inner, 3, 3), 0.02)
    save_file(state, host.base / "models/loras/test_hook.safetensors")
    return "test_hook.safetensors"


def hooked(studio, lora: str, text: str, strength: float) -> list:
    hooks = call(studio, "CreateHookLora", lora_name=lora, strength_model=strength, strength_clip=0.0)
    clip = call(
        studio, "SetClipHooks", clip=studio.clip, hooks=hooks, apply_to_conds=True, schedule_clip=False
    )
    return call(studio, "CLIPTextEncode", clip=clip, text=text)


def test_a_lora_hook_of_the_target_stays_with_the_target(studio, inversion, lora):
    before = studio.ksampler()
    edited = studio.edit(inversion, positive=hooked(studio, lora, TARGET, 1.0))
    assert not close(edited, studio.edit(inversion), 1e-3)
    assert torch.equal(studio.ksampler(), before)


def test_a_lora_hook_of_strength_0_is_none(studio, inversion, lora):
    assert close(
        studio.edit(inversion, positive=hooked(studio, lora, TARGET, 0.0)), studio.edit(inversion), 1e-4
    )


def test_a_lora_hook_of_the_source_is_part_of_the_inversion(studio, inversion, lora):
    assert not close(
        studio.invert(positive=hooked(studio, lora, SOURCE, 1.0)).trajectory.x, inversion.trajectory.x, 1e-3
    )


def scheduled(studio, lora, *keyframes: tuple[float, float]) -> list:
    """SOURCE under a LoRA hook whose strength changes at (strength, start) ..."""
    hooks = studio.host.call("CreateHookLora", lora_name=lora, strength_model=1.0, strength_clip=0.0)[0]
    made = None
    for strength, start in keyframes:
        made = call(
            studio, "CreateHookKeyframe", strength_mult=strength, start_percent=start, prev_hook_kf=made
        )
    hooks = call(studio, "SetHookKeyframes", hooks=hooks, hook_kf=made)
    clip = call(
        studio, "SetClipHooks", clip=studio.clip, hooks=hooks, apply_to_conds=True, schedule_clip=False
    )
    return call(studio, "CLIPTextEncode", clip=clip, text=SOURCE)


def test_a_lora_schedule_is_for_the_target_alone(studio, inversion, lora):
    prompt = scheduled(studio, lora, (1.0, 0.0), (0.0, 0.5))
    with pytest.raises(ValueError, match="Set Hook Keyframes.*Take the keyframes off the source prompt"):
        studio.invert(positive=prompt)
    assert not close(
        studio.edit(inversion, positive=prompt), studio.edit(inversion, positive=studio.prompt(SOURCE)), 1e-4
    )


@pytest.fixture(scope="module")
def gligen(host, studio):
    from comfy.gligen import GatedSelfAttentionDense, PositionNet
    from comfy.ldm.modules.attention import BasicTransformerBlock

    network, state = studio.model.model.diffusion_model, {}
    count = sum(isinstance(module, BasicTransformerBlock) for module in network.modules())
    for i in range(count):
        fuser = seeded(GatedSelfAttentionDense(320, 768, 8, 40)) | dict(
            alpha_attn=torch.tensor(1.0), alpha_dense=torch.tensor(1.0)
        )
        state |= {
            f"input_blocks.{i}.1.transformer_blocks.0.fuser.{name}": value for name, value in fuser.items()
        }
    net = {
        name: value for name, value in seeded(PositionNet(768, 768)).items() if not name.startswith("fourier")
    }
    state |= {f"position_net.{name}": value for name, value in net.items()}
    path = host.base / "models/gligen/test_gligen.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    return call(studio, "GLIGENLoader", gligen_name=path.name)


def boxed(studio, gligen, text: str, **box: int) -> list:
    return call(
        studio,
        "GLIGENTextBoxApply",
        conditioning_to=studio.prompt(text),
        clip=studio.clip,
        gligen_textbox_model=gligen,
        text="dog",
        **dict(width=32, height=32, x=0, y=0) | box,
    )


def test_a_gligen_box_of_the_target_steers_the_target_alone(studio, inversion, gligen):
    here, there = (studio.edit_both(inversion, positive=boxed(studio, gligen, TARGET, x=x)) for x in (0, 32))
    assert not close(here[0], there[0], 1e-3) and not close(here[0], studio.edit(inversion), 1e-3)
    read = studio.edit(inversion, noise_candidates=5, noise_blend=0.0, eta=studio.eta(end_eta=1e-9))
    assert close(read, studio.edit(inversion, eta=studio.eta(end_eta=0.0)), 1e-4)
    assert close(here[1], picture()["samples"])


def test_a_gligen_box_of_the_source_is_part_of_the_inversion(studio, inversion, gligen):
    boxes = studio.invert(positive=boxed(studio, gligen, SOURCE)).trajectory
    assert boxes.maps is not None and not close(boxes.x, inversion.trajectory.x, 1e-3)


def test_unclip_pictures_are_part_of_both_branches(family_studio, monkeypatch):  # noqa: F811 (a fixture)
    monkeypatch.setitem(
        families.FAMILIES,
        "SD2.1 unCLIP",
        families.Family(
            "SD21UnclipH",
            families.SHALLOW | dict(num_classes="sequential", adm_in_channels=2048),
            families.clip_h,
        ),
    )
    studio: Quick = family_studio("SD2.1 unCLIP")
    shown = SimpleNamespace(image_embeds=torch.randn(1, 1024, generator=torch.Generator().manual_seed(2)))

    def with_picture(text: str, noise: float = 0.0) -> list:
        inputs = dict(clip_vision_output=shown, strength=1.0, noise_augmentation=noise)
        return call(studio, "unCLIPConditioning", conditioning=studio.prompt(text), **inputs)

    inversion = studio.invert(positive=with_picture(SOURCE))
    assert not close(inversion.trajectory.x, studio.invert().trajectory.x, 1e-3)
    edited = studio.edit(inversion, positive=with_picture(TARGET))
    assert not close(edited, studio.edit(inversion), 1e-3)
    friendly = studio.invert(positive=with_picture(SOURCE), inverter="edit_friendly")
    played = studio.edit(friendly, positive=with_picture(SOURCE), eta=studio.neutral())
    assert close(played, picture()["samples"], 1e-4)
    noisy = with_picture(
        SOURCE, 0.3
    )  # by noise on the picture shown: the inversion's, whatever the edit's seed
    inversion = studio.invert(positive=noisy)
    one, other = (
        studio.edit(inversion, positive=noisy, cfg=1.0, eta=studio.neutral(), seed=seed) for seed in (0, 7)
    )
    assert close(one, other, 1e-6)


def test_an_adapter_that_adds_tokens_is_left_in_force_without_maps(studio, inversion):
    """As IPAdapters of the patch kind do: more keys and values for every query."""
    model = studio.model.clone()
    model.set_model_attn2_patch(
        lambda n, context, value, options: (
            n,
            torch.cat([context, context[:, :4]], 1),
            torch.cat([value, value[:, :4]], 1),
        )
    )
    seen = studio.invert(model=model).trajectory
    assert seen.maps is None and "added tokens" in seen.no_maps
    assert not close(seen.x, inversion.trajectory.x, 1e-3)
