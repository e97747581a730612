"""LATENTs and MASKs: checked on the way in, in the host's form on the way out."""

from __future__ import annotations

import comfy.sample
import torch
from comfy.model_management import intermediate_device
from torch import Tensor

from ...eta_core.masks import resize_mask
from .messages import warn
from .models import has_frames
from .pictures import is_encoded_part, middle

UNPAINTED = (64, 64)  # the host's Load Image where there is no mask
ROUNDING = 1e-4  # filters that blur or scale a mask of 0 and 1 leave the range by so little


def latent_tensor(model, latent: dict, node_id: str | None = None) -> Tensor:
    """The samples of a LATENT, checked: [B, C, H, W] with the model's channels, finite.

    Where the model has latents of several frames, [B, C, 1, H, W] is a picture.
    """
    if getattr(latent["samples"], "is_nested", False):
        raise ValueError(
            "latent_image holds several latents at once (a video with its sound): Eta Inversion edits "
            "pictures; encode one picture"
        )
    samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
    form, shape = model.get_model_object("latent_format"), list(samples.shape)
    if has_frames(form) and samples.ndim == 5:
        if shape[2] != 1:
            raise ValueError(
                f"latent_image has {shape[2]} frames or layers: Eta Inversion edits pictures, not video; "
                "encode one picture"
            )
        samples = without_frame(form, samples)
    if not samples.numel():
        raise ValueError(
            f"latent_image is empty (shape {shape}): it holds no picture, or one without a pixel; encode a "
            "picture"
        )
    if samples.ndim != 4 or samples.shape[1] != form.latent_channels:
        frames = ", 1" if has_frames(form) else ""
        raise ValueError(
            f"latent_image has shape {shape}: this model takes [batch, {form.latent_channels}{frames}, "
            "height, width]; encode the picture with the VAE of this checkpoint"
        )
    if not bool(torch.isfinite(samples).all()):
        raise ValueError(
            "latent_image holds NaN or infinite values: the VAE overflowed, start the host with --fp32-vae "
            "and encode again"
        )
    if "noise_mask" in latent:
        warn("the latent's noise_mask is not used: connect the mask to EtaSampler's mask instead", node_id)
    return samples.float()


def in_model_space(model, samples: Tensor) -> Tensor:
    """Pictures' latents [B, C, H, W] in the model's scaled space."""
    form = model.get_model_object("latent_format")
    return without_frame(form, model.model.process_latent_in(with_frame(form, samples)))


def out_of_model_space(model, z: Tensor) -> Tensor:
    """The host's own samples, with their frame where the model has frames: what VAE Decode takes."""
    return model.model.process_latent_out(with_frame(model.get_model_object("latent_format"), z.float()))


def to_latent(model, z: Tensor) -> dict:
    """A LATENT of the host from latents in the model's scaled space."""
    return {"samples": out_of_model_space(model, z).to(intermediate_device())}


def with_frame(latent_format, z: Tensor) -> Tensor:
    """A picture's latent [B, C, H, W] as the host's network takes it."""
    return z.unsqueeze(2) if has_frames(latent_format) else z


def without_frame(latent_format, samples: Tensor) -> Tensor:
    """The inverse of `with_frame`."""
    return samples.squeeze(2) if has_frames(latent_format) else samples


def fit_mask(mask: Tensor, batch: int, size: tuple[int, int], node_id: str | None = None) -> Tensor:
    """A user's MASK for `batch` pictures of `size` pixels (height, width): [1 or batch, H, W] in 0..1, CPU.

    A mask of the whole picture, of which the VAE encoded the middle, is cropped alike. Another size of the
    same shape is resized with a warning. Raises ValueError for another aspect ratio, batch or range.
    """
    mask = _in_range(stacked(mask).float().cpu())
    given = (mask.shape[-2], mask.shape[-1])
    if len(mask) not in (1, batch):
        raise ValueError(
            f"the mask has {len(mask)} pictures, the latent {batch}: give one mask, or one for each picture"
        )
    if given == tuple(size):
        return mask
    if is_encoded_part(size, given):
        return middle(mask, size)
    if given == UNPAINTED and not bool(mask.any()):
        raise ValueError(
            "the mask is 64x64 pixels and empty: so Load Image writes 'no mask' where a picture has no "
            "alpha. "
            "Paint one in its mask editor, or disconnect the mask"
        )
    if abs(given[0] * size[1] - given[1] * size[0]) > 0.02 * size[0] * given[1]:
        raise ValueError(
            f"the mask is {given[1]}x{given[0]} pixels, the picture {size[1]}x{size[0]}: they must have the "
            "same "
            "shape; crop or pad the mask"
        )
    warn(
        f"the mask is {given[1]}x{given[0]} pixels and was resized to the picture's {size[1]}x{size[0]}",
        node_id,
    )
    return resize_mask(mask, size)


def stacked(mask: Tensor) -> Tensor:
    """A user's MASK as [n, H, W]. Raises ValueError where it has no pixel."""
    if not mask.numel():
        raise ValueError(f"the mask has no pixel (shape {list(mask.shape)}): connect a mask of the picture")
    return mask.reshape(-1, *mask.shape[-2:])


def _in_range(mask: Tensor) -> Tensor:
    """A mask whose values lie in 0..1; a rounding error beyond counts as the end. ValueError for others."""
    low, high = float(mask.min()), float(mask.max())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise ValueError(f"the mask runs from {low:g} to {high:g}: its values must lie in 0..1")
    return mask.clamp(0, 1)


def latent_mask(
    mask: Tensor, batch: int, size: tuple[int, int], scale: int = 8, node_id: str | None = None
) -> Tensor:
    """A user's MASK at the latent's `size`, [1 or batch, 1, H, W]: means of the covered pixels."""
    fitted = fit_mask(mask, batch, (size[0] * scale, size[1] * scale), node_id)
    return resize_mask(fitted, (size[0], size[1]))[:, None]
