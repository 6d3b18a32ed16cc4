"""Whether an uploaded song can be danced to, said to the one who uploaded it."""

from pathlib import Path

from torch import Tensor

from musicinfuser.generation import OUTPUT_RATE_HZ
from musicinfuser.media.audio import SILENCE_DBFS, loudness_dbfs, read_audio, wav_bytes
from musicinfuser.media.errors import MediaError, printable

_RATE_HZ = 16_000
"""At which songs are read to look at their length and loudness."""
MAX_SONG_SECONDS = 15 * 60
"""A small file can hold hours of sound, which would fill the memory."""


def clock(seconds: float) -> str:
    """``3:05`` for 185 seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def song_seconds(path: str, *, start_seconds: float, span_seconds: float) -> float:
    """How long a song is, once it is clear that the asked part of it can be heard.

    Args:
        path: What was uploaded.
        start_seconds: Where the video begins in it.
        span_seconds: Length of the video.

    Raises:
        MediaError: It cannot be read, is too long, or has silence or nothing in that part.
    """
    name = printable(Path(path).name)
    if not 0 <= start_seconds < MAX_SONG_SECONDS:
        raise MediaError(f"the start is {start_seconds:g} s; give 0 or more.")
    sound = read_audio(path, rate_hz=_RATE_HZ, duration_seconds=MAX_SONG_SECONDS + 1.0)
    seconds = len(sound) / _RATE_HZ
    if seconds > MAX_SONG_SECONDS:
        raise MediaError(
            f"{name} is longer than {clock(MAX_SONG_SECONDS)}; cut the part you want out of it."
        )
    if start_seconds + span_seconds > seconds + 0.001:
        at_start = f" from {start_seconds:g} s on" if start_seconds else ""
        raise MediaError(
            f"{name} has {max(seconds - start_seconds, 0):.1f} s of sound{at_start}, but the video "
            f"is to last {span_seconds:.1f} s; "
            + ("start earlier or make it shorter." if start_seconds else "make it shorter.")
        )
    if loudness_dbfs(_cut(sound, start_seconds, span_seconds)) < SILENCE_DBFS:
        raise MediaError(
            f"{name} is silent from {start_seconds:g} s to {start_seconds + span_seconds:.1f} s; "
            "choose another start."
        )
    return seconds


def excerpt(path: str, *, start_seconds: float, span_seconds: float) -> bytes:
    """A wav file of what a video will sound like."""
    sound = read_audio(
        path,
        rate_hz=OUTPUT_RATE_HZ,
        start_seconds=start_seconds,
        duration_seconds=span_seconds,
    )
    return wav_bytes(sound, rate_hz=OUTPUT_RATE_HZ)


def _cut(sound: Tensor, start_seconds: float, span_seconds: float) -> Tensor:
    first = round(start_seconds * _RATE_HZ)
    return sound[first : first + round(span_seconds * _RATE_HZ)]
