"""A model in closed form: data N(mean, spread^2 I), whose exact denoiser is known at every noise level."""

import torch


def gaussian_denoiser(mean: float, spread: float):
    def denoise(x, sigma):
        return mean + (x - mean) * spread**2 / (spread**2 + sigma**2)

    return denoise


def scaled_linear_table(levels: int = 1000) -> list[float]:
    """SD1's noise levels: betas scaled-linear 0.00085..0.012."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, levels, dtype=torch.float64) ** 2
    abar = (1 - betas).cumprod(0)
    return ((1 - abar) / abar).sqrt().tolist()


def two_peaks_denoiser(mean: float, spread: float):
    """The exact denoiser of data that lie around +mean or -mean, half each: not linear in x."""

    def denoise(x, sigma):
        total = spread**2 + sigma**2
        return (x * spread**2 + mean * sigma**2 * torch.tanh(mean * x / total)) / total

    return denoise
