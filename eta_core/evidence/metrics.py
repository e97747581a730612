"""Figures of an edit: how much of a picture changed, and where.

Pictures are [B, H, W, C] in 0..1, sRGB; masks [B, H, W], 0 = background. Two conventions for what had to
stay:

- exact (`background_...`): the pixels where the mask is 0, and nothing else.
- PIE-Bench (`pie_...`, Ju et al. 2023, "Direct Inversion"): both pictures times (1 - mask), averaged over the
  whole frame. The edited part counts as a perfect black match, so these figures improve as the mask grows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

VISIBLE = 5.0  # CIEDE2000 from which a pixel counts as changed
WINDOW, SPREAD = 11, 1.5  # Wang 2004
C1, C2 = 0.01**2, 0.03**2
TINY = 1e-12
STRIP = 128  # rows at a time, in double precision: the working memory is many times the rows'
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang 2003


@dataclass(frozen=True)
class Metric:
    """How a figure is named and written, and which way is better: "higher", "lower", or "" for neither."""

    label: str
    better: str
    digits: int
    unit: str = ""

    def __call__(self, value: float) -> str:
        """The value as text, with its unit."""
        return f"{value:.{self.digits}f} {self.unit}".strip()


METRICS = {
    "background_psnr": Metric("background PSNR", "higher", 2, "dB"),
    "background_mse": Metric("background MSE", "lower", 6),
    "background_ssim": Metric("background SSIM", "higher", 4),
    "background_ms_ssim": Metric("background MS-SSIM", "higher", 4),
    "background_mean_difference": Metric("mean colour difference of the background", "lower", 2, "dE00"),
    "background_max_difference": Metric("largest colour difference of the background", "lower", 2, "dE00"),
    "background_changed_area": Metric("changed area of the background", "lower", 2, "%"),
    "background_differing": Metric("pixels of the background that differ at all", "lower", 0),
    "changed_area": Metric("changed area", "", 2, "%"),
    "pie_psnr": Metric("PIE-Bench PSNR", "higher", 2, "dB"),
    "pie_mse": Metric("PIE-Bench MSE", "lower", 6),
    "pie_ssim": Metric("PIE-Bench SSIM", "higher", 4),
    "pie_ms_ssim": Metric("PIE-Bench MS-SSIM", "higher", 4),
    "pie_lpips": Metric("PIE-Bench LPIPS", "lower", 4),
    "structure_distance": Metric("structure distance", "lower", 5),
    "clip_similarity": Metric("CLIP similarity", "higher", 2),
    "clip_similarity_edited": Metric("CLIP similarity of the edited part", "higher", 2),
    "clip_directional": Metric("directional CLIP", "higher", 3),
}


def metric_named(name: str) -> Metric:
    """The metric of a name; for one that is not known here, such as a newer pack's, a plain one."""
    return METRICS.get(name) or Metric(name.replace("_", " "), "", 4)


def measure(
    source: Tensor,
    edited: Tensor,
    mask: Tensor | None = None,
    visible: float = VISIBLE,
    features: Callable[[Tensor], Tensor] | None = None,
) -> list[dict[str, float]]:
    """The figures of each picture by the names of METRICS, all that need no trained network.

    mask: [1 or B, H, W] in 0..1; without it the whole picture is background. visible: CIEDE2000 from which a
    pixel counts as changed. features: gives structure_distance its features, [1, H, W, 3] to
    [1, tokens, channels]. PSNR is infinite where nothing differs; a figure is nan where there is no
    background, and SSIM by PIE-Bench's convention in pictures below 11 pixels. Raises ValueError for shapes
    that do not fit and for pixels that are NaN or infinite.
    """
    _check(source, edited, mask)
    mask = torch.zeros(source.shape[:3]) if mask is None else mask.expand(len(source), -1, -1)
    rows = []
    for i in range(len(source)):
        a, b = (picture[i : i + 1, ..., :3] for picture in (source, edited))
        rows.append(_figures(a, b, mask[i : i + 1].to(a.dtype), visible))
        if features is not None:
            rows[-1]["structure_distance"] = structure_distance(features(a), features(b)).item()
    return rows


def _check(source: Tensor, edited: Tensor, mask: Tensor | None) -> None:
    if (
        source.ndim != 4
        or source.shape[:3] != edited.shape[:3]
        or min(source.shape[-1], edited.shape[-1]) < 3
    ):
        raise ValueError(
            f"source is {list(source.shape)}, edited {list(edited.shape)}: both must be [batch, height, "
            "width, 3 or 4], of one batch and size"
        )
    if mask is not None and (mask.shape[1:] != source.shape[1:3] or len(mask) not in (1, len(source))):
        raise ValueError(
            f"the mask is {list(mask.shape)}: it must be [1 or {len(source)}, {source.shape[1]}, "
            f"{source.shape[2]}], as the pictures"
        )
    if mask is not None and not bool(((mask >= 0) & (mask <= 1)).all()):
        raise ValueError(
            f"the mask runs from {float(mask.min()):g} to {float(mask.max()):g}: it must lie in 0..1"
        )
    for name, picture in (("source", source), ("edited", edited)):
        if not bool(torch.isfinite(picture).all()):
            raise ValueError(f"{name} holds NaN or infinite pixels: decode it again, in single precision")


def _differing(source: Tensor, edited: Tensor, outside: Tensor) -> Tensor:
    """How many pixels outside are not bit by bit the source's; nan where there is no background."""
    count = ((source != edited).any(-1) & outside).sum().double()
    return count if bool(outside.any()) else count * math.nan


def _figures(source: Tensor, edited: Tensor, mask: Tensor, visible: float) -> dict[str, float]:
    """One picture, [1, H, W, 3]."""
    outside = mask <= 0
    strips = zip(source.split(STRIP, 1), edited.split(STRIP, 1))
    difference = torch.cat([delta_e(a.double(), b.double()) for a, b in strips], 1)
    background = difference[outside]
    figures = {
        "background_psnr": _decibel(mse(source, edited, outside)),
        "background_mse": mse(source, edited, outside),
        "background_ssim": ssim(source, edited, outside),
        "background_ms_ssim": ms_ssim(source, edited, outside),
        "background_mean_difference": background.mean(),
        "background_max_difference": background.max() if len(background) else math.nan,
        "background_changed_area": 100 * (background > visible).double().mean(),
        "background_differing": _differing(source, edited, outside),
        "changed_area": 100 * (difference > visible).double().mean(),
    }
    if bool((mask < 1).any()):
        source, edited = (picture * (1 - mask)[..., None] for picture in (source, edited))
        whole = mse(source, edited), ssim(source, edited), ms_ssim(source, edited)
    else:
        whole = (torch.tensor(math.nan),) * 3
    figures |= {"pie_psnr": _decibel(whole[0])} | dict(zip(("pie_mse", "pie_ssim", "pie_ms_ssim"), whole))
    return {name: float(value) for name, value in figures.items()}


def mse(a: Tensor, b: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared error of each picture [B, H, W, C] -> [B], over the pixels that `weight` [B, H, W] picks.

    nan where it picks none.
    """
    weight = torch.ones(a.shape[:3]) if weight is None else weight.expand(a.shape[:3])
    total = torch.zeros(len(a), dtype=torch.float64)
    for x, y, w in zip(*(tensor.split(STRIP, 1) for tensor in (a, b, weight))):
        total += ((x.double() - y.double()).square().mean(-1) * w).flatten(1).sum(1)
    return total / weight.flatten(1).sum(1, dtype=torch.float64)


def psnr(a: Tensor, b: Tensor, weight: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture, [B, H, W, C] in 0..1 -> [B].

    `weight` [B, H, W] picks the pixels. Infinite where the pictures are equal. Raises ValueError where the
    weight leaves no pixel.
    """
    if weight is not None and bool((weight.flatten(1).sum(1) <= 0).any()):
        raise ValueError("psnr: the weight selects no pixel of at least one picture")
    return _decibel(mse(a, b, weight))


def _decibel(error: Tensor) -> Tensor:
    return -10 * torch.log10(error)


def background_psnr(source: Tensor, edited: Tensor, mask: Tensor) -> Tensor:
    """psnr over the pixels where `mask` [B, H, W] is 0: what had to stay."""
    return psnr(source, edited, (mask <= 0).to(source.dtype))


def ssim(a: Tensor, b: Tensor, weight: Tensor | None = None) -> Tensor:
    """Structural similarity of each picture [B, H, W, C] -> [B], averaged over colours (Wang et al. 2004).

    Gaussian window of 11 pixels with spread 1.5, K1 0.01, K2 0.03. Without `weight` only windows wholly
    inside the picture count; nan where there is none. `weight` [B, H, W] says how much each pixel counts,
    both in a window's means and variances and as a window's centre. What has weight 0 changes nothing. With a
    weight, windows are cut at the picture's edge.
    """
    return _structure(*_planes(a, b, weight))[0]


def ms_ssim(a: Tensor, b: Tensor, weight: Tensor | None = None) -> Tensor:
    """Multi-scale structural similarity of each picture (Wang et al. 2003) -> [B]; `weight` as in ssim.

    Contrast-structure counts at each of five scales and SSIM at the coarsest, to the paper's powers. Each
    scale averages 2 x 2 pixels of the one before. A picture below 176 pixels has room for fewer scales; their
    powers are then scaled to sum to 1.
    """
    a, b, weight = _planes(a, b, weight)
    room = min(a.shape[-2:]) // WINDOW
    scales = SCALES[: max(1, min(len(SCALES), room.bit_length()))]
    value = torch.ones(len(a), dtype=torch.float64)
    for i, power in enumerate(scales):
        full, contrast = _structure(a, b, weight)
        last = i == len(scales) - 1
        value = value * (full if last else contrast).clamp(min=0) ** (power / sum(scales))
        if not last:
            a, b, weight = _halve(a, b, weight)
    return value


def _planes(a: Tensor, b: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Pictures as [B, C, H, W], the weight as [B, 1, H, W]."""
    weight = None if weight is None else weight.expand(a.shape[:3]).to(a.dtype)[:, None]
    return a.movedim(-1, 1), b.movedim(-1, 1), weight


def _halve(a: Tensor, b: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    if weight is None:
        return F.avg_pool2d(a, 2), F.avg_pool2d(b, 2), None
    smaller = F.avg_pool2d(weight, 2)
    a, b = (F.avg_pool2d(plane * weight, 2) / smaller.clamp(min=TINY) for plane in (a, b))
    return a, b, smaller


def _structure(a: Tensor, b: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast-structure part, each averaged over colours and windows: [B]."""
    edge = WINDOW // 2
    if weight is not None:
        centre = weight
        a, b, weight = (F.pad(plane, (edge,) * 4) for plane in (a, b, weight))
    elif min(a.shape[-2:]) < WINDOW:
        unknown = torch.full((len(a),), math.nan)
        return unknown, unknown
    else:
        weight = torch.ones_like(a[:, :1])
        centre = weight[..., edge:-edge, edge:-edge]
    sums = torch.zeros(2, len(a), dtype=torch.float64)
    for top, count in enumerate(centre.split(STRIP, -2)):
        rows = slice(top * STRIP, (top + 1) * STRIP + WINDOW - 1)
        parts = _parts(*(plane[..., rows, :].double() for plane in (a, b, weight)))
        sums += torch.stack([(part.mean(1, keepdim=True) * count).flatten(1).sum(1) for part in parts])
    full, contrast = sums / centre.flatten(1).sum(1, dtype=torch.float64)
    return full, contrast


def _parts(a: Tensor, b: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM and contrast-structure of every window, [B, C, H - 10, W - 10]."""
    total = _blur(weight).clamp(min=TINY)
    mean_a, mean_b = _blur(a * weight) / total, _blur(b * weight) / total
    var_a = _blur(a * a * weight) / total - mean_a**2
    var_b = _blur(b * b * weight) / total - mean_b**2
    shared = _blur(a * b * weight) / total - mean_a * mean_b
    contrast = (2 * shared + C2) / (var_a + var_b + C2)
    return contrast * (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1), contrast


def _blur(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, H - 10, W - 10] under the Gaussian window."""
    window = [math.exp(-((i - WINDOW // 2) ** 2) / (2 * SPREAD**2)) for i in range(WINDOW)]
    for axis in (-1, -2):
        length = x.shape[axis] - WINDOW + 1
        shifted = (height / sum(window) * x.narrow(axis, i, length) for i, height in enumerate(window))
        x = reduce(torch.add, shifted)
    return x


def lab(picture: Tensor) -> Tensor:
    """sRGB [..., 3] in 0..1 as CIE L*a*b*, white D65 (IEC 61966-2-1, CIE 15)."""
    picture = picture.clamp(0, 1)
    linear = torch.where(picture <= 0.04045, picture / 12.92, ((picture + 0.055) / 1.055) ** 2.4)
    to_xyz = torch.tensor(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], dtype=picture.dtype
    )
    xyz = linear @ (to_xyz / to_xyz.sum(1, keepdim=True)).T
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=TINY) ** (1 / 3), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = f.unbind(-1)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), -1)


def delta_e(a: Tensor, b: Tensor) -> Tensor:
    """Colour difference by CIEDE2000 of sRGB pictures [..., 3] in 0..1 -> [...]. About 1 is just visible."""
    return delta_e_of_lab(lab(a), lab(b))


def delta_e_of_lab(first: Tensor, second: Tensor) -> Tensor:
    """CIEDE2000 of two L*a*b* colours [..., 3], all weights 1 (ISO/CIE 11664-6; Sharma, Wu, Dalal 2005)."""
    (l1, a1, b1), (l2, a2, b2) = first.unbind(-1), second.unbind(-1)
    stretch = 1 + 0.5 * (1 - _saturation((torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2))
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = torch.hypot(a1, b1), torch.hypot(a2, b2)
    h1, h2 = torch.atan2(b1, a1), torch.atan2(b2, a2)
    turn = torch.where(c1 * c2 == 0, 0, torch.remainder(h2 - h1 + math.pi, 2 * math.pi) - math.pi)
    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    # half way along the shorter arc; without a hue of its own a colour takes the other's
    hue = torch.where(c1 * c2 == 0, torch.where(c1 == 0, h2, h1), h1 + turn / 2)
    t = (
        1
        - 0.17 * torch.cos(hue - math.radians(30))
        + 0.24 * torch.cos(2 * hue)
        + 0.32 * torch.cos(3 * hue + math.radians(6))
        - 0.20 * torch.cos(4 * hue - math.radians(63))
    )
    blue = torch.remainder(torch.rad2deg(hue), 360)
    rotation = 2 * _saturation(chroma) * torch.sin(math.radians(60) * torch.exp(-(((blue - 275) / 25) ** 2)))
    of_lightness = (l2 - l1) / (1 + 0.015 * (lightness - 50) ** 2 / torch.sqrt(20 + (lightness - 50) ** 2))
    of_chroma = (c2 - c1) / (1 + 0.045 * chroma)
    of_hue = 2 * torch.sqrt(c1 * c2) * torch.sin(turn / 2) / (1 + 0.015 * chroma * t)
    squared = of_lightness**2 + of_chroma**2 + of_hue**2 - rotation * of_chroma * of_hue
    return squared.clamp(min=0).sqrt()


def _saturation(chroma: Tensor) -> Tensor:
    return torch.sqrt(chroma**7 / (chroma**7 + 25.0**7))


def structure_distance(source: Tensor, edited: Tensor) -> Tensor:
    """Mean squared difference of two pictures' self-similarities; features [B, tokens, channels] -> [B].

    Self-similarity is the cosine of every token with every other. Published figures take the keys of the last
    layer of DINO ViT-B/8 at 224 pixels, its class token among them (Tumanyan et al. 2022, "Splicing ViT
    Features"). Other features give other scales.
    """
    a, b = (x @ x.mT for x in (F.normalize(features, dim=-1) for features in (source, edited)))
    return (a - b).square().flatten(1).mean(1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of two boolean masks [B, H, W]; 1 where both are empty."""
    union = (a | b).flatten(1).sum(1)
    return torch.where(
        union > 0, (a & b).flatten(1).sum(1) / union.clamp(min=1), torch.ones_like(union, dtype=torch.float32)
    )
