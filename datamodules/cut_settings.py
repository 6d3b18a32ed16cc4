"""How clips are cut out of videos: one set of options for all datasets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from datamodules.clips import CropMode
from musicinfuser.clip_size import ClipSize, nearest_size
from musicinfuser.errors import UserError
from musicinfuser.media.audio import clip_audio_seconds
from musicinfuser.media.colours import Decoding
from musicinfuser.media.decoding import TIME_LIMIT_SECONDS
from musicinfuser.media.video import CropBox, VideoInfo, aist_crop, centre_crop

CROPS: dict[str, Callable[..., CropBox]] = {"aist": aist_crop, "centre": centre_crop}


@dataclass(frozen=True)
class CutSettings:
    """How clips are cut out of videos and read.

    Attributes:
        num_frames: Frames per clip; 73 in the authors' code.
        height: Height of the frames in pixels.
        width: Width of the frames in pixels.
        fps: Frame rate of the clips.
        crop: ``"aist"`` (the authors' box below the middle of the frame) or ``"centre"``. The
            authors' box is for AIST's wide pictures: of several buckets only wide ones get it.
        crops_per_minute: Clips per minute of video, rounded up per file (authors' code: 5).
        edge_margin: Part of the video at each end that no clip touches (authors' code: 0.05).
        audio_channel: ``"mean"`` of all channels, or ``"first"`` as in the authors' code.
        allow_upscaling: Keep videos whose cropped frame is smaller than the target.
        min_loudness_dbfs: Clips whose sound has a lower RMS level are left out; None keeps all.
        seed: Seed of every draw.
        buckets: Heights and widths to choose from by a video's aspect; None for the one size.
        decoding: ``"corrected"``, or ``"plain"`` as in the authors' code: untagged HD is read by
            BT.601, HDR as if it were SDR, and interlaced frames with both fields.
        time_limit_seconds: When a file is given up: probing it, reading a clip's sound, reading its
            frames may take so long each.
    """

    num_frames: int
    height: int
    width: int
    fps: float
    crop: CropMode
    crops_per_minute: float
    edge_margin: float
    audio_channel: Literal["mean", "first"]
    allow_upscaling: bool
    min_loudness_dbfs: float | None
    seed: int
    buckets: Sequence[ClipSize] | None = None
    decoding: Decoding = "corrected"
    time_limit_seconds: float = TIME_LIMIT_SECONDS

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant.

        Raises:
            ValueError: Naming the setting.
        """
        for name in (
            "num_frames", "height", "width", "fps", "crops_per_minute", "time_limit_seconds"
        ):  # fmt: skip
            if getattr(self, name) <= 0:
                raise UserError(f"{name} must be positive, not {getattr(self, name)}.")
        if not 0 <= self.edge_margin < 0.5:
            raise UserError(f"edge_margin must lie in [0, 0.5), not {self.edge_margin}.")
        if self.crop not in CROPS:
            raise UserError(f"crop must be 'aist' or 'centre', not {self.crop!r}.")
        if self.decoding not in ("corrected", "plain"):
            raise UserError(f"decoding must be 'corrected' or 'plain', not {self.decoding!r}.")
        if self.audio_channel not in ("mean", "first"):
            raise UserError(f"audio_channel must be 'mean' or 'first', not {self.audio_channel!r}.")

    @property
    def clip_seconds(self) -> float:
        """Length of a clip's sound, and of the stretch that is cut: 2.5 s for 73 frames at 30."""
        return clip_audio_seconds(self.num_frames, fps=self.fps)

    def size_and_crop(self, info: VideoInfo) -> tuple[ClipSize, CropMode]:
        """Height and width of a video's clips, and how its frames are cut to that aspect."""
        if self.buckets is None:
            return (self.height, self.width), self.crop
        height, width = nearest_size(info.width, info.height, self.buckets)
        return (height, width), self.crop if width > height else "centre"


def crop_box(info: VideoInfo, *, size: ClipSize, crop: CropMode) -> CropBox:
    """The part of a video's frames that becomes a clip of a height and width in pixels."""
    return CROPS[crop](info.width, info.height, target_height=size[0], target_width=size[1])
