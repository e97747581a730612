"""EtaTargetWords: where the target's own words look joins the mask while the target is sampled."""

import logging
import re

import pytest
import torch

from devtools.demo import scenes
from devtools.demo.prepare import CAT, SOURCES
from devtools.demo.studio import DemoStudio, FlowDemoStudio
from devtools.studio import SOURCE, TARGET, left_half, picture
from eta_core.evidence.metrics import iou
from tests.host.test_errors import raises
from tests.host.test_methods import every_method, region_edit
from tests.host.test_sampling import close

LOCKED = dict(background_lock=1.0)
LATE = dict(start=0.6, **LOCKED)  # nearer to the picture, where maps are sharper


def words(studio, text: str = "dog", **inputs):
    return studio.target_words(text, **inputs)


def corner(size: int = 64) -> torch.Tensor:
    mask = torch.zeros(1, size, size)
    mask[..., : size // 4, : size // 4] = 1
    return mask


# --- on the embedded model, whose words look where they should ------------------------------------


@pytest.fixture(scope="module")
def demo(host) -> DemoStudio:
    studio = DemoStudio(host)
    studio.narrow()
    return studio


@pytest.fixture(scope="module")
def cat(demo):
    return demo.invert()


@pytest.fixture(scope="module")
def outline() -> torch.Tensor:
    return torch.from_numpy(scenes.render(*SOURCES[CAT]).mask.copy())[None] > 127


def test_the_targets_word_frees_the_place_where_it_looks(demo, cat, outline):
    given = corner(128)
    assert not given[outline].any()
    _, _, mask = demo.edit_all(cat, mask=given, edit=words(demo), **LATE)
    found = (mask > 0.5) & (given < 0.5)
    assert iou(found, outline) > 0.6
    _, _, ground = demo.edit_all(cat, mask=given, edit=words(demo, "grass"), **LATE)
    assert iou((ground > 0.5) & (given < 0.5), outline) < 0.3


def test_what_was_freed_is_edited_and_the_rest_is_held(demo, cat, outline):
    given = corner(128)
    plain, source = demo.edit_both(cat, mask=given, **LATE)
    freed, _, mask = demo.edit_all(cat, mask=given, edit=words(demo), **LATE)
    inside = torch.nn.functional.max_pool2d(mask[:, None], 8).expand_as(freed) > 0
    assert close(freed[~inside], source[~inside])
    whole = -torch.nn.functional.max_pool2d(-outline[:, None].float(), 8).expand_as(freed) == 1
    assert close(plain[whole], source[whole]) and not close(freed[whole], source[whole], 0.1)


def test_on_a_flow_transformer(host, outline):
    studio, given = FlowDemoStudio(host), corner(128)
    inverted = studio.invert(steps=10)
    found, ground = (
        studio.edit_all(inverted, mask=given, edit=words(studio, word), **LATE)[2] > given
        for word in ("dog", "grass")
    )
    assert iou(found, outline) > 0.4 > 0.2 > iou(ground, outline)


# --- what the mask means, on random networks ------------------------------------------------------


def test_the_mask_that_comes_out_is_the_mask_that_was_used(studio, inversion):
    """Read in the first step only, it holds from that step on: as though it had been given."""
    asked = dict(mask=left_half() * corner(), noise_candidates=4, **LOCKED)
    edited, _, mask = studio.edit_all(inversion, edit=words(studio, read=0.01), **asked)
    assert mask.mean() > 1.2 * asked["mask"].mean()
    assert torch.equal(studio.edit(inversion, **asked | {"mask": mask}), edited)
    assert not torch.equal(studio.edit(inversion, **asked), edited)


def test_the_mask_only_gains(studio, inversion):
    given = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(5))
    masks = [
        studio.edit_all(inversion, mask=given, edit=words(studio, read=read), **LOCKED)[2]
        for read in (0.25, 0.5, 1.0)
    ]
    assert all((more >= less).all() for less, more in zip([given, *masks], masks))


@pytest.mark.parametrize("neutral", [dict(read=0.0), dict(threshold=1.0)])
def test_neutral_settings_change_nothing(studio, inversion, neutral):
    asked = dict(mask=left_half(), **LOCKED)
    edited, _, mask = studio.edit_all(inversion, edit=words(studio, **neutral), **asked)
    assert torch.equal(edited, studio.edit(inversion, **asked)) and torch.equal(mask, left_half())


def test_the_mask_without_words_is_what_was_given(studio, inversion):
    def used(**inputs) -> torch.Tensor:
        return studio.edit_all(inversion, **inputs)[2]

    assert torch.equal(used(), torch.ones(1, 64, 64))
    assert torch.equal(used(mask=corner(), variants=2), corner().expand(2, -1, -1))
    both = used(mask=corner(), edit=region_edit(studio, TARGET, 1 - left_half()))
    assert torch.equal(both, torch.maximum(corner(), 1 - left_half()))


def test_the_targets_rows_are_read_beside_the_sources(studio, inversion):
    """With noise_blend the source goes through the network in the same call."""
    asked = dict(mask=corner(), edit=words(studio, read=0.01, threshold=0.0), **LOCKED)
    alone, beside = (studio.edit_all(inversion, noise_blend=blend, **asked)[2] for blend in (0.0, 0.5))
    assert alone.std() > 0.05 and close(alone, beside, 1e-4)
    others = region_edit(studio, SOURCE, 1 - left_half(), edit=asked["edit"], cfg=studio.defaults.cfg)
    _, _, mask = studio.edit_all(inversion, noise_blend=0.5, **asked | {"edit": others})
    assert close(mask[..., :32], alone[..., :32], 1e-4)


def test_reading_takes_no_row_more(studio, inversion, caplog):
    caplog.set_level(logging.INFO, "eta-inversion")
    for edit in (None, words(studio, read=1.0)):
        studio.edit(inversion, mask=corner(), edit=edit)
    plain, reading = re.findall(r"(\d+) rows through the network", caplog.text)
    assert plain == reading


def test_pictures_and_variants_have_masks_of_their_own(studio):
    batch = picture(batch=2, size=(8, 12))
    asked = dict(edit=words(studio), mask=torch.zeros(1, 64, 96), eta=studio.eta(end_eta=1.0), **LOCKED)
    both = studio.invert(latent_image=batch)
    edited, _, masks = studio.edit_all(both, variants=2, **asked)
    assert masks.shape == (4, 64, 96) and not torch.equal(masks[0], masks[1])
    one = studio.invert(latent_image={"samples": batch["samples"][1:]})
    for variant in range(2):
        seed = studio.defaults.seed + variant
        alone, _, mask = studio.edit_all(one, seed=seed, **asked)
        assert close(masks[2 * variant + 1 : 2 * variant + 2], mask)
        assert close(edited[2 * variant + 1 : 2 * variant + 2], alone, 1e-3)


@every_method
def test_beside_a_method(studio, inversion, method):
    plan = method(studio, inversion)
    asked = dict(mask=corner(), **LOCKED)
    edited, source, mask = studio.edit_all(inversion, edit=words(studio, edit=plan), **asked)
    assert mask.mean() > 1.2 * corner().mean()
    inside = torch.nn.functional.max_pool2d(mask[:, None], 8).expand_as(edited) > 0
    assert close(edited[~inside], source[~inside])
    assert not close(edited, studio.edit(inversion, edit=words(studio), **asked), 0.002)


def test_without_an_inversion(studio):
    def edited(**inputs):
        prompts = dict(source=studio.prompt(SOURCE), positive=studio.prompt(TARGET), negative=studio.negative)
        given = dict(model=studio.model, latent_image=picture(), steps=4, scheduler="normal", source_cfg=1.5)
        given |= dict(cfg=3.0, seed=7, start=1.0, mask=corner(), background_lock=1.0)
        latent, mask = studio.host.call("EtaFlowEdit", **prompts | given | inputs)
        return latent["samples"], mask

    freed, mask = edited(edit=words(studio, read=0.01))
    assert mask.mean() > 1.2 * corner().mean()
    assert close(edited(mask=mask)[0], freed) and not close(edited()[0], freed, 0.01)


# --- what it refuses ------------------------------------------------------------------------------


def test_where_there_is_nothing_to_join(studio, inversion):
    with raises("none is connected", "connect a mask"):
        studio.edit(inversion, edit=words(studio))
    with raises("parity is on", "disconnect Eta Target Words"):
        studio.edit(inversion, edit=words(studio), mask=corner(), parity=True)
    with raises("made for another target prompt", "connect the same"):
        studio.edit(inversion, edit=words(studio), mask=corner(), positive=studio.prompt(SOURCE))
    with raises("stands twice", "name all words in one"):
        words(studio, edit=words(studio))
    with raises("joins EtaSampler's mask", "connect it to `edit`"):
        region_edit(studio, TARGET, corner(), method=words(studio))
    with raises("words", "'cat'", "not in the target prompt", "dog"):
        words(studio, "cat")


def test_where_words_cannot_be_read(studio, inversion):
    target = studio.prompt(TARGET)
    area = dict(conditioning=target, width=32, height=32, x=0, y=0, strength=1.0)
    part = studio.host.call("ConditioningSetArea", **area)[0]
    with raises("look cannot be read", "the target conditioning has an area", "disconnect Eta Target Words"):
        studio.edit(inversion, edit=words(studio), mask=corner(), positive=part)
    (compiled,) = studio.host.call("TorchCompileModel", model=studio.model, backend="inductor")
    with raises("look cannot be read", "torch.compile is on this model"):
        studio.on(compiled).edit(inversion, edit=words(studio), mask=corner())
    with raises("image has 2 pictures"):
        studio.edit(inversion, edit=words(studio, image=torch.rand(2, 64, 64, 3)), mask=corner())
    both = studio.host.call("ConditioningCombine", conditioning_1=target, conditioning_2=target)[0]
    with raises("has 2 entries", "needs one prompt"):
        words(studio, positive=both)
