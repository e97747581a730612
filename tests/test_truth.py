"""The distance to the counterfactual, against scenes that are rendered and compared one by one."""

import numpy as np
import pytest
import torch

from devtools.bench.truth import REACH, Counterfactual
from devtools.demo import scenes


def pixels(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.copy()).float() / 255


def rendered(
    seed: int, wanted: str, background: str, size: float, flip: bool, dx: int, dy: int
) -> torch.Tensor:
    """The scene with its thing at another place, size and side, drawn by Pillow."""
    layout, ground = scenes.layout_of(seed, background)
    own = scenes.scaled_glyph(wanted, layout.size, layout.flip)
    glyph = scenes.scaled_glyph(wanted, layout.size * size, flip)
    left, top = layout.corner(own.size)
    x = int(left + own.width / 2 - glyph.width / 2) + dx
    y = int(top + own.height / 2 - glyph.height / 2) + dy
    rgba = np.zeros((3 * scenes.SIZE, 3 * scenes.SIZE, 4))
    rgba[scenes.SIZE + y :, scenes.SIZE + x :][: glyph.height, : glyph.width] = np.asarray(glyph) / 255
    inside = rgba[scenes.SIZE : 2 * scenes.SIZE, scenes.SIZE : 2 * scenes.SIZE]
    alpha = inside[..., 3:]
    return torch.from_numpy(ground / 255 * (1 - alpha) + inside[..., :3] * alpha).float()


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


@pytest.mark.parametrize(
    ("size", "flip", "dx", "dy"), [(1.0, False, 0, 0), (0.8, True, 12, -12), (1.2, False, -7, 3)]
)
@pytest.mark.parametrize("seed", [scenes.VALIDATION + 3, scenes.VALIDATION + 21])
def test_the_right_scene_at_any_place_size_and_side_that_counts_is_found(seed, size, flip, dx, dy):
    picture = rendered(seed, "dog", "sand", size, flip, dx, dy)
    assert Counterfactual(seed, "dog", "sand").psnr(picture[None])[0] > 60


def test_the_scene_as_it_is_rendered_is_the_right_answer():
    seed = scenes.VALIDATION + 5
    scene = pixels(scenes.render(seed, "fox", "grass").image)
    assert Counterfactual(seed, "fox", "grass").psnr(scene[None])[0] > 45  # Pillow rounds as it pastes


def test_it_is_the_best_of_all_renderings_and_no_more():
    """Of a picture that shows something else: as near as the nearest of the scenes rendered one by one."""
    seed = scenes.VALIDATION + 9
    picture = pixels(scenes.render(seed, "panda", "snow").image)
    every = (
        psnr(picture, rendered(seed, "bear", "snow", size, flip, dx, dy))
        for size in (0.8, 0.9, 1.0, 1.1, 1.2)
        for flip in (False, True)
        for dx in range(-REACH, REACH + 1, 4)
        for dy in range(-REACH, REACH + 1, 4)
    )
    best, found = max(every), Counterfactual(seed, "bear", "snow").psnr(picture[None])[0]
    assert best <= found + 1e-6 and found < best + 0.5


def test_it_falls_with_each_thing_an_edit_can_get_wrong():
    seed, noise = (
        scenes.VALIDATION + 7,
        0.05 * torch.randn(128, 128, 3, generator=torch.Generator().manual_seed(0)),
    )
    right = pixels(scenes.render(seed, "dog", "grass").image)
    wrong = {
        "another thing": pixels(scenes.render(seed, "apple", "grass").image),
        "another background": pixels(scenes.render(seed, "dog", "sand").image),
        "a muddy picture": (right + noise).clamp(0, 1),
    }
    counterfactual = Counterfactual(seed, "dog", "grass")
    best = counterfactual.psnr(right[None])[0]
    assert all(counterfactual.psnr(picture[None])[0] < best - 10 for picture in wrong.values())
