"""How clips are cut, and the records that pass between sources, datasets and the encoding job."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch

from musicinfuser.clip_size import Bucket, ClipShape, ClipSize, named_shapes
from musicinfuser.media.audio import clip_audio_seconds
from musicinfuser.media.audio_decoding import Channel
from musicinfuser.media.colours import Decoding
from musicinfuser.media.decoding import TIME_LIMIT_SECONDS
from musicinfuser.media.errors import MediaError, printable, reason
from musicinfuser.media.video import CropBox, VideoInfo, aist_crop, centre_crop
from musicinfuser.setting_checks import check_choice, check_number

CropMode = Literal["aist", "centre"]
Split = Literal["train", "held_out"]
CROPS: dict[str, Callable[..., CropBox]] = {"aist": aist_crop, "centre": centre_crop}


@dataclass(frozen=True)
class CutSettings:
    """How clips are cut out of videos and read; the same for all sources of a cache.

    Attributes:
        num_frames: Frames per clip (authors' code: 73, the 2.5 s of section 5.1), where
            ``buckets`` names none.
        height: Height of the frames in pixels, where ``buckets`` is None.
        width: Width of the frames in pixels, where ``buckets`` is None.
        buckets: Heights and widths in place of the one size, e.g. ``[[480, 848], [848, 480]]``;
            each video takes the one whose aspect is nearest to its own. Frames may stand before
            them, ``[[73, 480, 848], [145, 480, 848]]``; of the lengths of its size each clip takes
            the longest that fits.
        fps: Frame rate of the clips.
        audio_channel: ``"mean"`` of all channels, or ``"first"`` as in the authors' code.
        decoding: ``"corrected"``, or ``"plain"`` as in the authors' code: untagged HD is read by
            BT.601, HDR as if it were SDR, and interlaced frames with both fields.
        seed: Seed of clip starts, caption templates and the choice of held-out videos.
        time_limit_seconds: When a file is given up, so that none can hold up the job: probing it,
            reading a clip's sound, reading its frames may take so long each.
    """

    num_frames: int = 73
    height: int = 480
    width: int = 848
    buckets: Sequence[Bucket] | None = None
    fps: float = 30.0
    audio_channel: Channel = "mean"
    decoding: Decoding = "corrected"
    seed: int = 42
    time_limit_seconds: float = TIME_LIMIT_SECONDS

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("num_frames", "height", "width", "fps", "time_limit_seconds"):
            check_number(name, getattr(self, name), above=0)
        check_choice("decoding", self.decoding, get_args(Decoding))
        check_choice("audio_channel", self.audio_channel, get_args(Channel))

    @property
    def shapes(self) -> tuple[ClipShape, ...]:
        """Frames, height and width of the clips there may be."""
        return named_shapes(self.num_frames, self.height, self.width, self.buckets)

    def lengths(self, size: ClipSize) -> dict[int, float]:
        """The frames that clips of a size may have, shortest first, and their seconds.

        The seconds are those of a clip's sound, and of the stretch that is cut: 2.5 for 73 frames
        at 30 per second.
        """
        frames = sorted(n for n, *own in self.shapes if tuple(own) == size)
        return {n: clip_audio_seconds(n, fps=self.fps) for n in frames}


def crop_box(info: VideoInfo, *, size: ClipSize, crop: str) -> CropBox:
    """The part of a video's frames that becomes a clip of a height and width in pixels."""
    return CROPS[crop](info.width, info.height, target_height=size[0], target_width=size[1])


@dataclass(frozen=True)
class SourceVideo:
    """What a source knows of a video, whatever clips are cut from it.

    Attributes:
        path: The video.
        clip_stem: Start of its clips' names: safe as a file name, unique within the source, and
            unchanged when other files are added to the folder.
        caption: Text of its clips.
        base_caption: The plain text that stands in for the caption in a part of the training steps.
        music: AIST music code such as ``"mBR0"``, or None where it is unknown or mixed.
        split: Whether its clips may be trained on.
        attributes: Everything else worth keeping, as text (genre, camera, dancers, ...).
    """

    path: Path
    clip_stem: str
    caption: str
    base_caption: str
    music: str | None = None
    split: Split = "train"
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NotSelected:
    """A video that a source leaves out by choice; ``criterion`` is such as ``"camera c02"``."""

    criterion: str


@dataclass(frozen=True, kw_only=True)
class ClipSpec(SourceVideo):
    """Where one clip of a video lies; nothing of it is decoded yet.

    Attributes:
        source: The data set the clip comes from.
        clip_id: Name of the clip: the video's ``clip_stem``, with a number if it has several.
        start_seconds: Start of the clip, counted from the first video frame.
        num_frames: Frames to read, at the frame rate of the dataset.
        height: Height of the frames in pixels.
        width: Width of the frames in pixels.
        crop: How the frame is cut to the target aspect.
    """

    source: str
    clip_id: str
    start_seconds: float
    num_frames: int
    height: int
    width: int
    crop: CropMode

    @property
    def shape(self) -> ClipShape:
        """Frames, height and width: the clip's bucket."""
        return self.num_frames, self.height, self.width

    @property
    def cut(self) -> dict[str, str]:
        """Where the clip was cut, as text for the header of what is made of it."""
        return {
            "file": printable(self.path),
            "start_seconds": f"{self.start_seconds:.6f}",
            "crop": self.crop,
        }


@dataclass(frozen=True, eq=False)
class RawClip:
    """A decoded clip.

    Attributes:
        spec: What the clip is. Its attributes may say more than before reading, for example
            ``audio_padded_seconds``.
        frames: uint8 RGB in [0, 255], shape (T, H, W, 3).
        waveform: float32 mono in [-1, 1] at the dataset's ``audio_rate_hz``, shape (S,).
        own_sound: First sample and number of those that belong to the clip, the others being
            around it; by default all do.
    """

    spec: ClipSpec
    frames: torch.Tensor
    waveform: torch.Tensor
    own_sound: tuple[int, int | None] = (0, None)


@dataclass(frozen=True)
class SkippedClip:
    """A file or clip that was left out.

    Attributes:
        source: The data set the file belongs to.
        path: The file.
        reason: A fixed phrase, a colon, then the particulars of this file; the phrase is what a
            summary counts by.
        clip_id: The clip, or None if the whole file was left out before it was cut.
    """

    source: str
    path: Path
    reason: str
    clip_id: str | None = None

    @classmethod
    def unreadable(
        cls, source: str, path: Path, error: MediaError | OSError, clip_id: str | None = None
    ) -> "SkippedClip":
        """Of a file that cannot be read; lists name it already, so the reason does not."""
        said = f"{reason(error)}." if isinstance(error, OSError) else str(error)
        particulars = said.removeprefix(f"{printable(path)}: ").removeprefix("cannot be read ")
        return cls(source, path, f"cannot be read: {particulars}", clip_id)
