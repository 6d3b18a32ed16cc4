import math

import pytest
import torch
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule

from musicinfuser.diffusion.sampler import (
    LINEAR_THRESHOLD,
    NUM_STEPS,
    euler_sample,
    linear_quadratic_sigmas,
)

NOISE = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("threshold", [0.025, 0.1])
@pytest.mark.parametrize("num_steps", [2, 3, 7, 28, 64, 65])
def test_schedule_equals_diffusers(num_steps, threshold):
    sigmas = linear_quadratic_sigmas(num_steps, threshold=threshold)
    expected = torch.tensor([*linear_quadratic_schedule(num_steps, threshold), 0.0])
    assert sigmas.shape == (num_steps + 1,) and sigmas.dtype == torch.float32
    torch.testing.assert_close(sigmas, expected, rtol=0, atol=1e-6)


def test_schedule_of_the_paper():
    sigmas = linear_quadratic_sigmas(NUM_STEPS)
    assert (NUM_STEPS, LINEAR_THRESHOLD) == (64, 0.025)
    assert sigmas[0] == 1 and sigmas[-1] == 0
    assert sigmas[32].item() == pytest.approx(1 - 0.025, abs=1e-6)
    steps = -sigmas.double().diff()
    torch.testing.assert_close(
        steps[:32], torch.full((32,), 0.025 / 32, dtype=torch.float64), rtol=1e-3, atol=1e-7
    )
    assert (steps[32:].diff() > 0).all(), "the quadratic half takes ever larger steps"
    second = steps[32:].diff()
    torch.testing.assert_close(second, second.mean().expand(31), rtol=1e-3, atol=1e-6)


def test_one_step_goes_from_noise_to_data():
    assert linear_quadratic_sigmas(1).tolist() == [1.0, 0.0]
    data = torch.full_like(NOISE, 0.25)
    sampled = euler_sample(lambda z, s: data - NOISE, NOISE, linear_quadratic_sigmas(1))
    torch.testing.assert_close(sampled, data)


@pytest.mark.parametrize("num_steps", [0, -3])
def test_no_steps_is_an_error(num_steps):
    with pytest.raises(ValueError, match=f"sampling steps is {num_steps}; it must be at least 1"):
        linear_quadratic_sigmas(num_steps)


def test_a_straight_path_is_followed_exactly():
    data = torch.randn(NOISE.shape, generator=torch.Generator().manual_seed(1))
    sampled = euler_sample(lambda z, s: data - NOISE, NOISE, linear_quadratic_sigmas(10))
    torch.testing.assert_close(sampled, data, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rate", [-1.3, 0.7])
def test_linear_equation_is_eulers_product(rate):
    """v = rate * z: each step multiplies by 1 + rate * (sigma_i - sigma_{i+1})."""
    sigmas = linear_quadratic_sigmas(12)
    factor = 1.0
    for i in range(12):
        factor *= 1 + rate * (sigmas[i].item() - sigmas[i + 1].item())
    sampled = euler_sample(lambda z, s: rate * z, NOISE, sigmas)
    torch.testing.assert_close(sampled, factor * NOISE, rtol=1e-5, atol=1e-6)


def test_linear_equation_converges_to_the_closed_form_at_first_order():
    rate = 0.7
    exact = math.exp(rate) * NOISE.double()

    def error(num_steps):
        sampled = euler_sample(lambda z, s: rate * z, NOISE, torch.linspace(1, 0, num_steps + 1))
        return ((sampled.double() - exact).norm() / exact.norm()).item()

    errors = [error(n) for n in (20, 40, 80)]
    assert errors[2] < 4e-3
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert coarse / fine == pytest.approx(2.0, rel=0.05)


def test_velocity_that_depends_on_sigma_is_summed_at_the_left_ends():
    sigmas = linear_quadratic_sigmas(9)
    expected = sum((sigmas[i] - sigmas[i + 1]).item() * sigmas[i].item() ** 2 for i in range(9))
    sampled = euler_sample(
        lambda z, s: (s**2).reshape(-1, 1, 1, 1, 1).expand_as(z), torch.zeros_like(NOISE), sigmas
    )
    torch.testing.assert_close(sampled, torch.full_like(NOISE, expected))


def test_denoiser_sees_one_level_per_sample_and_hooks_see_every_step():
    sigmas = linear_quadratic_sigmas(5)
    seen, ends, bars = [], [], []

    def denoiser(latents, sigma):
        assert latents.dtype == torch.float32
        assert sigma.shape == (2,) and sigma.dtype == torch.float32
        assert sigma[0] == sigma[1]
        seen.append(sigma[0].item())
        return torch.ones_like(latents, dtype=torch.bfloat16)

    def progress(steps):
        bars.append(len(steps))
        return steps

    sampled = euler_sample(
        denoiser,
        NOISE.bfloat16(),
        sigmas,
        on_step_end=lambda i, latents: ends.append((i, latents.clone())),
        progress=progress,
    )
    assert seen == sigmas[:-1].tolist()
    assert bars == [5] and [i for i, _ in ends] == [0, 1, 2, 3, 4]
    assert sampled.dtype == torch.float32
    assert torch.equal(ends[-1][1], sampled)
    for i, latents in ends:
        expected = NOISE.bfloat16().float() + (1 - sigmas[i + 1])
        torch.testing.assert_close(latents, expected, rtol=0, atol=1e-6)


def test_latents_that_a_hook_returns_take_the_place_of_a_steps_own():
    sigmas, replaced = linear_quadratic_sigmas(4), 3 * NOISE
    after = {1: replaced.bfloat16()}
    sampled = euler_sample(
        lambda z, s: torch.ones_like(z), NOISE, sigmas, on_step_end=lambda i, z: after.get(i)
    )
    assert sampled.dtype == torch.float32
    torch.testing.assert_close(sampled, replaced.bfloat16().float() + sigmas[2])
    last = euler_sample(lambda z, s: z, NOISE, sigmas, on_step_end=lambda i, z: NOISE.bfloat16())
    assert last.dtype == torch.float32 and torch.equal(last, NOISE.bfloat16().float())
