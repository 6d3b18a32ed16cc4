"""Music slowed down or sped up (fig. 7), by resampling or with its pitch kept."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from musicinfuser.errors import UserError
from musicinfuser.media.audio import fit_length, read_audio, write_wav

if TYPE_CHECKING:
    from av import AudioFrame
    from av.filter import Graph

TempoChange = Literal["resampling", "stretching"]
FACTORS = (0.5, 2.0)
"""Slowest and fastest; beyond, stretched music is no music any more."""
FILE_RATE_HZ = 44_100
_BLOCK = 1 << 16


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
        ValueError: A factor out of `FACTORS`.
    """
    import av

    if not FACTORS[0] <= factor <= FACTORS[1]:
        raise UserError(
            f"a tempo of {factor} times is out of range; use {FACTORS[0]:g} to {FACTORS[1]:g}."
        )
    if factor == 1 or not len(waveform):
        return waveform.clone()
    if by == "resampling":
        # Said to be slower or faster than it is, and brought to its own rate from there.
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate_hz)
        played_hz = round(rate_hz * factor)
        made = [f for frame in _frames(waveform, played_hz) for f in resampler.resample(frame)]
        made += resampler.resample(None)
    else:
        made = list(_stretched(waveform, rate_hz, factor))
    pieces = [torch.zeros(0), *(torch.from_numpy(frame.to_ndarray()[0].copy()) for frame in made)]
    # Both filters may end a few samples early or late.
    return fit_length(torch.cat(pieces), round(len(waveform) / factor))


def write_at_tempo(source: Path | str, path: Path | str, *, factor: float, by: TempoChange) -> None:
    """Write the sound of a song or a video at another tempo as wav, whole or not at all.

    Raises:
        MediaError: The source cannot be read.
        ValueError: As `change_tempo`.
    """
    waveform = read_audio(source, rate_hz=FILE_RATE_HZ)
    changed = change_tempo(waveform, rate_hz=FILE_RATE_HZ, factor=factor, by=by)
    write_wav(path, changed, rate_hz=FILE_RATE_HZ)


def _frames(waveform: Tensor, rate_hz: int) -> Iterator["AudioFrame"]:
    import av

    for start in range(0, len(waveform), _BLOCK):
        block = waveform[None, start : start + _BLOCK].contiguous().numpy()
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), start
        yield frame


def _stretched(waveform: Tensor, rate_hz: int, factor: float) -> Iterator["AudioFrame"]:
    import av

    graph = av.filter.Graph()
    source = graph.add_abuffer(
        sample_rate=rate_hz, format="fltp", layout="mono", time_base=Fraction(1, rate_hz)
    )
    stretch, same, sink = (
        graph.add("atempo", f"{factor}"),
        graph.add("aformat", "sample_fmts=fltp:channel_layouts=mono"),
        graph.add("abuffersink"),
    )
    graph.link_nodes(source, stretch, same, sink).configure()
    for frame in _frames(waveform, rate_hz):
        graph.push(frame)
        yield from _ready(graph)
    graph.push(None)
    yield from _ready(graph)


def _ready(graph: "Graph") -> Iterator["AudioFrame"]:
    import av

    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        yield frame  # type: ignore[misc]
