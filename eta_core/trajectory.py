"""The result of an inversion as an immutable value, and its file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .frame import frame_named
from .schedule import Grid

FORMAT = "eta-inversion-1"
INVERTERS = ("ddim", "fixed_point", "negative_prompt", "edit_friendly", "warm")


class TrajectoryFileError(ValueError):
    """A file that is not a trajectory of this format, or is damaged."""


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


def save(
    path: Path, trajectory: Trajectory, extra: Mapping[str, Tensor], notes: Mapping[str, object]
) -> None:
    """Write a trajectory, further tensors and plain notes to one safetensors file, all or nothing."""
    tensors = {"x": trajectory.x, **{f"extra.{key}": value for key, value in extra.items()}}
    if trajectory.maps is not None:
        tensors["maps"] = trajectory.maps
    about = {
        "grid": _plain_grid(trajectory.grid),
        "signature": dict(trajectory.signature),
        "fingerprint": trajectory.fingerprint,
        "scale": trajectory.scale,
        "no_maps": trajectory.no_maps,
        "prompts": trajectory.prompts,
        "inverter": trajectory.inverter,
        "cfg": trajectory.cfg,
        "notes": dict(notes),
    }
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    text = json.dumps(about)
    partial = path.with_name(path.name + ".part")
    try:
        save_file(tensors, partial, {"format": FORMAT, "about": text, "digest": _digest(text, tensors)})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path) -> tuple[Trajectory, dict[str, Tensor], dict]:
    """What `save` wrote: (trajectory, extra, notes). Raises TrajectoryFileError for any other file."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise TrajectoryFileError(
            f"'{path.name}' is damaged or not a safetensors file ({error}); save the inversion again"
        ) from error
    if metadata.get("format") != FORMAT:
        raise TrajectoryFileError(
            f"'{path.name}' is a safetensors file but not a saved inversion (format "
            f"{metadata.get('format')!r}, expected {FORMAT!r})"
        )
    if metadata.get("digest") != _digest(metadata.get("about", ""), tensors):
        raise TrajectoryFileError(
            f"'{path.name}' is damaged: its contents are not what was saved; save it again"
        )
    try:
        about = json.loads(metadata["about"])
        grid = about["grid"]
        frame = frame_named(grid.get("frame", "diffusion"), grid.get("noise_scale", 1.0))
        grid = Grid(tuple(grid["sigmas"]), tuple(grid["times"]), frame)
        trajectory = Trajectory(
            x=tensors["x"],
            grid=grid,
            signature=about["signature"],
            fingerprint=about["fingerprint"],
            scale=about["scale"],
            maps=tensors.get("maps"),
            no_maps=about["no_maps"],
            prompts=tuple(about["prompts"]),
            inverter=about.get("inverter", "ddim"),
            cfg=about.get("cfg", 1.0),
        )
        notes = about["notes"]
    except (KeyError, TypeError, ValueError) as error:
        raise TrajectoryFileError(
            f"'{path.name}' is a damaged inversion ({error!r}); save it again"
        ) from error
    return (
        trajectory,
        {k.removeprefix("extra."): v for k, v in tensors.items() if k.startswith("extra.")},
        notes,
    )


def _plain_grid(grid: Grid) -> dict[str, object]:
    frame = {"frame": grid.frame.name, "noise_scale": grid.frame.noise_scale}
    return {"sigmas": grid.sigmas, "times": grid.times, **frame}


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for key, tensor in sorted(tensors.items()):
        digest.update(key.encode() + tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
