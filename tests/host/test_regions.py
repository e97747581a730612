"""Regions on planted attention and planted edits, through the nodes."""

import logging
from dataclasses import replace

import pytest
import torch

from devtools.studio import SOURCE, TARGET, left_half
from eta_core.evidence.metrics import iou
from tests.host.test_errors import raises

CAT = 2  # the word's place in the source prompt


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "eta-inversion")
    return caplog


def disc() -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    return ((y - 28) ** 2 + (x - 36) ** 2 < 15**2)[None]


def pictured() -> torch.Tensor:
    return torch.where(disc()[..., None], torch.tensor([0.9, 0.2, 0.1]), torch.tensor([0.1, 0.5, 0.9]))


def attending(inversion, maps: torch.Tensor):
    """The inversion with `maps` [1, 8, 8] as the attention of the word cat."""
    trajectory = inversion.trajectory
    planted = torch.zeros(1, trajectory.maps.shape[1], 8, 8)
    planted[:, CAT] = maps
    return replace(inversion, trajectory=replace(trajectory, maps=planted))


@pytest.fixture
def looking(inversion):
    """Attention on the disc, as coarse as the latent."""
    return attending(inversion, torch.nn.functional.avg_pool2d(disc().float(), 8))


def overlap(mask: torch.Tensor) -> float:
    return iou(mask > 0.5, disc()).item()


def test_a_refined_region_has_the_outline_of_the_thing_in_the_picture(studio, looking):
    coarse, _ = studio.region(looking, "cat", threshold=0.5)
    refined, heat = studio.region(looking, "cat", threshold=0.5, refine=True, image=pictured())
    assert overlap(refined) > 0.95 > 0.9 > overlap(coarse)
    assert heat.shape == (1, 64, 64, 3)


def test_the_auto_threshold_does_not_read_the_threshold(studio, looking):
    found = [studio.region(looking, "cat", threshold=t, auto_threshold=True)[0] for t in (0.0, 0.95)]
    assert torch.equal(*found)
    assert overlap(found[0]) > 0.75
    faint, _ = studio.region(looking, "cat:0.2", threshold=0.5, auto_threshold=True)
    assert torch.equal(faint, found[0])


def test_attention_that_nothing_parts_is_refused_by_the_threshold_that_is_read(studio, inversion):
    nothing = attending(inversion, torch.zeros(1, 8, 8))
    with raises("no pixel of 'cat' stands out", "auto_threshold", "name other words"):
        studio.region(nothing, "cat", threshold=0.5, auto_threshold=True)
    with raises("above threshold 0.5", "use a lower threshold"):
        studio.region(nothing, "cat", threshold=0.5)


def test_refine_needs_the_picture_that_was_inverted(studio, looking):
    with raises("`image` is not connected", "switch refine off"):
        studio.region(looking, "cat", refine=True)
    with raises("image is 32x48 pixels", "64x64", "switch refine off"):
        studio.region(looking, "cat", refine=True, image=torch.rand(1, 48, 32, 3))


def test_a_word_that_is_not_seen_is_warned_of(studio, inversion, looking, said):
    studio.region(looking, "cat", threshold=0.5)
    assert "nearly flat" not in said.text
    flat = attending(inversion, 0.6 + 0.3 * torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0)))
    studio.region(flat, "cat", threshold=0.5)
    assert "'cat' is nearly flat" in said.text


# --- EtaEditMask --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_the_right(studio):
    """A target that is the source prompt in the left half, and another one in the right."""

    def masked(text: str, mask: torch.Tensor) -> list:
        return studio.host.call(
            "ConditioningSetMask",
            conditioning=studio.prompt(text),
            mask=mask,
            strength=1.0,
            set_cond_area="default",
        )[0]

    halves = {
        "conditioning_1": masked(SOURCE, left_half()),
        "conditioning_2": masked(TARGET, 1 - left_half()),
    }
    return studio.host.call("ConditioningCombine", **halves)[0]


@pytest.mark.parametrize("inverter, rows", [("ddim", 3), ("warm", 6)])
def test_the_edit_mask_is_where_the_prompts_differ(studio, on_the_right, said, inverter, rows):
    inverted = studio.invert(inverter=inverter)
    said.clear()
    mask, _ = studio.edit_mask(inverted, positive=studio.prompt(TARGET), evaluations=3)
    assert f"{rows} rows" in said.text
    assert mask[..., :32].any()
    mask, _ = studio.edit_mask(
        inverted, positive=on_the_right, evaluations=3, auto_threshold=False, threshold=0.02
    )
    assert mask[..., 32:].mean() > 0.9 and not mask[..., :32].any()


def test_the_edit_mask_goes_together_with_a_mask(studio, inversion):
    soft = dict(auto_threshold=False, threshold=0.0)
    whole, _ = studio.edit_mask(inversion, **soft)
    inside, _ = studio.edit_mask(inversion, mask=left_half(), combine="intersect", **soft)
    assert torch.equal(inside, torch.minimum(whole, left_half()))


def test_an_edit_mask_of_nothing_says_why(studio, inversion):
    with raises("positive is the source prompt itself", "target prompt"):
        studio.edit_mask(inversion, positive=studio.prompt(SOURCE))
    with raises("evaluations is 5", "4 steps"):
        studio.edit_mask(inversion, evaluations=5)
    with raises("positive is empty", "target prompt"):
        studio.edit_mask(inversion, positive=[])


# --- SAM3's MASK, where the host has the node -----------------------------------------------------


class SeesRed(torch.nn.Module):
    """Stands where SAM3's network stands: one object, wherever the frame is red."""

    dtype = torch.float32

    def forward(self, frame, text_embeddings, text_mask, boxes, threshold, orig_size):
        red = torch.nn.functional.interpolate(frame[:, :1] - frame[:, 2:3], (252, 252), mode="area")[:, 0]
        box = torch.tensor([[0.0, 0.0, orig_size[1], orig_size[0]]])
        return {"boxes": [box], "scores": [torch.tensor([3.0])], "masks": [red]}


@pytest.fixture
def detect(studio):
    if "SAM3_Detect" not in studio.host.nodes.NODE_CLASS_MAPPINGS:
        pytest.skip("this host has no SAM3_Detect")

    def masks_of(picture: torch.Tensor) -> torch.Tensor:
        text = studio.prompt("cat")
        inputs = dict(model=studio.model, image=picture, conditioning=text, threshold=0.5)
        network = studio.model.model.diffusion_model
        studio.model.model.diffusion_model = SeesRed()
        try:
            return studio.host.call("SAM3_Detect", **inputs, refine_iterations=0, individual_masks=False)[0]
        finally:
            studio.model.model.diffusion_model = network

    return masks_of


def test_an_edit_keeps_to_what_sam3_found(studio, inversion, looking, detect):
    found = detect(pictured())
    assert overlap(found) > 0.9
    both, _ = studio.region(looking, "cat", threshold=0.0, mask=found, combine="replace")
    assert torch.equal(both, found)
    own, _ = studio.edit_mask(inversion, auto_threshold=False, threshold=0.0, mask=found)
    assert not own[found == 0].any()
    edited, source = studio.edit_both(inversion, mask=found, background_lock=1.0)
    untouched = torch.nn.functional.max_pool2d(found[:, None], 8).expand_as(edited) == 0
    assert untouched.any() and (edited - source)[untouched].abs().max() < 1e-5
    assert (edited - source)[~untouched].abs().max() > 0.01


def test_nothing_found_by_sam3_is_warned_of(studio, looking, detect, said):
    nothing = detect(torch.full((1, 64, 64, 3), 0.5))
    studio.region(looking, "cat", threshold=0.5, mask=nothing)
    assert "the mask is empty" in said.text
