"""The records that pass between a dataset of clips and the job that encodes them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from musicinfuser.media.errors import MediaError, printable, reason

Source = Literal["aist", "youtube"]
CropMode = Literal["aist", "centre"]
Split = Literal["train", "held_out"]


@dataclass(frozen=True)
class ClipSpec:
    """Where one clip lies and what is said about it; nothing of it is decoded yet.

    Attributes:
        source: The data set the clip comes from.
        clip_id: Name of the clip: safe as a file name, unique within the source, and unchanged when
            other files are added to the folder.
        path: The video file.
        start_seconds: Start of the clip, counted from the first video frame.
        num_frames: Frames to read, at the frame rate of the dataset.
        height: Height of the frames in pixels.
        width: Width of the frames in pixels.
        crop: How the frame is cut to the target aspect.
        caption: The text of this clip.
        base_caption: The plain text that stands in for the caption in a part of the training steps.
        music: AIST music code such as ``"mBR0"``, or None where it is unknown or mixed.
        split: Whether the clip may be trained on.
        attributes: Everything else worth keeping, as text (genre, camera, dancers, ...).
    """

    source: Source
    clip_id: str
    path: Path
    start_seconds: float
    num_frames: int
    height: int
    width: int
    crop: CropMode
    caption: str
    base_caption: str
    music: str | None
    split: Split
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class RawClip:
    """A decoded clip.

    Attributes:
        spec: What the clip is. Its attributes may say more than before reading, for example
            ``audio_padded_seconds``.
        frames: uint8 RGB in [0, 255], shape (T, H, W, 3).
        waveform: float32 mono in [-1, 1] at 16 kHz, shape (S,).
    """

    spec: ClipSpec
    frames: torch.Tensor
    waveform: torch.Tensor


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

    source: Source
    path: Path
    reason: str
    clip_id: str | None = None

    @classmethod
    def unreadable(
        cls,
        source: Source,
        path: Path,
        error: MediaError | OSError,
        clip_id: str | None = None,
    ) -> "SkippedClip":
        """Of a file that cannot be read; lists name it already, so the reason does not."""
        said = f"{reason(error)}." if isinstance(error, OSError) else str(error)
        particulars = said.removeprefix(f"{printable(path)}: ")
        particulars = particulars.removeprefix("cannot be read ")
        return cls(source, path, f"cannot be read: {particulars}", clip_id)
