"""Music at another tempo: how long it gets, what happens to its pitch, where its beats are."""

from pathlib import Path

import pytest
import torch

from musicinfuser.media.audio import read_audio, write_wav
from musicinfuser.media.tempo import change_tempo, write_at_tempo

RATE_HZ = 16_000


def beats(seconds: float = 4.0) -> torch.Tensor:
    """A tone of 500 Hz for 0.1 s every half second."""
    time = torch.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return 0.4 * torch.sin(2 * torch.pi * 500 * time) * (time % 0.5 < 0.1)


def pitch_hz(waveform: torch.Tensor) -> float:
    return torch.fft.rfft(waveform).abs().argmax().item() * RATE_HZ / len(waveform)


def period_seconds(waveform: torch.Tensor) -> float:
    """From the envelope's first peak of autocorrelation."""
    envelope = waveform.abs().unfold(0, 160, 160).mean(1)
    spectrum = torch.fft.rfft(envelope - envelope.mean(), 2 * len(envelope))
    correlation = torch.fft.irfft(spectrum.abs() ** 2)[: len(envelope) // 2]
    return (20 + correlation[20:].argmax().item()) * 0.01


@pytest.mark.parametrize("factor", [0.75, 1.25])
@pytest.mark.parametrize("by", ["resampling", "stretching"])
def test_tempo_and_pitch(by: str, factor: float) -> None:
    played = change_tempo(beats(), rate_hz=RATE_HZ, factor=factor, by=by)
    assert len(played) == round(len(beats()) / factor)
    assert period_seconds(played) == pytest.approx(0.5 / factor, abs=0.011)
    expected_hz = 500 * factor if by == "resampling" else 500
    assert pitch_hz(played) == pytest.approx(expected_hz, rel=0.03)


def test_no_change_and_no_sound() -> None:
    sound = beats(1.0)
    assert torch.equal(change_tempo(sound, rate_hz=RATE_HZ, factor=1, by="stretching"), sound)
    assert len(change_tempo(sound[:0], rate_hz=RATE_HZ, factor=0.75, by="resampling")) == 0
    with pytest.raises(ValueError, match="a tempo of 3 times is out of range; use 0.5 to 2"):
        change_tempo(sound, rate_hz=RATE_HZ, factor=3, by="resampling")


def test_a_file_at_another_tempo(tmp_path: Path) -> None:
    write_wav(tmp_path / "song.wav", beats(), rate_hz=RATE_HZ)
    write_at_tempo(tmp_path / "song.wav", tmp_path / "x" / "slow.wav", factor=0.75, by="resampling")
    sound = read_audio(tmp_path / "x" / "slow.wav", rate_hz=RATE_HZ)
    assert len(sound) / RATE_HZ == pytest.approx(4 / 0.75, abs=0.001)
    assert pitch_hz(sound) == pytest.approx(375, rel=0.03)
