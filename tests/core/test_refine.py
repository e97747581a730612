"""Maps whose edges follow a picture, against planted shapes."""

import pytest
import torch
import torch.nn.functional as F

from eta_core import masks
from eta_core.evidence.metrics import iou
from eta_core.refine import refine


def disc(height: int, width: int, radius: float) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return ((y - 0.45 * height) ** 2 + (x - 0.55 * width) ** 2 < (radius * height) ** 2)[None]


def coarse(shape: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    return F.adaptive_avg_pool2d(shape.float()[None], grid)


@pytest.mark.parametrize("size, grid", [((128, 128), (16, 16)), ((384, 512), (12, 16))])
def test_a_coarse_map_takes_the_outline_of_the_thing_in_the_picture(size, grid):
    shape = disc(*size, 0.22)
    red, green = torch.tensor([0.8, 0.2, 0.1]), torch.tensor([0.2, 0.6, 0.3])
    picture = torch.where(shape[..., None], red, green)
    picture = picture + 0.05 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    map_ = coarse(shape, grid)
    plain = F.interpolate(map_, size, mode="bilinear")[:, 0]
    refined = refine(map_, picture.clamp(0, 1))[:, 0]
    assert iou(masks.threshold(refined, None) > 0, shape) > 0.98
    assert (
        iou(masks.threshold(refined, None) > 0, shape) > iou(masks.threshold(plain, None) > 0, shape) + 0.02
    )


def test_a_picture_without_edges_moves_none():
    """A map that is linear across the windows stays what it is, but for their reach at the border."""
    ramp = torch.linspace(0, 1, 128).expand(1, 1, 128, 128)
    found = refine(ramp, torch.full((1, 128, 128, 3), 0.5))
    torch.testing.assert_close(found[..., 32:-32], ramp[..., 32:-32], atol=1e-4, rtol=0)


def test_every_map_of_every_picture_is_refined_alone():
    maps = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    pictures = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(2))
    together = refine(maps, pictures)
    for i in range(2):
        for k in range(3):
            alone = refine(maps[i : i + 1, k : k + 1], pictures[i : i + 1])
            torch.testing.assert_close(together[i, k], alone[0, 0], atol=1e-5, rtol=0)
