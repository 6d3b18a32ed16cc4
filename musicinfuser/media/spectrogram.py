"""Loudness of a sound over time and frequency, for the eye."""

import math

import torch
from torch import Tensor
from torch.nn import functional

_DYNAMIC_RANGE_DB = 65.0
# Tracks whose loudest partial is below this are drawn dark, instead of their noise as bright.
_QUIETEST_PEAK_DB = -50.0
# Black over violet and orange to pale yellow: even in brightness, legible without colour.
_HEAT = ((4, 3, 18), (66, 15, 117), (148, 41, 128), (221, 81, 94), (252, 157, 105), (252, 253, 191))


def spectrogram(waveform: Tensor, rate_hz: int, *, num_bands: int, num_steps: int) -> Tensor:
    """Loudness over time and mel-spaced frequency, for the eye.

    Args:
        waveform: Float (S,).
        rate_hz: Sampling rate.
        num_bands: Frequencies from half the sampling rate (at most 8 kHz) down to 0.
        num_steps: Time steps, evenly over the waveform.

    Returns:
        float32 (num_bands, num_steps) in [0, 1], highest frequency first: 1 is the loudest point
        (or a sine of -50 dB full scale, if that is louder), 0 everything 65 dB or more below.
    """
    window = 1 << max(5, round(math.log2(0.03 * rate_hz)))
    hop = max(1, min(window // 4, len(waveform) // num_steps))
    signal, half = waveform.detach().cpu().float()[None], window // 2
    # Zeros at the ends would sound like clicks there; very short signals cannot be mirrored.
    mode = "reflect" if signal.shape[1] > half else "constant"
    hann = torch.hann_window(window)
    spectrum = torch.stft(
        functional.pad(signal, (half, half), mode=mode)[0],
        window,
        hop_length=hop,
        window=hann,
        center=False,
        return_complex=True,
    )
    decibel = 20 * torch.log10(spectrum.abs() * 2 / hann.sum() + 1e-7)
    top_hz = min(8000.0, rate_hz / 2)
    mel = torch.linspace(2595 * math.log10(1 + top_hz / 700), 0, num_bands)
    rows = (700 * (10 ** (mel / 2595) - 1) / (rate_hz / window)).clamp(0, half)
    low = rows.long().clamp(max=half - 1)
    weight = (rows - low)[:, None]
    bands = decibel[low] * (1 - weight) + decibel[low + 1] * weight
    bands = functional.interpolate(bands[None], num_steps, mode="linear", align_corners=True)[0]
    peak = bands.max().clamp(min=_QUIETEST_PEAK_DB)
    return ((bands - peak) / _DYNAMIC_RANGE_DB + 1).clamp(0, 1)


def coloured_spectrogram(
    waveform: Tensor, rate_hz: int, *, num_bands: int, num_steps: int
) -> Tensor:
    """`spectrogram` as a picture.

    Args:
        waveform: Float (S,).
        rate_hz: Sampling rate.
        num_bands: Height of the picture.
        num_steps: Its width.

    Returns:
        uint8 (num_bands, num_steps, 3), RGB.
    """
    level = spectrogram(waveform, rate_hz, num_bands=num_bands, num_steps=num_steps)
    colours = torch.tensor(_HEAT, dtype=torch.float32)
    position = level * (len(colours) - 1)
    low = position.long().clamp(max=len(colours) - 2)
    weight = (position - low)[..., None]
    return (colours[low] * (1 - weight) + colours[low + 1] * weight).round().to(torch.uint8)
