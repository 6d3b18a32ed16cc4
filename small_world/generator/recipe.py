"""What a small world is made from."""

from dataclasses import dataclass

from musicinfuser.errors import UserError
from small_world.generator.music import NUM_BEATS

MIN_BEATS, MAX_BEATS = 2, NUM_BEATS - 4
MIN_HEIGHT_PX = 32
MAX_YOUTUBE_SECONDS = 20.0


@dataclass(frozen=True)
class SmallWorldRecipe:
    """Everything that decides the files of a small world.

    Attributes:
        seed: Seed of every draw.
        num_aist: Training recordings under AIST names, over all ten genres; most are solos seen
            from the front, some groups, some by the moving camera, some from other sides.
        num_held_out: Further AIST recordings (solo, front) to the ten held-out pieces of Table 7.
        num_youtube: Videos from the wild with sound.
        num_silent: Further videos from the wild whose sound is silence.
        num_without_audio: Further videos from the wild without a sound stream.
        with_variations: Also make a showcase and a cypher, whose names state no genre.
        basic_beats: Length of a basic or group dance in beats; 16 in AIST.
        advanced_beats: Length of an advanced or moving-camera dance in beats; 64 in AIST.
        aist_fps: Frame rate under AIST names; about 60 in AIST.
        youtube_seconds: Average length of a video from the wild.
        height: Rows of AIST recordings and shorter side of videos from the wild, even; the width is
            16:9.
        audio_rate_hz: Sample rate of all sound.
        audio_channels: 1 or 2.
    """

    seed: int = 0
    num_aist: int = 24
    num_held_out: int = 10
    num_youtube: int = 12
    num_silent: int = 1
    num_without_audio: int = 1
    with_variations: bool = False
    basic_beats: int = 16
    advanced_beats: int = 32
    aist_fps: float = 30.0
    youtube_seconds: float = 6.0
    height: int = 108
    audio_rate_hz: int = 24000
    audio_channels: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be made.

        Raises:
            ValueError: If a number is out of its range.
        """
        for name in ("num_aist", "num_held_out", "num_youtube", "num_silent", "num_without_audio"):
            if getattr(self, name) < 0:
                raise UserError(
                    f"{name} is {getattr(self, name)}; it counts files, so give 0 or more."
                )
        for name in ("basic_beats", "advanced_beats"):
            if not MIN_BEATS <= getattr(self, name) <= MAX_BEATS:
                raise UserError(
                    f"{name} is {getattr(self, name)}; give {MIN_BEATS} to {MAX_BEATS} beats."
                )
        if self.height % 2 or self.height < MIN_HEIGHT_PX:
            raise UserError(
                f"height is {self.height}; give an even number of at least {MIN_HEIGHT_PX} rows."
            )
        if not 1.0 <= self.youtube_seconds <= MAX_YOUTUBE_SECONDS:
            raise UserError(
                f"youtube_seconds is {self.youtube_seconds}; give 1 to {MAX_YOUTUBE_SECONDS:g}."
            )
        if self.audio_channels not in (1, 2):
            raise UserError(f"audio_channels is {self.audio_channels}; give 1 or 2.")
        if self.aist_fps <= 0 or self.audio_rate_hz < 8000:
            raise UserError("aist_fps must be positive and audio_rate_hz at least 8000.")

    @property
    def width(self) -> int:
        """Columns of AIST recordings: 16:9, even."""
        return even(self.height * 16 / 9)


def even(length: float) -> int:
    """The nearest even number, as video encoders want it."""
    return 2 * round(length / 2)
