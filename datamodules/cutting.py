"""Cutting long dance videos into short clips, and reading one clip: what all datasets share."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from datamodules.clips import ClipSpec, CropMode, RawClip, SkippedClip, Source, Split
from musicinfuser import keyed_random
from musicinfuser.media.audio import clip_audio_seconds, fit_length, loudness_dbfs, read_audio
from musicinfuser.media.errors import MediaError
from musicinfuser.media.video import (
    CropBox,
    VideoInfo,
    aist_crop,
    centre_crop,
    probe_video,
    read_clip,
)

AUDIO_RATE_HZ = 16000
NUM_PROBE_THREADS = 8
MIN_FILES_FOR_PROGRESS_BAR = 51
AUDIO_ROUNDING_SECONDS = 0.002
CROPS: dict[str, Callable[..., CropBox]] = {"aist": aist_crop, "centre": centre_crop}


@dataclass(frozen=True)
class CutSettings:
    """How clips are cut out of videos and read.

    Attributes:
        num_frames: Frames per clip; 73 in the authors' code.
        height: Height of the frames in pixels.
        width: Width of the frames in pixels.
        fps: Frame rate of the clips.
        crop: ``"aist"`` (the authors' box below the middle of the frame) or ``"centre"``.
        crops_per_minute: Clips per minute of video, rounded up per file (authors' code: 5).
        edge_margin: Part of the video at each end that no clip touches (authors' code: 0.05).
        audio_channel: ``"mean"`` of all channels, or ``"first"`` as in the authors' code.
        allow_upscaling: Keep videos whose cropped frame is smaller than the target.
        min_loudness_dbfs: Clips whose sound has a lower RMS level are left out; None keeps all.
        seed: Seed of every draw.
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

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant.

        Raises:
            ValueError: Naming the setting.
        """
        for name in ("num_frames", "height", "width", "fps", "crops_per_minute"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}.")
        if not 0 <= self.edge_margin < 0.5:
            raise ValueError(f"edge_margin must lie in [0, 0.5), not {self.edge_margin}.")
        if self.crop not in CROPS:
            raise ValueError(f"crop must be 'aist' or 'centre', not {self.crop!r}.")
        if self.audio_channel not in ("mean", "first"):
            raise ValueError(
                f"audio_channel must be 'mean' or 'first', not {self.audio_channel!r}."
            )

    @property
    def clip_seconds(self) -> float:
        """Length of a clip's sound, and of the stretch that is cut: 2.5 s for 73 frames at 30."""
        return clip_audio_seconds(self.num_frames, fps=self.fps)


@dataclass(frozen=True)
class SourceVideo:
    """A video to be cut: the parts of its clips' specs that do not depend on the cut."""

    path: Path
    clip_stem: str
    base_caption: str
    music: str | None
    split: Split
    attributes: dict[str, str]


class ClipDataset(Dataset[RawClip | SkippedClip]):
    """Clips of a folder of videos.

    Building it probes every file once and decides all clips; indexing decodes one of them.

    Attributes:
        clips: All clips, in a fixed order.
        skipped: Files left out because nothing can be cut from them.
        num_not_selected: Files left out by choice, counted by what excluded them.
    """

    source: Source

    def __init__(
        self,
        videos: Sequence[SourceVideo],
        *,
        settings: CutSettings,
        caption_of: Callable[[SourceVideo, str], str],
    ) -> None:
        """Probe the videos and decide their clips; ``caption_of`` gets a video and a clip id."""
        self.settings = settings
        self.clips: list[ClipSpec] = []
        self.skipped: list[SkippedClip] = []
        self.num_not_selected: dict[str, int] = {}
        self._infos: dict[Path, VideoInfo] = {}
        usable: dict[str, Path] = {}
        for video, info in zip(videos, _probe_all([video.path for video in videos]), strict=True):
            if isinstance(info, MediaError):
                reason: str | None = f"cannot be read: {info}"
            elif video.clip_stem in usable:
                reason = f"same name as another file: {usable[video.clip_stem]}"
            else:
                reason = self._reason_to_skip(info)
                if reason is None:
                    usable[video.clip_stem] = video.path
                    self._infos[video.path] = info
                    self.clips += self._cut(video, info, caption_of)
            if reason is not None:
                self.skipped.append(SkippedClip(self.source, video.path, reason))

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> RawClip | SkippedClip:
        """Decode a clip.

        Returns:
            The clip, with ceil(16000 * seconds) samples of sound; missing samples at its end are
            zeros (authors' code) and ``audio_padded_seconds`` in the attributes says how much. Or
            why there is none: unreadable frames or sound, or sound below the least loudness.
        """
        spec, settings = self.clips[index], self.settings
        num_samples = math.ceil(round(AUDIO_RATE_HZ * settings.clip_seconds, 6))
        try:
            waveform = read_audio(
                spec.path,
                rate_hz=AUDIO_RATE_HZ,
                start_seconds=spec.start_seconds,
                duration_seconds=num_samples / AUDIO_RATE_HZ,
                channel=settings.audio_channel,
            )
            reason = self._reason_to_skip_sound(waveform)
            if reason is not None:
                return SkippedClip(self.source, spec.path, reason, spec.clip_id)
            frames = read_clip(
                spec.path,
                start_seconds=spec.start_seconds,
                num_frames=spec.num_frames,
                height=settings.height,
                width=settings.width,
                fps=settings.fps,
                crop=self._crop_box(self._infos[spec.path]),
            )
        except MediaError as error:
            reason = f"cannot be read: {error}"
            return SkippedClip(self.source, spec.path, reason, spec.clip_id)
        missing_seconds = (num_samples - waveform.shape[-1]) / AUDIO_RATE_HZ
        if missing_seconds > AUDIO_ROUNDING_SECONDS:
            note = {"audio_padded_seconds": f"{missing_seconds:.3f}"}
            spec = dataclasses.replace(spec, attributes=spec.attributes | note)
        return RawClip(spec, frames, fit_length(waveform, num_samples))

    def _require_clips(self, root: Path) -> None:
        """Refuse a dataset without a clip.

        Raises:
            ValueError: Saying what happened to the files and what to change.
        """
        if self.clips:
            return
        if not self.skipped:
            choices = ", ".join(f"{n} by {what}" for what, n in self.num_not_selected.items())
            raise ValueError(
                f"{root} holds no selected video ({choices} left out); widen the selection."
            )
        raise ValueError(
            f"No clip can be cut from the {len(self.skipped)} videos of {root}; the first one,"
            f" {self.skipped[0].path.name}, is left out ({self.skipped[0].reason})."
        )

    def _crop_box(self, info: VideoInfo) -> CropBox:
        settings = self.settings
        return CROPS[settings.crop](
            info.width, info.height, target_height=settings.height, target_width=settings.width
        )

    def _reason_to_skip(self, info: VideoInfo) -> str | None:
        settings = self.settings
        if not info.has_audio:
            return "no sound: the file has no audio stream"
        box = self._crop_box(info)
        # One pixel of slack for the rounding of the box.
        if not settings.allow_upscaling and (
            box.width < settings.width - 1 or box.height < settings.height - 1
        ):
            return (
                f"too small: the {settings.crop} crop of {info.width}x{info.height} px has"
                f" {box.width}x{box.height} px, less than {settings.width}x{settings.height};"
                " set allow_upscaling to keep it"
            )
        if start_range(info.duration_seconds, settings=settings) is None:
            shortest = settings.clip_seconds / (1 - 2 * settings.edge_margin)
            return (
                f"too short: {info.duration_seconds:.2f} s, a clip of {settings.clip_seconds:g} s"
                f" with margins needs {shortest:.2f} s; a smaller edge_margin or fewer frames help"
            )
        return None

    def _reason_to_skip_sound(self, waveform: torch.Tensor) -> str | None:
        if waveform.shape[-1] == 0:
            return "no sound: the audio ends before the clip starts"
        limit = self.settings.min_loudness_dbfs
        if limit is not None and (level := loudness_dbfs(waveform)) < limit:
            return f"too quiet: {level:.1f} dBFS, less than {limit:g}"
        return None

    def _cut(
        self, video: SourceVideo, info: VideoInfo, caption_of: Callable[[SourceVideo, str], str]
    ) -> list[ClipSpec]:
        settings = self.settings
        limits = start_range(info.duration_seconds, settings=settings)
        assert limits is not None
        count = num_crops(info.duration_seconds, crops_per_minute=settings.crops_per_minute)
        specs = []
        for number in range(count):
            clip_id = video.clip_stem if count == 1 else f"{video.clip_stem}.seg{number}"
            stream = keyed_random.generator(settings.seed, clip_id, "clip start")
            draw = torch.rand((), generator=stream, dtype=torch.float64).item()
            specs.append(
                ClipSpec(
                    source=self.source,
                    clip_id=clip_id,
                    path=video.path,
                    start_seconds=limits[0] + draw * (limits[1] - limits[0]),
                    num_frames=settings.num_frames,
                    crop=settings.crop,
                    caption=caption_of(video, clip_id),
                    base_caption=video.base_caption,
                    music=video.music,
                    split=video.split,
                    attributes=dict(video.attributes),
                )
            )
        return specs


def num_crops(duration_seconds: float, *, crops_per_minute: float) -> int:
    """Number of clips cut from a file: so many per minute, rounded up (authors' code)."""
    return math.ceil(round(crops_per_minute * duration_seconds / 60, 9))


def start_range(duration_seconds: float, *, settings: CutSettings) -> tuple[float, float] | None:
    """Earliest and latest start of a clip in seconds, or None if the video is too short.

    The margin is taken off both ends and the clip must end before the second one (authors' code).
    """
    earliest = settings.edge_margin * duration_seconds
    latest = (1 - settings.edge_margin) * duration_seconds - settings.clip_seconds
    return (earliest, latest) if latest >= earliest else None


def _probe_all(paths: Sequence[Path]) -> list[VideoInfo | MediaError]:
    def probe(path: Path) -> VideoInfo | MediaError:
        try:
            return probe_video(path)
        except MediaError as error:
            return error

    with ThreadPoolExecutor(NUM_PROBE_THREADS) as pool:
        results = pool.map(probe, paths)
        is_short = len(paths) < MIN_FILES_FOR_PROGRESS_BAR
        return list(tqdm(results, "probing videos", len(paths), disable=is_short, unit="file"))
