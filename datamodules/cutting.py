"""Cutting long dance videos into short clips, and reading one clip: what all datasets share."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from datamodules.clips import ClipSpec, RawClip, SkippedClip, Source, Split
from datamodules.cut_finding import find_cuts
from datamodules.cut_settings import CutSettings, crop_box
from datamodules.shots import ShotSettings, num_crops, place, shots_between, start_range
from musicinfuser import keyed_random
from musicinfuser.errors import UserError
from musicinfuser.file_identity import FileIdentity
from musicinfuser.media.audio import fit_length, loudness_dbfs, read_audio
from musicinfuser.media.errors import MediaError, printable
from musicinfuser.media.video import VideoInfo, probe_video, read_clip

AUDIO_RATE_HZ = 16000
NUM_PROBE_THREADS = 8
MIN_FILES_FOR_PROGRESS_BAR = 51
AUDIO_ROUNDING_SECONDS = 0.002


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
        num_shots_left_out: Shots that give no clip, counted by reason.
        num_unknown_cuts: Files whose cuts nobody has looked for yet; taken as one shot.
        root: The folder.
        videos: All videos of the folder, also those left out.
        notes: What else must be known of the folder, one sentence each.
    """

    source: Source
    root: Path
    videos: Sequence[Path] = ()
    notes: Sequence[str] = ()

    def __init__(
        self,
        videos: Sequence[SourceVideo],
        *,
        settings: CutSettings,
        caption_of: Callable[[SourceVideo, str], str],
        shots: ShotSettings | None = None,
    ) -> None:
        """Probe the videos and decide their clips; ``caption_of`` gets a video and a clip id.

        With ``shots`` the cuts of all usable videos are found too, and no clip crosses one.
        """
        self.settings = settings
        self.clips: list[ClipSpec] = []
        self.skipped: list[SkippedClip] = []
        self.num_not_selected: dict[str, int] = {}
        self.num_shots_left_out: Counter[str] = Counter()
        self._infos: dict[Path, VideoInfo] = {}
        usable: dict[str, SourceVideo] = {}
        infos = _probe_all([video.path for video in videos], settings.time_limit_seconds)
        for video, info in zip(videos, infos, strict=True):
            if isinstance(info, MediaError):
                self.skipped.append(SkippedClip.unreadable(self.source, video.path, info))
                continue
            reason: str | None
            if video.clip_stem in usable:
                reason = f"same name as another file: {usable[video.clip_stem].path}"
            else:
                reason = self._reason_to_skip(info)
                if reason is None:
                    usable[video.clip_stem] = video
                    self._infos[video.path] = info
            if reason is not None:
                self.skipped.append(SkippedClip(self.source, video.path, reason))
        cuts = {}
        if shots is not None:
            limit = settings.time_limit_seconds
            cuts = find_cuts(usable.values(), self._infos, shots, time_limit_seconds=limit)
        self.num_unknown_cuts = sum(found is None for found in cuts.values())
        for video in usable.values():
            found = cuts.get(video.path)
            if isinstance(found, MediaError):
                reason = f"its cuts cannot be found: {found}"
                self.skipped.append(SkippedClip(self.source, video.path, reason))
            else:
                self.clips += self._cut(video, found or [], shots or ShotSettings(), caption_of)

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> RawClip | SkippedClip:
        """Decode a clip.

        Returns:
            The clip, with ceil(16000 * seconds) samples of sound; missing samples at its end are
            zeros (authors' code) and ``audio_padded_seconds`` in the attributes says how much; they
            also say what the file was. Or why there is none: unreadable frames or sound, or sound
            below the least loudness.
        """
        spec, settings = self.clips[index], self.settings
        num_samples = math.ceil(round(AUDIO_RATE_HZ * settings.clip_seconds, 6))
        try:
            note = FileIdentity.of(spec.path).as_attributes() | {"root": printable(self.root)}
            waveform = read_audio(
                spec.path,
                rate_hz=AUDIO_RATE_HZ,
                start_seconds=spec.start_seconds,
                duration_seconds=num_samples / AUDIO_RATE_HZ,
                channel=settings.audio_channel,
                time_limit_seconds=settings.time_limit_seconds,
            )
            reason = self._reason_to_skip_sound(waveform)
            if reason is not None:
                return SkippedClip(self.source, spec.path, reason, spec.clip_id)
            frames = read_clip(
                spec.path,
                start_seconds=spec.start_seconds,
                num_frames=spec.num_frames,
                height=spec.height,
                width=spec.width,
                fps=settings.fps,
                crop=crop_box(
                    self._infos[spec.path], size=(spec.height, spec.width), crop=spec.crop
                ),
                decoding=settings.decoding,
                time_limit_seconds=settings.time_limit_seconds,
            )
        except (MediaError, OSError) as error:
            return SkippedClip.unreadable(self.source, spec.path, error, spec.clip_id)
        missing_seconds = (num_samples - waveform.shape[-1]) / AUDIO_RATE_HZ
        if missing_seconds > AUDIO_ROUNDING_SECONDS:
            note["audio_padded_seconds"] = f"{missing_seconds:.3f}"
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
            raise UserError(
                f"{root} holds no selected video ({choices} left out); widen the selection."
            )
        raise UserError(
            f"No clip can be cut from the {len(self.skipped)} videos of {root}; the first one,"
            f" {self.skipped[0].path.name}, is left out ({self.skipped[0].reason})."
        )

    def _reason_to_skip(self, info: VideoInfo) -> str | None:
        settings = self.settings
        if not info.has_audio:
            return "no sound: the file has no audio stream"
        (height, width), crop = settings.size_and_crop(info)
        box = crop_box(info, size=(height, width), crop=crop)
        # One pixel of slack for the rounding of the box.
        if not settings.allow_upscaling and (box.width < width - 1 or box.height < height - 1):
            return (
                f"too small: the {crop} crop of {info.width}x{info.height} px has"
                f" {box.width}x{box.height} px, less than {width}x{height};"
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
        self,
        video: SourceVideo,
        cuts_seconds: Sequence[float],
        options: ShotSettings,
        caption_of: Callable[[SourceVideo, str], str],
    ) -> list[ClipSpec]:
        settings, info = self.settings, self._infos[video.path]
        clip_seconds, duration_seconds = settings.clip_seconds, info.duration_seconds
        shots = shots_between(
            cuts_seconds,
            duration_seconds,
            edge_margin=settings.edge_margin,
            margin_seconds=options.margin_seconds,
        )
        reasons = [shot.reason_to_skip(clip_seconds, options.min_seconds) for shot in shots]
        usable = [shot for shot, reason in zip(shots, reasons, strict=True) if reason is None]
        self.num_shots_left_out.update(reason for reason in reasons if reason is not None)
        if not usable:
            longest = max(shots, key=lambda shot: shot.seconds)
            reason = (
                f"no shot is long enough: the longest of {len(shots)} has {longest.seconds:.2f} s"
            )
            self.skipped.append(SkippedClip(self.source, video.path, reason))
            return []
        between_margins = shots[-1].end_seconds - shots[0].start_seconds
        used = sum(shot.seconds for shot in usable) / between_margins
        count = num_crops(duration_seconds * used, crops_per_minute=settings.crops_per_minute)
        (height, width), crop = settings.size_and_crop(info)
        specs = []
        for number in range(count):
            clip_id = video.clip_stem if count == 1 else f"{video.clip_stem}.seg{number}"
            stream = keyed_random.generator(settings.seed, clip_id, "clip start")
            draw = torch.rand((), generator=stream, dtype=torch.float64).item()
            shot, start_seconds = place(draw, usable, clip_seconds=clip_seconds)
            specs.append(
                ClipSpec(
                    source=self.source,
                    clip_id=clip_id,
                    path=video.path,
                    start_seconds=start_seconds,
                    num_frames=settings.num_frames,
                    height=height,
                    width=width,
                    crop=crop,
                    caption=caption_of(video, clip_id),
                    base_caption=video.base_caption,
                    music=video.music,
                    split=video.split,
                    attributes=video.attributes | ({"shot": str(shot)} if len(shots) > 1 else {}),
                )
            )
        return specs


def _probe_all(paths: Sequence[Path], time_limit_seconds: float) -> list[VideoInfo | MediaError]:
    def probe(path: Path) -> VideoInfo | MediaError:
        try:
            return probe_video(path, time_limit_seconds=time_limit_seconds)
        except MediaError as error:
            return error

    with ThreadPoolExecutor(NUM_PROBE_THREADS) as pool:
        results = pool.map(probe, paths)
        is_short = len(paths) < MIN_FILES_FOR_PROGRESS_BAR
        return list(tqdm(results, "probing videos", len(paths), disable=is_short, unit="file"))
