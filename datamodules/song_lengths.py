"""How many frames a clip has that is asked for in seconds."""

import math
from functools import lru_cache

from lightning.pytorch.utilities import rank_zero_info

from musicinfuser.clip_size import frames_within
from musicinfuser.errors import UserError
from musicinfuser.media.audio import clip_audio_seconds, read_audio

_RATE_HZ = 16_000


def check_num_seconds(num_seconds: float) -> None:
    """Refuse what is no length.

    Raises:
        ValueError: Not above 0.
    """
    if not num_seconds > 0:
        raise UserError(
            f"data.generation.num_seconds is {num_seconds}; give seconds, or .inf for all of each "
            "track."
        )


def frames_of(
    track: str, *, num_seconds: float, start_seconds: float | None, fps: float = 30.0
) -> int:
    """The most frames, 6k + 1, that last at most so long and end with their music.

    Args:
        track: An audio file or a video.
        num_seconds: Seconds asked for, above 0; infinite for all there are.
        start_seconds: Where the clip starts in its track; None if that is yet to be drawn, which
            leaves room for it.
        fps: Frame rate of the clip.

    Raises:
        MediaError: The track cannot be read.
    """
    # A model hears a little more than a clip's length; it should not hear silence.
    beyond = clip_audio_seconds(1, fps=fps) - 1 / fps
    left = _seconds(track) - (start_seconds or 0.0) - beyond
    num_frames = frames_within(min(num_seconds, left), fps=fps)
    if left < num_seconds < math.inf:
        rank_zero_info(
            f"{track} ends before {num_seconds:g} s are over; its clip lasts "
            f"{num_frames / fps:.2f} s."
        )
    return num_frames


@lru_cache
def _seconds(track: str) -> float:
    return len(read_audio(track, rate_hz=_RATE_HZ)) / _RATE_HZ
