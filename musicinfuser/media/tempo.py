"""Music slowed down or sped up (fig. 7), by resampling or with its pitch kept."""

from pathlib import Path
from typing import Literal

from torch import Tensor

from musicinfuser.errors import UserError
from musicinfuser.media.audio import filtered, fit_length, joined, read_audio, resampled, write_wav

TempoChange = Literal["resampling", "stretching"]
FACTORS = (0.5, 2.0)
"""Slowest and fastest; beyond, stretched music is no music any more."""
FILE_RATE_HZ = 44_100


def change_tempo(waveform: Tensor, *, rate_hz: int, factor: float, by: TempoChange) -> Tensor:
    """Play a sound ``factor`` times as fast.

    Args:
        waveform: float32 (S,), full scale 1.
        rate_hz: Its sampling rate, which is also that of the result.
        factor: Above 1 is faster.
        by: ``resampling`` as a record on another speed, which shifts the pitch by the same factor
            (fig. 7); ``stretching`` keeps the pitch (FFmpeg's atempo).

    Returns:
        float32 (round(S / factor),), finite.

    Raises:
        UserError: A factor out of `FACTORS`.
    """
    if not FACTORS[0] <= factor <= FACTORS[1]:
        raise UserError(
            f"a tempo of {factor} times is out of range; use {FACTORS[0]:g} to {FACTORS[1]:g}."
        )
    if factor == 1 or not len(waveform):
        return waveform.clone()
    if by == "resampling":
        # Labelled with another rate, and brought from there to its own.
        made = resampled(waveform, round(rate_hz * factor), rate_hz)
    else:
        mono = ("aformat", "sample_fmts=fltp:channel_layouts=mono")
        made = joined(filtered(waveform, rate_hz, ("atempo", f"{factor}"), mono))
    # Both filters may end a few samples early or late.
    return fit_length(made, round(len(waveform) / factor))


def write_at_tempo(source: Path | str, path: Path | str, *, factor: float, by: TempoChange) -> None:
    """Write the sound of a song or a video at another tempo as wav, whole or not at all.

    Raises:
        MediaError: The source cannot be read.
        UserError: As `change_tempo`.
    """
    waveform = read_audio(source, rate_hz=FILE_RATE_HZ)
    changed = change_tempo(waveform, rate_hz=FILE_RATE_HZ, factor=factor, by=by)
    write_wav(path, changed, rate_hz=FILE_RATE_HZ)
