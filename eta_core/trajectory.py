"""The result of an inversion as an immutable value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .schedule import Grid

INVERTERS = ("ddim", "fixed_point", "negative_prompt", "edit_friendly", "warm", "midpoint", "fireflow")


@dataclass(frozen=True, eq=False)
class Trajectory:
    """An inverted batch of pictures.

    x: [N + 1, B, C, H, W] float32 in sigma space, from the image end to the noise end. signature: names and
    values that tell the model, to compare with the model of an edit. maps: per-token attention
    [B, tokens, h, w] in 0..1 at the layers' own size, or None; `no_maps` then says why. prompts: texts that
    may have made the source conditioning. fingerprint: digest of that conditioning. scale: pixels of the
    picture per latent pixel. inverter: how x was found, which tells an edit what to make of it.
    cfg: the guidance of the inversion.
    """

    x: Tensor
    grid: Grid
    signature: Mapping[str, str]
    fingerprint: str
    scale: int = 8
    maps: Tensor | None = None
    no_maps: str = ""
    prompts: tuple[str, ...] = field(default=())
    inverter: str = "ddim"
    cfg: float = 1.0

    def __post_init__(self):
        if self.x.ndim != 5 or len(self.x) != self.grid.steps + 1:
            raise ValueError(
                f"a trajectory over {self.grid.steps} steps needs x of shape [{self.grid.steps + 1}, B, C, "
                f"H, W], got {tuple(self.x.shape)}"
            )
        if self.inverter not in INVERTERS:
            raise ValueError(f"inverter '{self.inverter}' is unknown: use one of {', '.join(INVERTERS)}")
        if self.maps is not None and (self.maps.ndim != 4 or len(self.maps) != self.batch):
            raise ValueError(
                f"attention maps must be [{self.batch}, tokens, h, w], got {tuple(self.maps.shape)}"
            )

    @property
    def batch(self) -> int:
        return self.x.shape[1]

    @property
    def latent_size(self) -> tuple[int, int]:
        """Height and width of the latent."""
        return self.x.shape[-2], self.x.shape[-1]

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.latent_size
        return height * self.scale, width * self.scale

    @property
    def source(self) -> Tensor:
        """The source latent [B, C, H, W] in the model's scaled space."""
        return self.x[0] / self.grid.scales[0]

    @property
    def latents(self) -> Tensor:
        """Every point in the model's own latents z, [N + 1, B, C, H, W]."""
        scale = torch.tensor(self.grid.scales, dtype=self.x.dtype, device=self.x.device)
        return self.x / scale.view(-1, 1, 1, 1, 1)
