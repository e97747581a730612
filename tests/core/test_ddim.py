"""Each step against the formulas of the literature in the DDIM frame, in float64."""

import math

import pytest
import torch

from eta_core.ddim import ancestral_step, eta_step, invert_step, optimal_noise
from eta_core.frame import DIFFUSION, FLOW

ABAR = {"from": 0.35, "to": 0.62}


def sigma_of(abar):
    return math.sqrt((1 - abar) / abar)


@pytest.fixture
def tensors():
    g = torch.Generator().manual_seed(3)
    return [torch.randn(2, 4, 6, 5, generator=g, dtype=torch.float64) for _ in range(3)]


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.7, 1.0])
def test_the_eta_step_is_ddims_equation_12(tensors, eta):
    z, eps, noise = tensors
    a, b = ABAR["from"], ABAR["to"]
    s = eta * math.sqrt((1 - b) / (1 - a)) * math.sqrt(1 - a / b)
    z0 = (z - math.sqrt(1 - a) * eps) / math.sqrt(a)
    expected = math.sqrt(b) * z0 + math.sqrt(1 - b - s * s) * eps + s * noise

    x, sigma, sigma_next = z / math.sqrt(a), sigma_of(a), sigma_of(b)
    down, up = ancestral_step(eta, sigma, sigma_next)
    got = eta_step(x, x - sigma * eps, sigma, down, up, noise) * math.sqrt(b)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_the_inversion_step_asks_the_network_at_the_destination(tensors):
    z, eps, _ = tensors
    a, b = ABAR["to"], ABAR["from"]
    seen = {}

    def denoise(x_in, sigma):
        seen["z"], seen["sigma"] = x_in / DIFFUSION.scale(sigma), sigma
        return x_in - sigma * eps

    z0 = (z - math.sqrt(1 - a) * eps) / math.sqrt(a)
    expected = math.sqrt(b) * z0 + math.sqrt(1 - b) * eps
    got = invert_step(denoise, z / math.sqrt(a), sigma_of(a), sigma_of(b)) * math.sqrt(b)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(seen["z"], z, rtol=0, atol=1e-12)
    assert seen["sigma"] == sigma_of(b)


def test_a_region_scales_eta_per_pixel(tensors):
    x, denoised, noise = tensors
    region = torch.zeros(1, 1, 6, 5, dtype=torch.float64)
    region[..., 2:, :] = 0.5
    got = eta_step(x, denoised, 2.0, *ancestral_step(0.8, 2.0, 1.5, region), noise)
    outside = eta_step(x, denoised, 2.0, *ancestral_step(0.0, 2.0, 1.5), None)
    inside = eta_step(x, denoised, 2.0, *ancestral_step(0.4, 2.0, 1.5), noise)
    torch.testing.assert_close(got[..., :2, :], outside[..., :2, :], rtol=0, atol=1e-12)
    torch.testing.assert_close(got[..., 2:, :], inside[..., 2:, :], rtol=0, atol=1e-12)


def test_what_is_kept_beside_full_eta_is_exact_in_float32():
    sigma, sigma_next = 1e6, 50.0
    for value in (1.0, 0.999, 0.5):
        exact, _ = ancestral_step(1.0, sigma, sigma_next, torch.tensor([value], dtype=torch.float64))
        down, _ = ancestral_step(1.0, sigma, sigma_next, torch.tensor([value]))
        assert float(down) == pytest.approx(float(exact), rel=1e-4)
    assert float(ancestral_step(1.0, sigma, sigma_next, torch.ones(1))[0]) == pytest.approx(
        50.0**2 / 1e6, rel=1e-6
    )
    assert float(ancestral_step(0.7, 2.0, 1.5, torch.zeros(1))[0]) == 1.5


def test_the_optimal_noise_lands_exactly(tensors):
    x, denoised, x_next = tensors
    down, up = ancestral_step(0.4, 2.0, 1.5)
    noise = optimal_noise(x_next, x, denoised, 2.0, down, up)
    torch.testing.assert_close(eta_step(x, denoised, 2.0, down, up, noise), x_next, rtol=0, atol=1e-12)


def test_at_full_eta_to_sigma_zero_nothing_is_left_but_the_prediction(tensors):
    x, denoised, noise = tensors
    assert ancestral_step(1.0, 2.0, 0.0) == (0.0, 0.0)
    torch.testing.assert_close(eta_step(x, denoised, 2.0, 0.0, 0.0, noise), denoised)


# --- flow models: z = (1 - tau) x0 + tau noise, velocity = noise - x0 -----------------------------

TAU, TAU_NEXT = 0.8, 0.55


def from_x(x, tau):
    return x * (1 - tau)


def test_eta_0_is_eulers_step_along_the_flow(tensors):
    z, velocity, _ = tensors
    x0, expected = z - TAU * velocity, z + (TAU_NEXT - TAU) * velocity
    down, up = ancestral_step(0.0, FLOW.sigma(TAU), FLOW.sigma(TAU_NEXT))
    got = eta_step(z / (1 - TAU), x0, FLOW.sigma(TAU), down, up, None)
    torch.testing.assert_close(from_x(got, TAU_NEXT), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("eta", [0.2, 0.7, 1.0])
def test_an_eta_step_goes_down_along_the_flow_and_renoises_as_ancestral_steps_do(tensors, eta):
    z, velocity, noise = tensors
    down, up = ancestral_step(eta, FLOW.sigma(TAU), FLOW.sigma(TAU_NEXT))
    tau_down, alpha, alpha_down = FLOW.level(down), 1 - TAU_NEXT, 1 - FLOW.level(down)
    renoise = math.sqrt(TAU_NEXT**2 - (tau_down * alpha / alpha_down) ** 2)
    expected = alpha / alpha_down * (z + (tau_down - TAU) * velocity) + renoise * noise
    got = eta_step(z / (1 - TAU), z - TAU * velocity, FLOW.sigma(TAU), down, up, noise)
    torch.testing.assert_close(from_x(got, TAU_NEXT), expected, rtol=0, atol=1e-12)


def test_the_flows_inversion_step_follows_the_velocity_at_the_destination(tensors):
    z, velocity, _ = tensors
    seen = {}

    def denoise(x_in, sigma):
        seen["z"], seen["tau"] = from_x(x_in, FLOW.level(sigma)), FLOW.level(sigma)
        return seen["z"] - seen["tau"] * velocity

    got = invert_step(denoise, z / (1 - TAU_NEXT), FLOW.sigma(TAU_NEXT), FLOW.sigma(TAU), FLOW)
    torch.testing.assert_close(from_x(got, TAU), z + (TAU - TAU_NEXT) * velocity, rtol=0, atol=1e-12)
    torch.testing.assert_close(seen["z"], z, rtol=0, atol=1e-12)
    assert seen["tau"] == pytest.approx(TAU)


def test_fresh_noise_at_the_flows_noise_end_is_all_there_is():
    sigma = FLOW.sigma(1.0)
    assert math.isfinite(sigma)
    assert FLOW.level(sigma) == pytest.approx(1.0, abs=2e-6)
    down, up = ancestral_step(1.0, sigma, FLOW.sigma(0.5))
    assert (down, up) == pytest.approx((0.0, 1.0), abs=1e-5)


@pytest.mark.parametrize("value", [1.0000001, 1.00001])
@pytest.mark.parametrize(("sigma", "sigma_next"), [(FLOW.sigma(1.0), FLOW.sigma(0.9)), (12.0, 0.03)])
def test_a_region_a_rounding_error_above_1_leaves_no_nan(value, sigma, sigma_next):
    down, up = ancestral_step(1.0, sigma, sigma_next, torch.tensor([value]))
    assert float(down) == pytest.approx(sigma_next**2 / sigma, abs=0.01 * sigma_next) and bool(
        up.isfinite().all()
    )
