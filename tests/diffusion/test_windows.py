"""Where windows lie, and that denoising in them is denoising."""

import pytest
import torch

from musicinfuser.diffusion.sampler import euler_sample, linear_quadratic_sigmas
from musicinfuser.diffusion.windows import Windows, in_windows

CPU = torch.device("cpu")
NOISE = torch.randn(2, 3, 31, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("num_frames", [14, 19, 20, 21, 27, 40, 66, 301])
@pytest.mark.parametrize(("length", "overlap"), [(13, 6), (13, 1), (13, 12), (2, 1), (25, 3)])
def test_windows_of_one_length_cover_all_and_share_enough(num_frames, length, overlap):
    windows = Windows(num_frames, length, overlap)
    starts = windows.starts
    if num_frames <= length:
        assert starts == (0,)
        return
    gaps = [after - before for before, after in zip(starts, starts[1:], strict=False)]
    assert starts[0] == 0 and starts[-1] == num_frames - length
    assert all(0 < gap <= length - overlap for gap in gaps) and max(gaps) - min(gaps) <= 1
    # With one window less they would share less.
    assert (len(starts) - 2) * (length - overlap) < num_frames - length


@pytest.mark.parametrize(
    ("num_frames", "length", "overlap"), [(31, 13, 6), (14, 13, 6), (40, 9, 2)]
)
def test_weights_rise_and_fall_smoothly_and_add_up_to_one(num_frames, length, overlap):
    windows = Windows(num_frames, length, overlap)
    total = torch.zeros(num_frames)
    for start, weights in zip(windows.starts, windows.weights, strict=True):
        assert (weights > 0).all()
        total[start : start + length] += weights
    torch.testing.assert_close(total, torch.ones(num_frames))
    # The song's ends belong to one window; within, a window's first frames count little.
    assert windows.weights[0, 0] == windows.weights[-1, -1] == 1
    assert (windows.weights[1:, 0] < 0.15).all()
    assert windows.weights.diff(dim=1).abs().max() < 1.6 / overlap


def test_repeated_noise_is_that_of_one_window_in_every_window():
    windows = Windows(31, length=13, overlap=6, repeats_noise=True)
    drawn = NOISE[:, :, : windows.num_drawn]
    noise = windows.noise(drawn)
    assert drawn.shape[2] == 13 and noise.shape == NOISE.shape
    assert torch.equal(noise[:, :, :13], drawn)
    for start in windows.starts:
        # Every frame of it once, in another order.
        assert torch.equal(noise[:, :, start : start + 13], drawn.roll(-start % 13, dims=2))
    independent = Windows(31, length=13, overlap=6)
    assert independent.num_drawn == 31 and torch.equal(independent.noise(NOISE), NOISE)
    assert Windows(9, length=13, overlap=6, repeats_noise=True).num_drawn == 9


def test_one_window_is_one_pass_to_the_bit():
    def denoiser(latents, sigma):
        return torch.sin(3 * latents) + sigma.reshape(-1, 1, 1, 1, 1)

    sigmas = linear_quadratic_sigmas(7)
    plain = euler_sample(denoiser, NOISE, sigmas)
    for length in (31, 40):
        windows = Windows(31, length, 6)
        assert windows.weights.tolist() == [[1.0] * 31]
        seen = in_windows(lambda start: denoiser, windows, device=CPU)
        assert torch.equal(euler_sample(seen, NOISE, sigmas), plain)


def test_velocities_are_blended_in_the_overlaps_and_kept_elsewhere():
    """Every window says its start: a frame of two windows lies between, of one is as it says."""
    windows = Windows(20, 13, 6)
    assert windows.starts == (0, 7)

    def denoiser_at(start):
        return lambda latents, sigma: torch.full_like(latents, float(start))

    blended = in_windows(denoiser_at, windows, device=CPU)(NOISE[:, :, :20], torch.ones(2))
    along = blended[0, 0, :, 0, 0]
    assert (along[:7] == 0).all() and (along[13:] == 7).all()
    ramp = torch.sin(torch.pi * (torch.arange(6) + 0.5) / 12) ** 2
    torch.testing.assert_close(along[7:13], 7 * ramp)
    assert torch.equal(blended, along[None, None, :, None, None].expand_as(blended))


def test_a_denoiser_without_neighbours_gives_what_one_pass_gives():
    """What depends on no other frame is the same in every window, so blending changes nothing."""

    def denoiser(latents, sigma):
        return torch.sin(3 * latents) * sigma.reshape(-1, 1, 1, 1, 1)

    sigmas = linear_quadratic_sigmas(9)
    windows = Windows(31, 7, 3)
    whole = euler_sample(denoiser, NOISE, sigmas)
    found = euler_sample(in_windows(lambda s: denoiser, windows, device=CPU), NOISE, sigmas)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)


def test_each_window_is_asked_for_its_own_span_and_no_more():
    windows, calls, ends = Windows(31, 13, 6), [], []

    def denoiser_at(start):
        def velocity(latents, sigma):
            assert torch.equal(latents, NOISE[:, :, start : start + 13])
            assert latents.is_contiguous() and sigma.tolist() == [0.5, 0.25]
            calls.append(start)
            return latents

        return velocity

    velocity = in_windows(denoiser_at, windows, device=CPU, on_window=lambda: ends.append(1))
    torch.testing.assert_close(velocity(NOISE, torch.tensor([0.5, 0.25])), NOISE)
    assert tuple(calls) == windows.starts and len(ends) == len(calls)
