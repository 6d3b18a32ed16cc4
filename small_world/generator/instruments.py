"""The sounds a made-up piece is played with."""

import functools
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Tone = Literal[
    "round", "square", "slap", "sub", "saw", "organ", "guitar", "piano", "strings", "brass",
    "laser", "bell", "flute",
]  # fmt: skip

# Per tone: partials as (multiple of the pitch, gain), attack and decay time constants in seconds
# (a decay of 0 holds the note to its end), and extra gain.
_ODD = tuple((float(n), 1.0 / n) for n in range(1, 16, 2))
_ALL = tuple((float(n), 1.0 / n) for n in range(1, 16))
_TONES: dict[str, tuple[tuple[tuple[float, float], ...], float, float, float]] = {
    "round": (((1, 1.0), (2, 0.35), (3, 0.1)), 0.004, 0.35, 1.0),
    "square": (_ODD, 0.002, 0.0, 0.55),
    "slap": (((1, 1.0), (2, 0.7), (3, 0.5), (5, 0.35), (7, 0.2)), 0.002, 0.14, 0.9),
    "sub": (((1, 1.0), (2, 0.12)), 0.006, 0.6, 1.2),
    "saw": (_ALL, 0.004, 0.0, 0.5),
    "organ": (((1, 0.8), (2, 0.7), (3, 0.3), (4, 0.4), (8, 0.2)), 0.008, 0.0, 0.5),
    "guitar": (((1, 0.6), (2, 0.8), (3, 0.6), (4, 0.5), (6, 0.3), (9, 0.2)), 0.002, 0.06, 0.9),
    "piano": (((1, 1.0), (2, 0.45), (3, 0.3), (4, 0.15), (5.02, 0.08)), 0.003, 0.5, 0.7),
    "strings": (
        tuple((m * d, 0.5 / m) for m in range(1, 9) for d in (0.996, 1.004)), 0.05, 0.0, 0.45,
    ),
    "brass": (tuple((float(n), 0.9 / n**0.7) for n in range(1, 10)), 0.02, 0.0, 0.35),
    "laser": (((1, 1.0), (2.76, 0.5), (5.4, 0.25)), 0.002, 0.12, 0.8),
    "bell": (((1, 1.0), (2.0, 0.3), (3.01, 0.4), (4.2, 0.25)), 0.002, 0.4, 0.7),
    "flute": (((1, 1.0), (2, 0.18), (3, 0.05)), 0.03, 0.0, 0.8),
}  # fmt: skip


class Instruments:
    """Makes single notes and drum hits, float32 of shape (S,), peak about 1; each is made once.

    Args:
        rate_hz: Sample rate; partials above 45 % of it are left out.
        noise_seed: Seed of the noise in drums.
    """

    def __init__(self, rate_hz: int, *, noise_seed: int) -> None:
        self.rate_hz = rate_hz
        self._noise_seed = noise_seed
        self.tone = functools.cache(self._tone)
        self.hat = functools.cache(self._hat)
        self.kick = functools.cache(self._kick)

    def _time(self, seconds: float) -> Array:
        return (np.arange(round(seconds * self.rate_hz)) / self.rate_hz).astype(np.float32)

    def _noise(self, num_samples: int) -> Array:
        draw = np.random.default_rng(self._noise_seed)
        return draw.standard_normal(num_samples).astype(np.float32) * 0.5

    def _tone(self, tone: Tone, note: int, seconds: float) -> Array:
        """A note by MIDI number (69 is 440 Hz); it fades out over its last 20 ms."""
        partials, attack, decay, gain = _TONES[tone]
        pitch_hz = 440.0 * 2.0 ** ((note - 69) / 12)
        time = self._time(seconds + 0.02)
        wave = np.zeros_like(time)
        for multiple, partial_gain in partials:
            if multiple * pitch_hz < 0.45 * self.rate_hz:
                wave += partial_gain * np.sin(2 * np.pi * multiple * pitch_hz * time)
        envelope = 1 - np.exp(-time / attack)
        if decay:
            envelope *= np.exp(-time / decay)
        envelope *= np.clip((time[-1] - time) / 0.02, 0, 1)
        return (gain * envelope * wave).astype(np.float32)

    def _kick(self, pitch_hz: float) -> Array:
        time = self._time(0.32)
        phase = pitch_hz * time + 3.5 * pitch_hz * 0.03 * (1 - np.exp(-time / 0.03))
        body = np.sin(2 * np.pi * phase) * np.exp(-time / 0.11)
        click = self._noise(len(time)) * np.exp(-time / 0.003)
        return (body + 0.4 * click).astype(np.float32)

    def snare(self, pitch_hz: float) -> Array:
        """A drum tone under a burst of noise."""
        time = self._time(0.22)
        body = np.sin(2 * np.pi * pitch_hz * time) * np.exp(-time / 0.05)
        rattle = np.diff(self._noise(len(time)), prepend=np.float32(0))
        return (0.5 * body + 0.9 * rattle * np.exp(-time / 0.07)).astype(np.float32)

    def clap(self) -> Array:
        """Three quick bursts of noise, then a short tail."""
        time = self._time(0.2)
        noise = self._noise(len(time))
        noise = noise - np.convolve(noise, np.full(12, 1 / 12, np.float32), mode="same")
        bursts = sum(
            np.where(time >= start, np.exp(-np.maximum(time - start, 0) / decay), 0.0)
            for start, decay in ((0.0, 0.006), (0.009, 0.006), (0.018, 0.06))
        )
        return (0.8 * noise * bursts).astype(np.float32)

    def _hat(self, decay_seconds: float) -> Array:
        time = self._time(min(5 * decay_seconds, 1.5))
        bright = np.diff(self._noise(len(time)), n=2, prepend=np.zeros(2, np.float32))
        return (0.6 * bright * np.exp(-time / decay_seconds)).astype(np.float32)
