"""The forward pass, from the picture's latent to the noise end, and how well its result plays back."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from .ddim import Denoise, eta_step, invert_step
from .schedule import Grid


def invert(
    denoise: Denoise,
    latent: Tensor,
    grid: Grid,
    close_step: Callable[[], None] = lambda: None,
    iterations: int = 1,
    warm: bool = False,
) -> tuple[Tensor, float]:
    """DDIM inversion of `latent` [B, C, H, W], given in the model's own space, along `grid`.

    `close_step()` is called after every step. iterations: network evaluations a step. 1 is the reference's.
    More of them approach the fixed point of x' = x + (sigma' - sigma) eps(x', sigma') (ReNoise, arXiv
    2403.14602; AIDI, arXiv 2309.04907). warm: from the second step on, the noise that the last
    step predicted takes the place of the first evaluation (Uni-Inv, arXiv 2411.15843). With 2 iterations
    that makes N + 1 evaluations in all.

    Returns x at every grid point, [N + 1, B, C, H, W] on the CPU, and the residual: how far the last
    iteration still moved x at the worst step, relative to x (nan for one iteration).
    """
    x = latent * grid.scales[0]
    points: list[Tensor] = [x.cpu()]
    residuals: list[float] = []
    noise: Tensor | None = None
    for sigma, sigma_next in pairwise(grid.sigmas):
        start, width = x, sigma_next - sigma
        if noise is None or not warm:
            x = invert_step(denoise, start, sigma, sigma_next, grid.frame)
        else:
            x = start + width * noise
        moved = math.nan
        for _ in range(iterations - 1):
            noise = (x - denoise(x, sigma_next)) / sigma_next
            before, x = x, start + width * noise
            moved = float((x - before).norm() / x.norm())
        residuals.append(moved)
        points.append(x.cpu())
        close_step()
    return torch.stack(points), max(residuals)


def invert_by_midpoints(
    denoise: Denoise,
    latent: Tensor,
    grid: Grid,
    close_step: Callable[[], None] = lambda: None,
    carried: bool = False,
) -> Tensor:
    """Inversion by the midpoint rule: a step follows the slope of its middle (RF-Solver, arXiv 2411.04746).

    carried: half way comes from the slope that the last step followed, where it otherwise costs an evaluation
    (FireFlow, arXiv 2412.07517): N + 1 evaluations in place of 2 N. At the image end itself, where there is
    no slope, the network sees the latent at the level half way. Returns [N + 1, B, C, H, W] on the CPU.
    """
    frame = grid.frame
    x, slope = latent * grid.scales[0], None
    points = [x.cpu()]
    for sigma, sigma_next in pairwise(grid.sigmas):
        middle = frame.halfway(sigma, sigma_next)
        if slope is None or not carried:
            level = sigma or middle
            seen = x * (frame.scale(level) / frame.scale(sigma))
            slope = frame.slope(seen, denoise(seen, level), level)
        halfway = frame.move(x, slope, sigma, middle)
        slope = frame.slope(halfway, denoise(halfway, middle), middle)
        x = frame.move(x, slope, sigma, sigma_next)
        points.append(x.cpu())
        close_step()
    return torch.stack(points)


def evaluations(inverter: str, steps: int, iterations: int) -> int:
    """How often an inverter of INVERTERS asks the network."""
    costs = {
        "warm": steps + 1,
        "fireflow": steps + 1,
        "midpoint": 2 * steps,
        "fixed_point": steps * iterations,
    }
    return costs.get(inverter, steps)


def record(
    denoise: Denoise, latent: Tensor, grid: Grid, seed: int, close_step: Callable[[], None] = lambda: None
) -> Tensor:
    """The trajectory of edit-friendly DDPM inversion (Huberman-Spiegelglas et al. 2024, eq. 6).

    Every level gets independent noise; all pictures of a batch get the same. The network is evaluated at each
    point only so that its attention can be read. Returns [N + 1, B, C, H, W] on the CPU.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    points = [(latent * grid.scales[0]).cpu()]
    for sigma in grid.sigmas[1:]:
        x = latent + sigma * torch.randn((1, *latent.shape[1:]), generator=generator).to(latent)
        denoise(x, sigma)
        points.append(x.cpu())
        close_step()
    return torch.stack(points)


def play_back(denoise: Denoise, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Sample a trajectory back by DDIM under its own prompt, and measure how far that drifts from it.

    x: [N + 1, B, C, H, W]. Returns the drift at every grid point [N + 1] and the end [B, C, H, W]. Drift is
    the root mean square error in the model's own space over the source's standard deviation: 0 is exact, 1 is
    as far off as an unrelated flat picture.
    """
    deviation = (x[0] / grid.scales[0]).std()
    drift, played = torch.zeros(len(x)), x[-1]
    for step in grid.downward():
        played = eta_step(played, denoise(played, step.sigma), step.sigma, step.sigma_next, 0.0, None)
        at = step.index - 1
        drift[at] = (played - x[at].to(played)).square().mean().sqrt() / grid.scales[at] / deviation
    return drift, played / grid.scales[0]
