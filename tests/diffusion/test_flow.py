import pytest
import torch

from musicinfuser.diffusion.flow import (
    interpolate,
    per_sample,
    velocity_loss,
    velocity_target,
)

SHAPE = (3, 2, 2, 4, 4)


def draw(seed):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def test_endpoints_are_data_and_noise_exactly():
    z, eps = draw(0), draw(1)
    assert torch.equal(interpolate(z, eps, torch.zeros(3)), z)
    assert torch.equal(interpolate(z, eps, torch.ones(3)), eps)


def test_each_sample_has_its_own_level():
    z, eps = draw(0), draw(1)
    sigma = torch.tensor([0.0, 0.25, 1.0])
    noisy = interpolate(z, eps, sigma)
    for b in range(3):
        expected = (1 - sigma[b].item()) * z[b].numpy() + sigma[b].item() * eps[b].numpy()
        torch.testing.assert_close(noisy[b], torch.from_numpy(expected))


def test_target_is_minus_the_slope_of_the_path_in_sigma():
    z, eps = draw(0).double(), draw(1).double()
    h = 1e-6
    above = interpolate(z, eps, torch.full((3,), 0.4 + h, dtype=torch.float64))
    below = interpolate(z, eps, torch.full((3,), 0.4 - h, dtype=torch.float64))
    torch.testing.assert_close(
        velocity_target(z, eps), -(above - below) / (2 * h), rtol=1e-6, atol=1e-8
    )


def test_target_leads_from_any_level_back_to_the_data():
    z, eps = draw(0), draw(1)
    sigma = torch.tensor([0.1, 0.5, 0.9])
    noisy = interpolate(z, eps, sigma)
    torch.testing.assert_close(noisy + per_sample(sigma, z) * velocity_target(z, eps), z)


def test_loss_is_the_mean_square_per_sample_in_fp32():
    predicted, target = draw(2).bfloat16(), draw(3)
    loss = velocity_loss(predicted, target)
    assert loss.shape == (3,) and loss.dtype == torch.float32
    for b in range(3):
        difference = predicted[b].float().numpy() - target[b].numpy()
        torch.testing.assert_close(loss[b].item(), float((difference**2).mean()))


@pytest.mark.parametrize("is_given", [None, [True, False, True]])
def test_weights_of_pixels_count_as_if_their_mean_were_one(is_given):
    predicted, target = draw(2), draw(3)
    weights = 1 + 2 * torch.rand(3, *predicted.shape[2:], generator=torch.manual_seed(5))
    first = None if is_given is None else torch.tensor(is_given)
    loss = velocity_loss(predicted, target, first_given=first, weights=weights)
    squared = (predicted - target).square().double().numpy()
    for b in range(3):
        start = int(first is not None and bool(first[b]))
        own = weights[b, start:].double().numpy()
        expected = (squared[b, :, start:] * (own / own.mean())).mean()
        assert loss[b].item() == pytest.approx(expected, rel=1e-5)
    plain = velocity_loss(predicted, target, first_given=first)
    alike = torch.full_like(weights, 7.0)
    same = velocity_loss(predicted, target, first_given=first, weights=alike)
    torch.testing.assert_close(same, plain)
    assert not torch.allclose(loss, plain, rtol=1e-3)


def test_loss_is_eq_1_up_to_sigma_squared():
    """D = z_sigma + sigma v; the denoising error over sigma^2 is the velocity error."""
    z, eps, predicted = draw(0), draw(1), draw(4)
    sigma = torch.tensor([0.2, 0.5, 1.0])
    denoised = interpolate(z, eps, sigma) + per_sample(sigma, z) * predicted
    denoising_error = (denoised - z).square().flatten(1).mean(dim=1)
    torch.testing.assert_close(
        denoising_error / sigma**2, velocity_loss(predicted, velocity_target(z, eps))
    )


def test_per_sample_broadcasts_over_the_trailing_axes():
    values = per_sample(torch.tensor([1.0, 2.0, 3.0]), draw(0))
    assert values.shape == (3, 1, 1, 1, 1)
    assert values.flatten().tolist() == [1.0, 2.0, 3.0]
