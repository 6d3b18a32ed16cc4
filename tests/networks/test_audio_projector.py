import numpy as np
import pytest
import torch

from musicinfuser.networks.audio_projector import AudioProjector

# floor(t * 124 / 13): the wav2vec 2.0 tokens that the 13 latent frames of 73 frames hear.
PICKS_AT_73_FRAMES = [0, 9, 19, 28, 38, 47, 57, 66, 76, 85, 95, 104, 114]


@pytest.fixture
def projector():
    torch.manual_seed(0)
    return AudioProjector(6, 10)


def project(projector, features):
    """Linear, x * sigmoid(x), Linear, written out in fp64."""
    first, _, second = projector.projection
    x = features.double().numpy()
    hidden = x @ first.weight.detach().double().numpy().T + first.bias.detach().double().numpy()
    hidden = hidden / (1 + np.exp(-hidden))
    return (
        hidden @ second.weight.detach().double().numpy().T + second.bias.detach().double().numpy()
    )


@pytest.mark.parametrize(("num_tokens", "num_frames"), [(124, 13), (244, 25), (5, 5), (3, 7)])
def test_projects_and_picks_the_nearest_token(projector, num_tokens, num_frames):
    features = torch.randn(2, num_tokens, 6, generator=torch.Generator().manual_seed(1))
    audio = projector(features, num_frames)
    assert audio.shape == (2, num_frames, 10)
    projected = project(projector, features)
    for b in range(2):
        for t in range(num_frames):
            expected = torch.from_numpy(projected[b, t * num_tokens // num_frames]).float()
            torch.testing.assert_close(audio[b, t], expected, rtol=1e-5, atol=1e-6)


def test_which_tokens_are_heard_at_73_frames(projector):
    """By the gradient: exactly these of the 124 tokens reach the output, none is averaged in."""
    features = torch.randn(1, 124, 6).requires_grad_()
    projector(features, 13).square().sum().backward()
    heard = features.grad.abs().amax(dim=(0, 2)).nonzero().flatten().tolist()
    assert heard == PICKS_AT_73_FRAMES
