"""The 35 channels of rhythm, timbre and harmony."""

import numpy as np
import pytest
import torch

from musicinfuser.networks.rhythm import Rhythm

CPU = torch.device("cpu")
RATE_HZ = 16_000
HALF_A_HOP = 0.01
ENVELOPE, FIRST_MFCC, CHROMA, ONSETS, BEATS = 0, 1, slice(21, 33), 33, 34
pytestmark = pytest.mark.slow  # librosa compiles itself on first use


def clicks(times: list[float], *, seconds: float) -> torch.Tensor:
    """Bursts of noise that fade within 50 ms."""
    sound = torch.zeros(round(RATE_HZ * seconds))
    fading = torch.arange(800) / RATE_HZ
    burst = torch.randn(800, generator=torch.Generator().manual_seed(1)) * torch.exp(-60 * fading)
    for time in times:
        first = round(time * RATE_HZ)
        piece = sound[first : first + 800]
        piece += 0.3 * burst[: len(piece)]
    return sound


def centres(encoder: Rhythm, num: int) -> np.ndarray:
    times = encoder.times
    return np.arange(num) * times.hop_seconds + times.window_seconds / 2


@pytest.mark.parametrize("later_ms", [0, 3, 7, 11, 14, 18])
def test_clicks_are_seen_when_they_sound(later_ms: int) -> None:
    played = [0.3 + later_ms / 1000 + 0.5 * k for k in range(5)]
    encoder = Rhythm()
    [features] = encoder.encode(clicks(played, seconds=2.5)[None], device=CPU)
    assert features.shape == (encoder.num_features(40_000), 35) == (121, 35)
    assert features.dtype == torch.float32
    seconds = centres(encoder, len(features))
    onsets, beats = (seconds[features[:, n].numpy() == 1] for n in (ONSETS, BEATS))
    assert onsets == pytest.approx(played, abs=HALF_A_HOP + 1e-6)
    # The tracker smooths, and may choose the neighbour of a click between two features; what
    # comes before the first beat or after the last it has to guess.
    for time in played[1:-1]:
        assert np.abs(beats - time).min() <= 2 * HALF_A_HOP + 1e-6
    assert len(beats) in (5, 6)
    assert features[:, [ONSETS, BEATS]].unique().tolist() == [0, 1]
    loudest = features[:, ENVELOPE].topk(5).indices.sort().values
    assert seconds[loudest] == pytest.approx(played, abs=2 * HALF_A_HOP + 1e-6)


def test_silence_is_zero() -> None:
    features = Rhythm().encode(torch.zeros(2, RATE_HZ), device=CPU)
    assert features.shape == (2, 46, 35) and not features.any()
    assert Rhythm().encode(torch.zeros(1, 1_599), device=CPU).shape == (1, 0, 35)
    assert Rhythm().encode(torch.zeros(1, 1_600), device=CPU).shape == (1, 1, 35)


def test_what_the_channels_hear() -> None:
    seconds = torch.arange(2 * RATE_HZ) / RATE_HZ
    quiet, loud, higher = (
        volume * torch.sin(2 * torch.pi * hertz * seconds)
        for volume, hertz in ((0.02, 440), (0.2, 440), (0.2, 440 * 2 ** (7 / 12)))
    )
    found = Rhythm().encode(torch.stack([quiet, loud, higher]), device=CPU)
    assert (found[1, :, FIRST_MFCC] > found[0, :, FIRST_MFCC]).all()
    # A is the tenth of the twelve from C on, E lies seven above.
    pitches = found[:, :, CHROMA].mean(dim=1).argmax(dim=1)
    assert pitches.tolist() == [9, 9, 4]
    assert found[:, :, CHROMA].amax(dim=-1) == pytest.approx(1.0)
    # Of sound that lasts, each moment is the same wherever an excerpt starts.
    [later] = Rhythm().encode(loud[None, 3_200:], device=CPU)
    torch.testing.assert_close(later[5:, 1:33], found[1, 15:, 1:33])
    assert found.abs().max() < 8


def test_a_sound_does_not_depend_on_its_neighbours() -> None:
    sounds = torch.stack([clicks([t, t + 0.7], seconds=1.5) for t in (0.2, 0.41)])
    together = Rhythm().encode(sounds, device=CPU)
    for sound, features in zip(sounds, together, strict=True):
        assert torch.equal(Rhythm().encode(sound[None], device=CPU)[0], features)
