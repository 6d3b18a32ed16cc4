"""Changes of sound as between a dry mix and what listeners get: rooms, tone, level, noise."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Draw = np.random.Generator

SHARES = {
    "tone": 0.7,
    "room": 0.4,
    "level": 0.4,
    "drive": 0.3,
    "band": 0.15,
    "notch": 0.25,
    "noise": 0.4,
}
"""How often each change is made; each is drawn by itself."""


def change_sound(waveform: Array, rate_hz: int, draw: Draw) -> Array:
    """A changed copy, as long as before and in time with it, peak 0.9.

    Args:
        waveform: ``(S,)``.
        rate_hz: Sample rate.
        draw: What decides.
    """
    changes = {
        "room": _room, "tone": _tone, "level": _level, "drive": _drive, "band": _band,
        "notch": _notch, "noise": _noise,
    }  # fmt: skip
    sound = waveform.astype(np.float32)
    for name, change in changes.items():
        if draw.random() < SHARES[name]:
            sound = change(sound, rate_hz, draw)
    return (0.9 / max(float(np.abs(sound).max()), 1e-6) * sound).astype(np.float32)


def _tone(sound: Array, rate_hz: int, draw: Draw) -> Array:
    """An equaliser: a smooth curve of up to 12 dB either way."""
    return _filter(sound, rate_hz, [60, 250, 1000, 3000, 7500], list(draw.uniform(-12, 12, 5)))


def _band(sound: Array, rate_hz: int, draw: Draw) -> Array:
    """A small loudspeaker, or a muffled one: nothing below, or nothing above."""
    low, high = (
        (draw.uniform(100, 400), 8000.0)
        if draw.random() < 0.5
        else (20.0, draw.uniform(1500, 5000))
    )
    return _filter(sound, rate_hz, [low / 2, low, high, 1.5 * high], [-50, 0, 0, -50])


def _notch(sound: Array, rate_hz: int, draw: Draw) -> Array:
    """One to two octaves are 20 dB softer: beats must be told from the others."""
    low = float(np.exp(draw.uniform(np.log(40), np.log(3000))))
    high = low * 2 ** draw.uniform(1, 2)
    return _filter(sound, rate_hz, [low / 1.2, low, high, high * 1.2], [0, -20, -20, 0])


def _room(sound: Array, rate_hz: int, draw: Draw) -> Array:
    """Reverberation of 0.2 to 1.2 s, from a tenth to half as loud as the direct sound."""
    seconds = draw.uniform(0.2, 1.2)
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    tail = draw.standard_normal(len(time)) * np.exp(-6.9 * time / seconds)
    tail /= np.sqrt(np.square(tail).sum())
    size = 1 << (len(sound) + len(tail)).bit_length()
    wet = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)[: len(sound)]
    return (sound + draw.uniform(0.1, 0.5) * wet).astype(np.float32)


def _level(sound: Array, rate_hz: int, draw: Draw) -> Array:
    """A compressor: loud parts by up to three fifths less, over 10 to 80 ms."""
    half = max(1, round(draw.uniform(0.005, 0.04) * rate_hz))
    total = np.concatenate([[0.0], np.cumsum(np.square(sound), dtype=np.float64)])
    at = np.arange(len(sound))
    first, last = np.maximum(at - half, 0), np.minimum(at + half, len(sound))
    loud = np.sqrt((total[last] - total[first]) / (last - first)) + 0.01
    return (sound * loud ** -draw.uniform(0.1, 0.6)).astype(np.float32)


def _drive(sound: Array, rate_hz: int, draw: Draw) -> Array:
    """Overdriven, as loud records are."""
    return np.tanh(draw.uniform(1, 5) * sound / max(float(np.abs(sound).max()), 1e-6))


def _noise(sound: Array, rate_hz: int, draw: Draw) -> Array:
    """Noise 10 to 40 dB below the sound, white or falling by up to 6 dB per octave."""
    spectrum = np.fft.rfft(draw.standard_normal(len(sound)))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1.0) ** draw.uniform(0, 1)
    noise = np.fft.irfft(spectrum, len(sound))
    gain = 10 ** (-draw.uniform(10, 40) / 20) * sound.std() / max(float(noise.std()), 1e-9)
    return (sound + gain * noise).astype(np.float32)


def _filter(sound: Array, rate_hz: int, hertz: list[float], decibels: list[float]) -> Array:
    bins = np.maximum(np.fft.rfftfreq(len(sound), 1 / rate_hz), 1.0)
    gains = 10 ** (np.interp(np.log(bins), np.log(hertz), decibels) / 20)
    return np.fft.irfft(np.fft.rfft(sound) * gains, len(sound)).astype(np.float32)
