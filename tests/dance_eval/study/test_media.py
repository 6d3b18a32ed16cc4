import math

import pytest
import torch

from dance_eval.study.media import integrated_lufs, likeness, with_loudness

RATE_HZ = 48000


def tone(seconds, *, hz=997.0, level=1.0):
    return level * torch.sin(2 * torch.pi * hz * torch.arange(round(seconds * RATE_HZ)) / RATE_HZ)


@pytest.mark.parametrize("seconds", [0.2, 0.43, 5.0])
@pytest.mark.parametrize("level", [0.9, 0.1])
def test_a_tone_of_1_khz_has_the_loudness_of_the_standard(seconds, level):
    """BS.1770: a 997 Hz sine at full scale in one channel measures -3.01 LKFS."""
    measured = integrated_lufs(tone(seconds, level=level), rate_hz=RATE_HZ)
    assert measured == pytest.approx(-3.01 + 20 * math.log10(level), abs=0.15)


def test_low_tones_count_less_than_high_ones():
    low = integrated_lufs(tone(3.0, hz=40.0), rate_hz=RATE_HZ)
    high = integrated_lufs(tone(3.0, hz=4000.0), rate_hz=RATE_HZ)
    assert high - low > 6


def test_pauses_do_not_count():
    """The relative gate leaves out what is more than 10 LU below the rest."""
    sound = tone(6.0, level=0.3)
    sound[3 * RATE_HZ :] *= 1e-3
    gated = integrated_lufs(sound, rate_hz=RATE_HZ)
    assert gated == pytest.approx(integrated_lufs(tone(3.0, level=0.3), rate_hz=RATE_HZ), abs=0.6)


def test_sounds_become_as_loud_as_asked_and_never_clip():
    for level in (0.02, 0.7):
        changed = with_loudness(tone(0.5, level=level), rate_hz=RATE_HZ)
        assert integrated_lufs(changed, rate_hz=RATE_HZ) == pytest.approx(-23.0, abs=0.1)
    spiky = torch.zeros(RATE_HZ)
    spiky[::4800] = 0.5
    assert float(with_loudness(spiky, rate_hz=RATE_HZ).abs().max()) == pytest.approx(0.99)


def test_silence_stays_silent():
    silence = torch.zeros(RATE_HZ)
    assert integrated_lufs(silence, rate_hz=RATE_HZ) == -math.inf
    assert integrated_lufs(torch.zeros(0), rate_hz=RATE_HZ) == -math.inf
    assert torch.equal(with_loudness(silence, rate_hz=RATE_HZ), silence)


def test_likeness():
    sound = tone(0.3)
    assert likeness(sound, 0.2 * sound[:5000]) == pytest.approx(1.0, abs=1e-6)
    assert abs(likeness(sound, tone(0.3, hz=1440.0))) < 0.1
    assert likeness(sound, torch.zeros(100)) == 0.0
