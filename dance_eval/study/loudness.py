"""How loud music sounds, and music made as loud as other music."""

import math

import torch
from torch import Tensor

from musicinfuser.media.audio import filtered, fit_length

TARGET_LUFS = -23.0
"""EBU R 128."""

# The measure needs blocks of 0.4 s; shorter sounds are repeated until there are enough.
_MEASURED_SECONDS = 3.0
_SILENCE_LUFS = -70.0
_HIGHEST_PEAK = 0.99


def integrated_lufs(waveform: Tensor, *, rate_hz: int) -> float:
    """Integrated loudness after ITU-R BS.1770, by FFmpeg's ``ebur128`` filter.

    Args:
        waveform: float32 (S,), full scale 1. Less than 3 s are measured repeated end to end.
        rate_hz: Its sampling rate.

    Returns:
        LUFS of one channel (a full-scale sine of 1 kHz has -3); minus infinity where it is silent
        by the standard's gate of -70 LUFS.
    """
    if not waveform.numel():
        return -math.inf
    num_copies = math.ceil(_MEASURED_SECONDS * rate_hz / len(waveform))
    measured = _SILENCE_LUFS
    for frame in filtered(waveform.repeat(num_copies), rate_hz, ("ebur128", "metadata=1")):
        # The last frames are shorter than a block and carry no measure.
        text = frame.metadata.get("lavfi.r128.I")
        measured = measured if text is None else float(text)
    return measured if measured > _SILENCE_LUFS else -math.inf


def with_loudness(waveform: Tensor, *, rate_hz: int, target_lufs: float = TARGET_LUFS) -> Tensor:
    """The same sound at a given loudness.

    Args:
        waveform: float32 (S,), full scale 1.
        rate_hz: Its sampling rate.
        target_lufs: Integrated loudness of the result.

    Returns:
        float32 (S,). Silence stays silent, and where the highest peak would leave full scale, the
        result is as loud as the peak allows: it is never clipped.
    """
    measured = integrated_lufs(waveform, rate_hz=rate_hz)
    if math.isinf(measured):
        return waveform
    gain = 10 ** ((target_lufs - measured) / 20)
    peak = float(waveform.abs().max())
    return waveform * min(gain, _HIGHEST_PEAK / peak)


def likeness(first: Tensor, second: Tensor) -> float:
    """Correlation of two sounds at no delay, over the length of the shorter one; 0 for silence.

    Args:
        first: float32 (S,).
        second: float32 (S',) at the same rate.
    """
    num_samples = min(len(first), len(second))
    both = torch.stack([fit_length(sound, num_samples) for sound in (first, second)]).double()
    norms = both.norm(dim=1).prod()
    return float(both[0] @ both[1] / norms) if norms > 0 else 0.0
