import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from musicinfuser.latent_space import denormalise, normalise, posterior_sample

SHAPE = (2, 3, 2, 4, 5)
MEAN, STD = torch.tensor([-0.5, 0.0, 2.0]), torch.tensor([0.25, 1.0, 3.0])


def draw(seed):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def test_normalise_works_channel_by_channel():
    latents = draw(0)
    normalised = normalise(latents, MEAN, STD)
    for c in range(3):
        expected = (latents[:, c].numpy() - MEAN[c].item()) / STD[c].item()
        np.testing.assert_allclose(normalised[:, c].numpy(), expected, rtol=1e-6, atol=1e-7)


def test_normalise_gives_zero_mean_and_unit_spread():
    latents = 3.0 * draw(1).double() + 5
    channels = latents.transpose(0, 1).flatten(1)
    normalised = normalise(latents, channels.mean(1), channels.std(1)).transpose(0, 1).flatten(1)
    torch.testing.assert_close(normalised.mean(1), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(normalised.std(1), torch.ones(3, dtype=torch.float64))


def test_denormalise_is_the_inverse():
    latents = draw(2)
    torch.testing.assert_close(denormalise(normalise(latents, MEAN, STD), MEAN, STD), latents)
    torch.testing.assert_close(normalise(denormalise(latents, MEAN, STD), MEAN, STD), latents)
    assert not torch.allclose(denormalise(latents, MEAN, STD), latents)


@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_posterior_sample_equals_diffusers_distribution(scale):
    """A scale of 60 reaches beyond both clamps of the log variance, -30 and 20."""
    mean, logvar = draw(3), scale * draw(4)
    if scale > 1:
        assert logvar.min() < -30 and logvar.max() > 20
    distribution = DiagonalGaussianDistribution(torch.cat([mean, logvar], dim=1))
    expected = distribution.sample(torch.Generator().manual_seed(5))
    assert torch.equal(posterior_sample(mean, logvar, draw(5)), expected)


def test_posterior_sample_has_the_posterior_moments():
    mean, logvar = torch.tensor(1.5), torch.tensor(-1.0)
    noise = torch.randn(200_000, generator=torch.Generator().manual_seed(6))
    sample = posterior_sample(mean, logvar, noise)
    assert sample.mean().item() == pytest.approx(1.5, abs=0.01)
    assert sample.var().item() == pytest.approx(np.exp(-1.0), abs=0.01)
