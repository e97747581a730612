"""How a family of models mixes picture and noise, and the common space in which every step is taken.

All steps work on x = x0 + sigma n: the clean latent x0 plus sigma times unit noise n. A model has its own
latents z and counts its own noise levels; a frame converts both ways.

| | diffusion (variance preserving) | flow |
|---|---|---|
| the model's latent z | sqrt(abar) x0 + sqrt(1 - abar) n | (1 - tau) x0 + tau c n |
| the model's level | sigma = sqrt((1 - abar) / abar) | tau, 0 at the image and 1 at the noise |
| sigma | the level itself | c tau / (1 - tau) |
| x / z | sqrt(1 + sigma^2) | 1 / (1 - tau) |

c is the flow model's noise scale, 1 for nearly all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

LARGEST = 1e6  # 1 / (1 - tau) at the noise itself, where it would be infinite


class Frame(Protocol):
    """Conversions between a model's own latents z and levels, and x and sigma."""

    @property
    def name(self) -> str: ...

    @property
    def noise_scale(self) -> float:
        """The deviation c of the noise that the model was trained with."""
        ...

    def scale(self, sigma: float) -> float:
        """x / z at a noise level."""
        ...

    def sigma(self, level: float) -> float:
        """The sigma of a level as the model counts it."""
        ...

    def level(self, sigma: float) -> float:
        """The model's own level of a sigma."""
        ...

    def time(self, level: float, table: Sequence[float]) -> float:
        """The time of a level, 0 (image) to 1 (noise). `table`: the model's training levels, ascending."""
        ...

    def invert(self, x: Tensor, seen: Tensor, denoised: Tensor, sigma: float, sigma_next: float) -> Tensor:
        """x after one inversion step, from sigma up to sigma_next; see ddim.invert_step."""
        ...

    def shifted(self, x: Tensor, delta: Tensor, sigma: float) -> Tensor:
        """x with `delta` added to what the model samples: to x itself, or to a flow's z."""
        ...

    def halfway(self, sigma: float, sigma_next: float) -> float:
        """The sigma half way between two, counted as `slope` counts."""
        ...

    def slope(self, x: Tensor, denoised: Tensor, sigma: float) -> Tensor:
        """Where the model's own path leads from x at a sigma above 0: the noise, or a flow's velocity."""
        ...

    def move(self, x: Tensor, slope: Tensor, sigma: float, sigma_next: float) -> Tensor:
        """x at sigma_next, from x at sigma straight along a slope."""
        ...


def to_x(frame: Frame, z: Tensor, sigma: float) -> Tensor:
    return z * frame.scale(sigma)


def from_x(frame: Frame, x: Tensor, sigma: float) -> Tensor:
    return x / frame.scale(sigma)


@dataclass(frozen=True)
class Diffusion:
    """Variance preserving diffusion, whatever the network predicts (eps, v or x0)."""

    name = "diffusion"
    noise_scale = 1.0

    def scale(self, sigma: float) -> float:
        return math.sqrt(1.0 + sigma * sigma)

    def sigma(self, level: float) -> float:
        return level

    def level(self, sigma: float) -> float:
        return sigma

    def time(self, level: float, table: Sequence[float]) -> float:
        """t / (T - 1), interpolated in log sigma between the T levels of `table`."""
        if level <= 0:
            return 0.0
        t = np.interp(math.log(level), np.log(np.asarray(table, dtype=np.float64)), np.arange(len(table)))
        return float(t) / (len(table) - 1)

    def invert(self, x: Tensor, seen: Tensor, denoised: Tensor, sigma: float, sigma_next: float) -> Tensor:
        """DDIM's equation 12 reversed: x moves along the noise that the network found in `seen`."""
        return self.move(x, self.slope(seen, denoised, sigma_next), sigma, sigma_next)

    def shifted(self, x: Tensor, delta: Tensor, sigma: float) -> Tensor:
        return x + delta

    def halfway(self, sigma: float, sigma_next: float) -> float:
        return (sigma + sigma_next) / 2

    def slope(self, x: Tensor, denoised: Tensor, sigma: float) -> Tensor:
        return (x - denoised) / sigma

    def move(self, x: Tensor, slope: Tensor, sigma: float, sigma_next: float) -> Tensor:
        return x + (sigma_next - sigma) * slope


@dataclass(frozen=True)
class Flow:
    """Rectified flow. noise_scale: the deviation c of the noise the model was trained with."""

    name = "flow"
    noise_scale: float = 1.0

    def scale(self, sigma: float) -> float:
        return 1.0 + sigma / self.noise_scale

    def sigma(self, level: float) -> float:
        return self.noise_scale * level / max(1.0 - level, 1.0 / LARGEST)

    def level(self, sigma: float) -> float:
        return sigma / (self.noise_scale + sigma)

    def time(self, level: float, table: Sequence[float]) -> float:
        return level

    def invert(self, x: Tensor, seen: Tensor, denoised: Tensor, sigma: float, sigma_next: float) -> Tensor:
        """Euler's step of z along the velocity (z - x0) / tau that the network found at the destination."""
        share = 1.0 - self.level(sigma) / self.level(sigma_next)
        return seen + share * (seen - self.scale(sigma_next) * denoised)

    def shifted(self, x: Tensor, delta: Tensor, sigma: float) -> Tensor:
        return x + self.scale(sigma) * delta

    def halfway(self, sigma: float, sigma_next: float) -> float:
        return self.sigma((self.level(sigma) + self.level(sigma_next)) / 2)

    def slope(self, x: Tensor, denoised: Tensor, sigma: float) -> Tensor:
        return (from_x(self, x, sigma) - denoised) / self.level(sigma)

    def move(self, x: Tensor, slope: Tensor, sigma: float, sigma_next: float) -> Tensor:
        width = self.level(sigma_next) - self.level(sigma)
        return to_x(self, from_x(self, x, sigma) + width * slope, sigma_next)


DIFFUSION, FLOW = Diffusion(), Flow()


def frame_named(name: str, noise_scale: float = 1.0) -> Frame:
    """The frame of a saved name. Raises ValueError for a name that no frame has."""
    frames: dict[str, Frame] = {frame.name: frame for frame in (DIFFUSION, Flow(noise_scale))}
    if name not in frames:
        raise ValueError(f"frame '{name}' is unknown: use one of {', '.join(frames)}")
    return frames[name]
