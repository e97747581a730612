"""Edits planted with a known shift, zoom, tint and region, on photograph-like noise."""

import pytest
import torch

from eta_core import masks
from eta_core.blend import Seam
from eta_core.keep import Move, find_change, find_move, follow, keep
from eta_core.place import resize

SIZE = (300, 400)


def photograph(seed: int) -> torch.Tensor:
    """Coloured noise of several scales [H, W, 3]."""
    dice = torch.Generator().manual_seed(seed)
    picture = torch.zeros(*SIZE, 3)
    for cell in (100, 30, 10, 4):
        grid = torch.rand(1, SIZE[0] // cell + 2, SIZE[1] // cell + 2, 3, generator=dice)
        picture += resize(grid, SIZE)[0] * cell**0.3
    return picture / picture.max()


def ellipse() -> torch.Tensor:
    y, x = torch.meshgrid(*(torch.arange(side).double() for side in SIZE), indexing="ij")
    return ((y - 160) / 55) ** 2 + ((x - 180) / 70) ** 2 < 1


def planted(seed: int, zoom: float, shift: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """A source and its edit: another photograph in the ellipse, then moved, tinted and rounded to 8 bits."""
    source = photograph(seed)
    edit = torch.where(ellipse()[..., None], 1 - photograph(seed + 100), source)
    back = Move((1 / zoom, 1 / zoom), (-shift[0] / zoom, -shift[1] / zoom))
    moved, _ = follow(edit, back, SIZE)
    tinted = moved * torch.tensor([0.92, 1.05, 0.95]) + torch.tensor([0.02, -0.02, 0.03])
    return source, (tinted.clamp(0, 1) * 255).round() / 255


@pytest.mark.parametrize(
    ("seed", "zoom", "shift"),
    [(0, 1.0, (0.0, 0.0)), (1, 1.03, (12.0, -12.0)), (2, 0.97, (-7.3, 4.6)), (3, 1.012, (0.4, 11.5))],
)
def test_shift_zoom_and_region_are_found(seed, zoom, shift):
    source, edited = planted(seed, zoom, shift)
    move, _ = find_move(source, edited)
    assert move.zoom == pytest.approx((zoom, zoom), abs=0.002)
    assert move.shift == pytest.approx(shift, abs=0.5)
    region, _ = find_change(source, *follow(edited, move, SIZE))
    truth, found = ellipse(), region > 0
    assert float((truth & found).sum() / (truth | found).sum()) >= 0.8
    assert float(found.sum() / truth.sum()) <= 1.5


@pytest.mark.parametrize("given", [False, True])
def test_what_did_not_change_is_the_source_bit_by_bit(given):
    source, edited = planted(5, 1.02, (5.0, -6.0))
    seam = Seam(2, 6)
    kept = keep(source, edited, seam, ellipse().float() if given else None)
    assert torch.equal(kept.picture[kept.shown == 0], source[kept.shown == 0])
    outside = masks.dilate(kept.mask[None], seam.reach)[0] == 0
    assert not bool(kept.shown[outside].any())
    assert 0.5 < float(outside.float().mean()) < 1
    inside = masks.dilate(ellipse().float()[None], -6)[0] > 0
    wanted = 1 - photograph(105)
    assert (
        float((kept.picture - wanted)[inside].abs().mean())
        < 0.05
        < float((source - wanted)[inside].abs().mean())
    )


def test_an_edit_of_another_size_is_kept_at_the_sources():
    source, edited = planted(6, 1.0, (0.0, 0.0))
    kept = keep(source, resize(edited[None], (224, 296))[0], Seam())
    assert kept.picture.shape == source.shape
    truth, found = ellipse(), kept.mask > 0
    assert float((truth & found).sum() / (truth | found).sum()) >= 0.8


def test_a_tint_alone_is_no_change():
    source = photograph(7)
    kept = keep(source, (source * 0.9 + 0.05), Seam())
    assert not bool(kept.mask.any())
    assert torch.equal(kept.picture, source)


def test_too_large_a_move_and_another_picture_are_refused():
    source, edited = planted(8, 1.03, (0.0, 0.0))
    with pytest.raises(ValueError, match=r"zoomed by 3\.\d percent, more than the limit of 2"):
        keep(source, edited, Seam(), limit=2.0)
    with pytest.raises(ValueError, match="agrees with the source|more than the limit"):
        keep(source, photograph(9), Seam())
    with pytest.raises(ValueError, match="their shapes differ by 33 percent"):
        keep(source, edited[:, :300], Seam())
