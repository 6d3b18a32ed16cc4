import numpy as np
import pytest
import torch

from musicinfuser.clip_size import LatentTimes
from musicinfuser.errors import UserError
from musicinfuser.networks.audio_encoder import AudioTimes
from musicinfuser.networks.audio_projector import AudioProjector, resampling_weights

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


def test_centre_picks_the_token_in_the_middle_of_each_window() -> None:
    """At 73 frames: latent k shows frames 6k - 5 to 6k, in the middle at (6k - 2) / 30 s."""
    weights = resampling_weights("centre", 124, 13)
    picked = weights.argmax(dim=1).tolist()
    centre_ms = [20 * i + 12.5 for i in range(124)]
    middles = [500 / 30] + [(6 * k - 2) * 1000 / 30 for k in range(1, 13)]
    assert picked == [min(range(124), key=lambda i: abs(centre_ms[i] - m)) for m in middles]
    assert weights.sum(dim=1).eq(1).all() and weights.max() == 1


def test_average_takes_each_token_of_a_window_once() -> None:
    weights = resampling_weights("average", 124, 13)
    assert weights.sum(dim=1) == pytest.approx(1.0)
    owners = (weights > 0).sum(dim=0)
    assert owners.max() == 1
    # The clip lasts 73 / 30 s; tokens after that belong to no frame.
    assert (owners == 0).nonzero().flatten().tolist() == list(range(122, 124))
    counts = (weights > 0).sum(dim=1).tolist()
    assert counts[0] == 2 and set(counts[1:]) == {9, 10, 11} & set(counts[1:])
    assert sum(counts) == 122


def test_average_falls_back_where_sound_has_ended() -> None:
    weights = resampling_weights("average", 20, 13)
    assert weights[-1].argmax() == 19 and weights[-1].sum() == 1


@pytest.mark.parametrize("resampling", ["centre", "average"])
def test_resampling_weighs_projected_tokens(resampling: str) -> None:
    torch.manual_seed(0)
    projector = AudioProjector(8, 6, resampling)
    features = torch.randn(2, 124, 8)
    projected = projector.projection(features)
    weights = resampling_weights(resampling, 124, 13)
    expected = torch.stack(
        [sum(w * p for w, p in zip(row, projected[1], strict=True)) for row in weights]
    )
    torch.testing.assert_close(projector(features, 13)[1], expected)


def test_latent_frames_of_another_backbone_are_found_by_their_seconds() -> None:
    """16 frames per second, four to a latent frame: latent k shows frames 4k - 3 to 4k."""
    times, latents = AudioTimes(1 / 75, 0.02), LatentTimes(4, 1 / 16)
    picked = resampling_weights("centre", 300, 16, times, latents).argmax(dim=1).tolist()
    seconds = [n / 75 + 0.01 for n in range(300)]
    middles = [0.5 / 16] + [(4 * k - 1) / 16 for k in range(1, 16)]
    assert picked == [min(range(300), key=lambda i: abs(seconds[i] - m)) for m in middles]
    weights = resampling_weights("average", 300, 16, times, latents)
    for k, row in enumerate(weights):
        first, after = (0, 1) if k == 0 else (4 * k - 3, 4 * k + 1)
        inside = [i for i, s in enumerate(seconds) if first / 16 <= s < after / 16]
        assert row.nonzero().flatten().tolist() == inside
        assert row.sum().item() == pytest.approx(1.0)
    projector = AudioProjector(8, 6, "average")
    projector.times, projector.latent_times = times, latents
    features = torch.randn(1, 300, 8)
    expected = weights @ projector.projection(features)
    torch.testing.assert_close(projector(features, 16), expected)
    # The authors' way looks at no time at all.
    plain = AudioProjector(8, 6)
    before = plain(features, 16)
    plain.times, plain.latent_times = times, latents
    assert torch.equal(plain(features, 16), before)


def test_features_of_another_width_are_refused(projector) -> None:
    with pytest.raises(UserError, match=r"audio_width is 6, but .* have 41 channels; set it to 41"):
        projector(torch.zeros(1, 10, 41), 3)
