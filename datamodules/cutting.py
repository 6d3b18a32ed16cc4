"""Cutting long dance videos into short clips, and reading one clip: what all sources share."""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from tqdm.contrib.concurrent import thread_map

from datamodules.clips import (
    CROPS,
    ClipSpec,
    CropMode,
    CutSettings,
    NotSelected,
    RawClip,
    SkippedClip,
    SourceVideo,
    crop_box,
)
from datamodules.folders import file_key, find_videos, other_files, select_files
from datamodules.shots import (
    ShotSettings,
    find_cuts,
    num_crops,
    place,
    require_detector,
    shots_between,
)
from musicinfuser import keyed_random
from musicinfuser.clip_size import ClipSize, nearest_size
from musicinfuser.errors import UserError
from musicinfuser.fingerprint import FileIdentity
from musicinfuser.media.audio import clip_audio_seconds, fit_length, loudness_dbfs, read_audio
from musicinfuser.media.errors import MediaError, printable
from musicinfuser.media.video import CropBox, VideoInfo, probe_video, read_clip
from musicinfuser.setting_checks import check_choice, check_number

NUM_PROBE_THREADS = 8
MIN_FILES_FOR_PROGRESS_BAR = 51
AUDIO_ROUNDING_SECONDS = 0.002


class ClipDataset(Dataset[RawClip | SkippedClip], ABC):
    """Clips of a folder of videos; a subclass says what is known of each video.

    Building it probes every file once and decides all clips; indexing decodes one of them.

    Attributes:
        source: Name of the data set.
        audio_rate_hz: Sampling rate of the clips' sound; whoever reads them may set another.
        audio_context_seconds: Sound from before and after each clip that is read with it, as far
            as its file has some; likewise.
        root: The folder.
        videos: All videos of the folder, also those left out.
        clips: All clips, in a fixed order.
        skipped: Files left out because nothing can be cut from them.
        num_not_selected: Files left out by choice, counted by what excluded them.
        num_shots_left_out: Shots that give no clip, counted by reason.
        num_unknown_cuts: Files whose cuts are not known yet; taken as one shot.
        notes: What else must be known of the folder, one sentence each.
    """

    source: str
    audio_rate_hz = 16_000
    audio_context_seconds = 0.0
    moved_options = {
        option.name: f"it is shared by all sources now: set data.{option.name}"
        for option in dataclasses.fields(CutSettings)
    }

    def __init__(
        self,
        settings: CutSettings,
        root: str | Path,
        *,
        files: Sequence[str] | None = None,
        crop: CropMode = "centre",
        crops_per_minute: float = 5.0,
        edge_margin: float = 0.05,
        allow_upscaling: bool = False,
        min_loudness_dbfs: float | None = None,
        shots: ShotSettings | None = None,
    ) -> None:
        """Find the videos below a folder and decide their clips.

        Args:
            settings: What is the same for all sources.
            root: Folder with videos, at any depth.
            files: Restrict to these videos, by path relative to ``root`` or bare name.
            crop: ``"aist"`` (the authors' box below the middle of the frame) or ``"centre"``. The
                authors' box is for wide pictures: of several buckets only wide ones get it.
            crops_per_minute: Clips per minute of video, rounded up per file (authors' code: 5).
            edge_margin: Part of the video at each end that no clip touches (authors' code: 0.05);
                0 lets whole short clips in.
            allow_upscaling: Keep videos whose cropped frame is smaller than the target. The authors
                skip them.
            min_loudness_dbfs: Clips whose sound has a lower RMS level are left out when they are
                read; None keeps all.
            shots: How to find cuts, so that no clip crosses one; ``crops_per_minute`` then counts
                the shots that are long enough. None cuts anywhere, as the authors do: all else
                needs PySceneDetect and decodes every file completely.

        Raises:
            UserError: If a setting is invalid, the folder is missing, no clip can be cut, or
                ``shots`` is given without PySceneDetect.
        """
        check_number("crops_per_minute", crops_per_minute, above=0)
        check_number("edge_margin", edge_margin, at_least=0, below=0.5)
        check_choice("crop", crop, tuple(CROPS))
        if shots is not None:
            require_detector()
        self.settings, self.root = settings, Path(root)
        self.crop, self.crops_per_minute, self.edge_margin = crop, crops_per_minute, edge_margin
        self.allow_upscaling, self.min_loudness_dbfs = allow_upscaling, min_loudness_dbfs
        self.clips: list[ClipSpec] = []
        self.skipped: list[SkippedClip] = []
        self.num_not_selected: Counter[str] = Counter()
        self.num_shots_left_out: Counter[str] = Counter()
        self.videos = find_videos(self.root)
        self.notes = other_files(self.root)
        usable = self._usable(select_files(self.root, videos=self.videos, files=files))
        cuts = {}
        if shots is not None:
            limit = settings.time_limit_seconds
            cuts = find_cuts(usable, self._infos, shots, time_limit_seconds=limit)
        self.num_unknown_cuts = sum(found is None for found in cuts.values())
        for video in usable:
            found = cuts.get(video.path)
            if isinstance(found, MediaError):
                self._skip(video.path, f"its cuts cannot be found: {found}")
            else:
                self.clips += self._cut(video, found or [], shots or ShotSettings())
        self._require_clips()

    @abstractmethod
    def describe(self, path: Path) -> SourceVideo | NotSelected | SkippedClip:
        """What is known of a video below ``root``, or why no clip is cut from it."""

    def caption(self, video: SourceVideo, clip_id: str) -> str:
        """The text of one of a video's clips."""
        return video.caption

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> RawClip | SkippedClip:
        """Decode a clip.

        Returns:
            The clip, with ceil(audio_rate_hz * seconds) samples of sound, and those around it that
            `audio_context_seconds` asks for; missing samples at its
            end are zeros (authors' code) and ``audio_padded_seconds`` in the attributes says how
            much; they also say what the file was. Or why there is none: unreadable frames or sound,
            or sound below the least loudness.
        """
        spec, settings, rate_hz = self.clips[index], self.settings, self.audio_rate_hz
        clip_seconds = clip_audio_seconds(spec.num_frames, fps=settings.fps)
        num_samples = math.ceil(round(rate_hz * clip_seconds, 6))
        try:
            note = FileIdentity.of(spec.path).as_attributes() | {"root": printable(self.root)}
            # From a whole sample before the clip, so that its own are the same with any context.
            before = round(min(spec.start_seconds, self.audio_context_seconds) * rate_hz)
            context = math.ceil(self.audio_context_seconds * rate_hz)
            sound = read_audio(
                spec.path,
                rate_hz=rate_hz,
                start_seconds=max(spec.start_seconds - before / rate_hz, 0.0),
                duration_seconds=(before + num_samples + context) / rate_hz,
                channel=settings.audio_channel,
                time_limit_seconds=settings.time_limit_seconds,
            )
            waveform = sound[before : before + num_samples]
            if waveform.shape[-1] == 0:
                reason = "no sound: the audio ends before the clip starts"
                return SkippedClip(self.source, spec.path, reason, spec.clip_id)
            limit = self.min_loudness_dbfs
            if limit is not None and (level := loudness_dbfs(waveform)) < limit:
                reason = f"too quiet: {level:.1f} dBFS, less than {limit:g}"
                return SkippedClip(self.source, spec.path, reason, spec.clip_id)
            frames = read_clip(
                spec.path,
                start_seconds=spec.start_seconds,
                num_frames=spec.num_frames,
                height=spec.height,
                width=spec.width,
                fps=settings.fps,
                crop=self.crop_of(spec),
                decoding=settings.decoding,
                time_limit_seconds=settings.time_limit_seconds,
            )
        except (MediaError, OSError) as error:
            return SkippedClip.unreadable(self.source, spec.path, error, spec.clip_id)
        missing_seconds = (num_samples - waveform.shape[-1]) / rate_hz
        if missing_seconds > AUDIO_ROUNDING_SECONDS:
            note["audio_padded_seconds"] = f"{missing_seconds:.3f}"
        spec = dataclasses.replace(spec, attributes=spec.attributes | note)
        if missing_seconds > 0:
            sound = fit_length(sound, before + num_samples)
        return RawClip(spec, frames, sound, (before, num_samples))

    def has_room(self, num_frames: int, duration_seconds: float) -> bool:
        """Whether a clip fits between the margins of a video (authors' code)."""
        (whole,) = shots_between((), duration_seconds, edge_margin=self.edge_margin)
        return whole.has_room(clip_audio_seconds(num_frames, fps=self.settings.fps))

    def info_of(self, spec: ClipSpec) -> VideoInfo:
        """Of the video of one of its clips."""
        return self._infos[spec.path]

    def crop_of(self, spec: ClipSpec, info: VideoInfo | None = None) -> CropBox:
        """The box that a clip shows of its video, or of another video of that aspect."""
        size = spec.height, spec.width
        return crop_box(info or self.info_of(spec), size=size, crop=spec.crop)

    def _skip(self, path: Path, reason: str) -> None:
        self.skipped.append(SkippedClip(self.source, path, reason))

    def _usable(self, paths: Sequence[Path]) -> list[SourceVideo]:
        """The selected videos that clips can be cut from; the others are noted."""
        described: list[SourceVideo] = []
        for path in paths:
            found = self.describe(path)
            if isinstance(found, SourceVideo):
                own = {"file": file_key(path.relative_to(self.root))} | found.attributes
                described.append(dataclasses.replace(found, attributes=own))
            elif isinstance(found, NotSelected):
                self.num_not_selected[found.criterion] += 1
            else:
                self.skipped.append(found)
        usable: dict[str, SourceVideo] = {}
        self._infos: dict[Path, VideoInfo] = {}
        for video, info in zip(described, self._probe_all(described), strict=True):
            if isinstance(info, MediaError):
                self.skipped.append(SkippedClip.unreadable(self.source, video.path, info))
            elif video.clip_stem in usable:
                other = usable[video.clip_stem].path
                self._skip(video.path, f"same name as another file: {other}")
            elif reason := self._reason_to_skip(info):
                self._skip(video.path, reason)
            else:
                usable[video.clip_stem] = video
                self._infos[video.path] = info
        return list(usable.values())

    def _probe_all(self, videos: Sequence[SourceVideo]) -> list[VideoInfo | MediaError]:
        def probe(video: SourceVideo) -> VideoInfo | MediaError:
            try:
                limit = self.settings.time_limit_seconds
                return probe_video(video.path, time_limit_seconds=limit)
            except MediaError as error:
                return error

        is_short = len(videos) < MIN_FILES_FOR_PROGRESS_BAR
        options = {"desc": "probing videos", "unit": "file", "disable": is_short}
        return thread_map(probe, videos, max_workers=NUM_PROBE_THREADS, **options)

    def _require_clips(self) -> None:
        """Refuse a dataset without a clip: what happened to the files, and what to change."""
        if self.clips:
            return
        if not self.skipped:
            choices = ", ".join(f"{n} by {what}" for what, n in self.num_not_selected.items())
            raise UserError(
                f"{self.root} holds no selected video ({choices} left out); widen the selection."
            )
        raise UserError(
            f"No clip can be cut from the {len(self.skipped)} videos of {self.root}; the first one,"
            f" {self.skipped[0].path.name}, is left out ({self.skipped[0].reason})."
        )

    def _size_and_crop(self, info: VideoInfo) -> tuple[ClipSize, CropMode]:
        """Height and width of a video's clips, and how its frames are cut to that aspect."""
        settings = self.settings
        if settings.buckets is None:
            return (settings.height, settings.width), self.crop
        sizes = [(height, width) for _, height, width in settings.shapes]
        height, width = nearest_size(info.width, info.height, sizes)
        return (height, width), self.crop if width > height else "centre"

    def _reason_to_skip(self, info: VideoInfo) -> str | None:
        if not info.has_audio:
            return "no sound: the file has no audio stream"
        (height, width), crop = self._size_and_crop(info)
        box = crop_box(info, size=(height, width), crop=crop)
        # One pixel of slack for the rounding of the box.
        if not self.allow_upscaling and (box.width < width - 1 or box.height < height - 1):
            return (
                f"too small: the {crop} crop of {info.width}x{info.height} px has"
                f" {box.width}x{box.height} px, less than {width}x{height};"
                " set allow_upscaling to keep it"
            )
        num_frames, clip_seconds = next(iter(self.settings.lengths((height, width)).items()))
        if not self.has_room(num_frames, info.duration_seconds):
            shortest = clip_seconds / (1 - 2 * self.edge_margin)
            return (
                f"too short: {info.duration_seconds:.2f} s, a clip of {clip_seconds:g} s"
                f" with margins needs {shortest:.2f} s; a smaller edge_margin or fewer frames help"
            )
        return None

    def _cut(
        self, video: SourceVideo, cuts_seconds: Sequence[float], options: ShotSettings
    ) -> list[ClipSpec]:
        settings, info = self.settings, self._infos[video.path]
        (height, width), crop = self._size_and_crop(info)
        lengths, duration_seconds = settings.lengths((height, width)), info.duration_seconds
        shots = shots_between(
            cuts_seconds,
            duration_seconds,
            edge_margin=self.edge_margin,
            margin_seconds=options.margin_seconds,
        )
        shortest = min(lengths.values())
        reasons = [shot.reason_to_skip(shortest, options.min_seconds) for shot in shots]
        usable = [shot for shot, reason in zip(shots, reasons, strict=True) if reason is None]
        self.num_shots_left_out.update(reason for reason in reasons if reason is not None)
        if not usable:
            longest = max(shot.seconds for shot in shots)
            self._skip(
                video.path,
                f"no shot is long enough: the longest of {len(shots)} has {longest:.2f} s",
            )
            return []
        between_margins = shots[-1].end_seconds - shots[0].start_seconds
        used = sum(shot.seconds for shot in usable) / between_margins
        count = num_crops(duration_seconds * used, crops_per_minute=self.crops_per_minute)
        specs = []
        for number in range(count):
            clip_id = video.clip_stem if count == 1 else f"{video.clip_stem}.seg{number}"
            stream = keyed_random.generator(settings.seed, clip_id, "clip start")
            draw = torch.rand((), generator=stream, dtype=torch.float64).item()
            shot, num_frames, start_seconds = place(draw, usable, lengths=lengths)
            own: dict[str, Any] = {"caption": self.caption(video, clip_id)}
            if len(shots) > 1:
                own["attributes"] = video.attributes | {"shot": str(shot)}
            specs.append(
                ClipSpec(
                    **vars(video) | own,
                    source=self.source,
                    clip_id=clip_id,
                    start_seconds=start_seconds,
                    num_frames=num_frames,
                    height=height,
                    width=width,
                    crop=crop,
                )
            )
        return specs
