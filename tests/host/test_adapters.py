"""Today's model families: inversion, lock and words, each word's map against the truth of its network."""

import pytest
import torch

from devtools.studio import SOURCE, TARGET, left_half
from eta_core.methods.alignment import text_of
from tests.host.test_flow import FlowStudio
from tests.host.test_sampling import close, pack

SIZE = (8, 6)


class Studio(FlowStudio):
    """Latents of a tall picture; with a frame where the model has frames."""

    @property
    def frames(self) -> int:
        return self.model.get_model_object("latent_format").latent_dimensions - 2

    def picture(self, batch: int = 1, size=SIZE) -> dict:
        channels = self.model.get_model_object("latent_format").latent_channels
        coarse = torch.randn(batch, channels, 4, 4, generator=torch.Generator().manual_seed(1))
        samples = torch.nn.functional.interpolate(coarse, size, mode="bicubic")
        return {"samples": samples.unsqueeze(2) if self.frames else samples}

    def invert_both(self, **changes):
        return super().invert_both(**dict(steps=3) | changes)

    @property
    def scale(self) -> int:
        return pack(self.host, "host").downscale(self.model)

    def half(self) -> torch.Tensor:
        return left_half(SIZE[0] * self.scale, SIZE[1] * self.scale)


def _adapters():
    from tests.host.adapters import ADAPTERS
    from tests.host.newest import NEWEST

    return ADAPTERS | NEWEST


NAMES = ["Qwen-Image", "Z-Image", "Flux.2 Klein", "Flux.1", "Chroma", "Wan", "Krea 2", "Anima"]
NAMES += ["Chroma Radiance", "LongCat", "Lumina 2"]
SCALES = dict.fromkeys(["Flux.2 Klein", "Qwen-Image 2.1", "Flux.3 Klein", "MOSS-Image", "FIBO 2"], 16)
SCALES |= {"Chroma Radiance": 1}  # pixels of the picture a side of a latent pixel
NEWEST = [
    "Qwen-Image 2.1",
    "Flux.3 Klein",
    "MOSS-Image",
    "FIBO 2",
    "Ming-Image",
]  # networks of their shape, on any host


@pytest.fixture(scope="module", params=NAMES + NEWEST)
def family(host, request) -> Studio:
    if request.param not in _adapters():
        pytest.skip(f"this host has no {request.param}")
    studio = Studio(host, *_adapters()[request.param](host))
    assert studio.scale == SCALES.get(request.param, 8)
    return studio


@pytest.fixture(scope="module")
def inverted(family):
    return family.invert_both()


def test_the_latents_are_those_of_the_host(family, inverted):
    inversion, noise = inverted
    assert noise["samples"].shape == family.picture()["samples"].shape == family.edit(inversion).shape
    assert inversion.trajectory.latent_size == SIZE


def test_outside_a_locked_mask_nothing_changes(family, inverted):
    edited = family.edit(inverted[0], mask=family.half(), background_lock=1.0)
    source = family.picture()["samples"]
    assert close(edited[..., 3:], source[..., 3:]) and not close(edited[..., :3], source[..., :3], 0.05)


def test_a_batch_of_an_odd_size_is_each_picture_alone(family):
    batch = family.picture(2, (7, 5))["samples"]

    def edited(latent):
        return family.edit(family.invert(latent_image={"samples": latent}, steps=2))

    together = edited(batch)
    assert together.shape == batch.shape
    assert close(together[1:], edited(batch[1:]), 1e-3)


def test_the_words_of_the_prompt_are_its_own(family, inverted):
    with pytest.raises(ValueError, match="its words are: a, cat, sitting, on, bench$"):
        family.region(inverted[0], "dog")
    regions = [family.region(inverted[0], word, threshold=0.0)[0] for word in ("cat", "bench")]
    assert regions[0].shape == (1, SIZE[0] * family.scale, SIZE[1] * family.scale)
    assert not torch.equal(*regions)
    assert not family.region(inverted[0], "on", threshold=0.0)[0].isnan().any()


@pytest.mark.parametrize("name", ["SD3", "Qwen-Image", "Z-Image", "Krea 2"])
def test_the_number_of_blocks_that_are_read_is_bounded(host, monkeypatch, blocks_read, name):
    from tests.host.adapters import TWO_BLOCKS

    if name not in TWO_BLOCKS:
        pytest.skip(f"this host has no {name}")
    joint, studio = pack(host, "host.families.joint"), Studio(host, *TWO_BLOCKS[name](host))
    counts = []
    for most in (2, 1):
        monkeypatch.setattr(joint, "MOST_READ", most)
        studio.invert_both()
        counts.append(len(blocks_read))
        blocks_read.clear()
    assert counts[0] == 2 * counts[1] > 0


def test_a_pack_that_runs_the_first_block_alone_is_read_at_every_other_step(host, monkeypatch, blocks_read):
    from tests.host.adapters import TWO_BLOCKS

    studio = Studio(host, *TWO_BLOCKS["Qwen-Image"](host))
    monkeypatch.setattr(pack(host, "host.families.joint"), "MOST_READ", 1)
    skipping = studio.model.clone()
    skipping.set_model_patch_replace(lambda args, extra: args, "dit", "double_block", 1)
    studio.on(skipping).invert_both(steps=6)
    assert len(blocks_read) == 3


def rows_of(studio, text: str, word: str) -> list[int]:
    """The rows of a word, by the pack."""
    host = pack(studio.host, "host")
    tokens = host.tokens_of(studio.clip, text, host.rows_of_text(studio.prompt(text)))
    return [t.position for t in tokens if text_of([t]) == word]


def test_a_words_row_is_the_one_that_changes_with_the_word(family):
    """Planted: two prompts differ in one word of one token. Of an encoder that reads forward nothing before
    it changes. T5 reads both ways; its rows are its tokens, none is cut off.
    """
    (source, told), (target, other) = (family.prompt(text)[0] for text in (SOURCE, TARGET))
    tokens = [family.clip.tokenize(text).get("t5xxl") for text in (SOURCE, TARGET)]
    if "direct_context" in told:  # behind the conditioning's own rows
        apart = (told["direct_context"] - other["direct_context"]).norm(dim=-1)[0] > 1e-4
        first = source.shape[1] + int(apart.nonzero()[0])
    elif tokens[0] is None:
        first = int(((source - target).norm(dim=-1)[0] > 1e-4).nonzero()[0])
    else:
        assert len(tokens[0][0]) == told.get("t5xxl_ids", source[0]).shape[0]
        first = next(i for i, (one, other) in enumerate(zip(tokens[0][0], tokens[1][0])) if one != other)
    assert rows_of(family, SOURCE, "cat") == rows_of(family, TARGET, "dog") == [first]


def test_the_targets_word_joins_the_mask(family, inverted):
    """Read in the first step only, what it finds counts as though it had been given."""
    given = torch.zeros_like(family.half())
    given[..., : given.shape[-2] // 2, :] = 1
    locked = dict(background_lock=1.0)
    words = family.target_words("dog", read=0.01, auto_threshold=True)
    edited, _, mask = family.edit_all(inverted[0], edit=words, mask=given, **locked)
    if family.scale > 1:  # Chroma Radiance has one token at this size: nothing to part
        assert given.mean() < mask.mean() < 1
    assert close(family.edit(inverted[0], mask=mask, **locked), edited, 1e-4)


def asked(studio, **inputs):
    """(trajectory, [(q, k, heads, reshaped)] of the attention calls of a one-step inversion)."""
    calls, model = [], studio.model.clone()

    def theirs(attend, q, k, v, heads, *args, **kwargs):
        calls.append((q.clone(), k.clone(), heads, kwargs.get("skip_reshape", False)))
        return attend(q, k, v, heads, *args, **kwargs)

    model.model_options["transformer_options"]["optimized_attention_override"] = theirs
    return studio.invert(model=model, steps=1, **inputs).trajectory, calls


MIXING = ("context_refiner", "noise_refiner", "txtfusion.refiner_blocks", "llm_adapter", "blocks.0.self_attn")
MIXING += ("picture_blocks", "text_blocks", "self_attn")
OUTPUTS = ("out.weight", "wo.weight", "o_proj.weight", "output_proj.weight", "self_attn.o.weight")


def still(network) -> None:
    """What mixes rows or places before they meet in the first block adds nothing."""
    for name, weight in network.named_parameters():
        if name.startswith(MIXING) and name.endswith((*OUTPUTS, "self_attn.o.bias")):
            weight.zero_()


def test_the_map_of_a_word_is_where_the_picture_looks_at_it(family):
    (row,) = rows_of(family, SOURCE, "cat")
    assert_map_of_row(family, family.prompt(SOURCE), row)


def test_the_hosts_padding_before_a_short_prompt_of_flux_2_is_no_word(host):
    """The prompts of Flux.2 dev have fewer rows than the host gives its network."""
    if "Flux.2 Klein" not in _adapters():
        pytest.skip("this host has no Flux.2 Klein, whose encoder this prompt is from")
    studio = Studio(host, *_adapters()["Flux.2 Klein"](host))
    ((cond, extra),) = studio.prompt(SOURCE)
    short = {key: value for key, value in extra.items() if key != "attention_mask"}
    assert_map_of_row(studio, [[cond[:, :20], short]], 5)


def assert_map_of_row(family, positive: list, row: int) -> None:
    """Planted: one row of the prompt and one patch of the picture are changed. The key and the query that
    change with them, in the first block, are this word's and this place's; the map must hold the whole
    softmax's values there.
    """
    with torch.no_grad():
        still(family.model.model.diffusion_model)
    plain, calls = asked(family, positive=positive)
    (cond, extra), changed = positive[0], dict(positive[0][1])
    other = cond.clone()
    if "t5xxl_ids" in extra:
        changed["t5xxl_ids"] = extra["t5xxl_ids"].clone()
        changed["t5xxl_ids"][row] = 99
    else:
        text, place = other, row
        if "direct_context" in extra:
            text, place = extra["direct_context"].clone(), row - cond.shape[1]
            changed["direct_context"] = text
        text[:, place] += torch.randn(text[:, place].shape, generator=torch.Generator().manual_seed(3))
    _, by_word = asked(family, positive=[[other, changed]])
    patch = 1 if family.scale == 16 else 2
    picture = family.picture()
    picture["samples"][..., patch * 2 : patch * 3, patch : patch * 2] += 5
    _, by_place = asked(family, positive=positive, latent_image=picture)

    index = joint_call(calls, row)
    q, k, heads, reshaped = calls[index]
    key = difference(k, by_word[index][1], reshaped)
    query = difference(q, by_place[index][0], reshaped)
    assert len(key) == len(query) == 1
    if not reshaped:
        q, k = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k))
    whole = (q.double() @ k.double().transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1).mean(1)[0]
    height, width = -(-SIZE[0] // patch), -(-SIZE[1] // patch)
    start = query[0] - (2 * width + 1)
    expected = whole[start : start + height * width, key[0]].unflatten(0, (height, width))
    torch.testing.assert_close(plain.maps[0, row], (expected / expected.max()).float(), rtol=0, atol=2e-4)


def joint_call(calls, row: int) -> int:
    """The first block's call: cross-attention to the text, else the longest sequence."""
    cross = [i for i, (q, k, *_) in enumerate(calls) if q.shape[-2] != k.shape[-2]]
    return cross[-1] if cross else max(range(len(calls)), key=lambda i: (calls[i][1].shape[-2], -i))


def difference(one: torch.Tensor, other: torch.Tensor, reshaped: bool) -> list[int]:
    """The tokens in which two tensors [B, heads, N, d] or [B, N, heads * d] differ."""
    apart = (one - other).abs().amax(-1)[0]
    apart = apart.amax(0) if reshaped else apart
    return (apart > 1e-3 * apart.max()).nonzero().flatten().tolist()


def test_reference_pictures_leave_the_words_where_they_are(host):
    """Kontext and Qwen-Image-Edit: the pictures they are shown stand behind the edited one."""
    for name in ("Flux.1", "Qwen-Image"):
        studio = Studio(host, *_adapters()[name](host))
        ((cond, extra),) = studio.prompt(SOURCE)
        shown = [[cond, extra | {"reference_latents": [studio.picture(size=(4, 6))["samples"]]}]]
        inversion = studio.invert(positive=shown)
        plain, seen = (studio.region(each, "cat", threshold=0.0)[0] for each in (studio.invert(), inversion))
        assert plain.shape == seen.shape and not torch.equal(plain, seen)
        target = [[studio.prompt(TARGET)[0][0], shown[0][1]]]
        assert bool(studio.edit(inversion, positive=target).isfinite().all())


def test_another_packs_attention_acts_beside_the_reading(host):
    """SageAttention and the like override the attention as the reading does: both act."""
    studio = Studio(host, *_adapters()["Qwen-Image"](host))
    plain, seen, model = studio.invert().trajectory, [], studio.model.clone()

    def theirs(attend, q, k, v, *args, **kwargs):
        seen.append(q.shape)
        return attend(q, k, 2 * v, *args, **kwargs)

    model.model_options["transformer_options"]["optimized_attention_override"] = theirs
    changed = studio.invert(model=model).trajectory
    assert len(seen) == 3 and changed.maps is not None and not close(changed.x, plain.x, 1e-3)


def test_several_frames_are_refused_by_name(host):
    studio = Studio(host, *_adapters()["Wan"](host))
    video = studio.picture()["samples"].repeat(1, 1, 3, 1, 1)
    with pytest.raises(
        ValueError, match="latent_image has 3 frames or layers: .* not video; encode one picture"
    ):
        studio.invert(latent_image={"samples": video})


# --- families with a mask of the user's only ------------------------------------------------------

OTHERS = ["HiDream", "HunyuanImage21", "HunyuanDiT", "Omnigen2", "Boogu", "Kandinsky5Image"]
OTHERS += ["Ideogram4", "ErnieImage", "Lens", "MageFlow", "JoyImage", "PixelDiTT2I"]


@pytest.mark.parametrize("name", OTHERS)
def test_a_family_whose_words_cannot_be_read_is_edited_by_a_mask(host, name):
    from tests.host.others import made

    found = made(name)
    if found is None:
        pytest.skip(f"this host has no {name}")
    model, positive = found
    studio = Studio(host, *model)
    inversion = studio.invert(positive=positive, steps=2)
    with pytest.raises(ValueError, match=f"model .{name}, .* cannot be read; connect a mask of your own"):
        studio.region(inversion, "cat")
    both = dict(positive=positive, negative=positive, cfg=1.0)
    edited = studio.edit(inversion, mask=studio.half(), background_lock=1.0, **both)
    source = studio.picture()["samples"]
    assert close(edited[..., 3:], source[..., 3:]) and not close(edited[..., :3], source[..., :3], 0.01)


def test_a_model_distilled_to_jump_over_its_steps_is_refused_by_name(host):
    """HunyuanImage 2.1 distilled reads where the step ends; an inversion cannot tell it."""
    import comfy.supported_models as models
    from comfy.ldm.hunyuan_video.model import HunyuanVideoParams

    from tests.host.flow import WIDTH, newer, patcher

    network = dict(image_model="hunyuan_video", in_channels=64, out_channels=64, vec_in_dim=None)
    network |= dict(context_in_dim=WIDTH, hidden_size=WIDTH, mlp_ratio=4.0, num_heads=2, depth=1, theta=256)
    network |= dict(depth_single_blocks=1, axes_dim=[16, 16], patch_size=[1, 1], qkv_bias=True, byt5=False)
    network |= dict(guidance_embed=False, meanflow=True, use_cond_type_embedding=False, vision_in_dim=None)
    network |= newer(HunyuanVideoParams, meanflow_sum=False)
    if "meanflow" not in HunyuanVideoParams.__dataclass_fields__:
        pytest.skip("this host has no distilled HunyuanImage")
    studio = Studio(host, patcher(models.HunyuanImage21(network)), None)
    prompt = [[torch.randn(1, 8, WIDTH), {}]]
    with pytest.raises(ValueError, match="HunyuanImage21 is distilled to jump.*Load the model that is not"):
        studio.invert(positive=prompt)
