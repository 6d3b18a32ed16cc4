"""From folders of clips to decoded clips: shared by all verbs of `evaluate.py`."""

import functools
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from musicinfuser.errors import UserError
from musicinfuser.media.audio import read_audio
from musicinfuser.media.contact_sheet import SheetRow, contact_sheet
from musicinfuser.media.side_by_side import side_by_side
from musicinfuser.media.video import probe_video, read_clip
from musicinfuser.metrics.clip import ScoredClip
from musicinfuser.metrics.clip_folder import ClipEntry, list_clips
from musicinfuser.metrics.motion import (
    DEFAULT_SMOOTHING_SECONDS,
    frame_difference,
    gaussian_smoothed,
    local_minima,
)
from musicinfuser.metrics.music_beats import BEAT_RATE_HZ, MusicBeats


class EvaluationError(UserError):
    """The evaluation cannot be done as asked. The message is one sentence."""


def load_clip(entry: ClipEntry, *, beats: MusicBeats, seed: int, max_height: int) -> ScoredClip:
    """Decode one clip; frames taller than ``max_height`` px are scaled down.

    Raises:
        ValueError: If the file cannot be read.
    """
    info = probe_video(entry.path)
    fps = entry.fps or info.average_fps
    height = min(info.height, max_height)
    frames = read_clip(
        entry.path,
        start_seconds=0.0,
        num_frames=entry.num_frames or max(round(info.duration_seconds * fps), 1),
        height=height,
        width=max(round(info.width * height / info.height), 1),
        fps=fps,
        crop=None,
    )
    return ScoredClip(
        frames=frames,
        fps=fps,
        waveform=read_audio(entry.path, rate_hz=BEAT_RATE_HZ) if info.has_audio else None,
        rate_hz=BEAT_RATE_HZ,
        name=entry.file,
        seed=seed,
        beats_seconds=functools.partial(beats.read, entry, duration_seconds=len(frames) / fps),
        prompt=entry.prompt,
        path=entry.path,
        track=entry.track,
    )


def collect_clips(folders: Sequence[Path]) -> tuple[list[ClipEntry], list[str]]:
    """Clips of all folders in order, and the mp4 files that their manifests leave out.

    Raises:
        ClipListError: If a folder holds no clips.
        EvaluationError: If two folders would be mixed up under one name.
    """
    entries: list[ClipEntry] = []
    unlisted: list[str] = []
    named: dict[str, Path] = {}
    for folder in dict.fromkeys(folders):
        clips, left_out = list_clips(folder)
        name = folder.resolve().name
        if any(clip.system == name for clip in clips) and named.setdefault(name, folder) != folder:
            raise EvaluationError(
                f"{named[name]} and {folder} would both be the system {name!r}; rename one folder "
                f"or name the systems in its clips.csv."
            )
        entries += clips
        unlisted += [str(folder / file) for file in left_out]
    return entries, unlisted


def same_music(entries: Sequence[ClipEntry]) -> list[list[ClipEntry]]:
    """Clips by track and start, one per system, systems in the order of the folders."""
    groups: dict[tuple[str, float], dict[str, ClipEntry]] = {}
    for entry in entries:
        if entry.problem is None:
            key = (Path(entry.track or entry.file).stem, entry.track_offset_seconds)
            groups.setdefault(key, {}).setdefault(entry.system, entry)
    return [list(groups[key].values()) for key in sorted(groups)]


def picture_row(
    entry: ClipEntry,
    beats: MusicBeats,
    max_height: int,
    *,
    label: str,
    with_motion: bool = False,
) -> SheetRow | None:
    """A clip as it is drawn, with its motion curve if asked, or None and a line on why not."""
    try:
        clip = load_clip(entry, beats=beats, seed=0, max_height=max_height)
        times = clip.music_beats().tolist() if clip.waveform is not None else None
    except UserError as error:
        print(f"not drawn: {error}")
        return None
    motion, rests = None, []
    if with_motion:
        sigma_samples = DEFAULT_SMOOTHING_SECONDS * clip.fps
        curve = gaussian_smoothed(frame_difference(clip.frames), sigma_samples=sigma_samples)
        motion, rests = curve.tolist(), ((local_minima(curve) + 0.5) / clip.fps).tolist()
    return SheetRow(
        label=label,
        frames=clip.frames,
        fps=clip.fps,
        audio=clip.waveform,
        audio_rate_hz=clip.rate_hz if clip.waveform is not None else None,
        beats_seconds=times,
        motion=motion,
        rests_seconds=rests,
    )


def draw_sheet(
    entries: Sequence[ClipEntry],
    output: Path,
    *,
    beats: MusicBeats,
    pair: bool,
    max_clips: int,
    max_height: int,
) -> None:
    """Draw clips on one picture, with sound and beats under each.

    Args:
        entries: The clips, in their order on the picture.
        output: A png.
        beats: Where beats come from.
        pair: Put clips of the same music below each other.
        max_clips: Of the first so many.
        max_height: Taller frames are scaled down to it, in px.

    Raises:
        EvaluationError: If none of the clips can be read.
    """
    if pair:
        entries = [entry for group in same_music(entries) for entry in group]
    drawn = (
        picture_row(entry, beats, max_height, label=f"{entry.system}: {entry.file}")
        for entry in entries[:max_clips]
    )
    rows = [row for row in drawn if row is not None]
    if not rows:
        raise EvaluationError(f"None of the {len(entries)} clips could be drawn.")
    contact_sheet(rows, output)
    print(f"{len(rows)} clips on {output}")


def write_side_by_side(
    entries: Sequence[ClipEntry],
    folder: Path,
    *,
    beats: MusicBeats,
    max_videos: int,
    max_height: int,
) -> None:
    """Write one mp4 per piece of music that several systems danced to, with its sound.

    Args:
        entries: The clips.
        folder: Where the videos go.
        beats: Where beats come from.
        max_videos: The first so many pieces.
        max_height: Taller frames are scaled down to it, in px.

    Raises:
        EvaluationError: If no two systems share a piece of music.
    """
    groups = [group for group in same_music(entries) if len(group) > 1]
    if not groups:
        raise EvaluationError(
            "No two folders hold a clip of the same track and start; give folders that were "
            "generated for the same list of cells."
        )
    num_written = 0
    for group in tqdm(groups[:max_videos], unit="video", desc="side by side"):
        drawn = [picture_row(entry, beats, max_height, label=entry.system) for entry in group]
        panels = [panel for panel in drawn if panel is not None]
        if len(panels) > 1:
            name = Path(group[0].track or group[0].file).stem
            if group[0].track_offset_seconds:
                name += f"_from_{group[0].track_offset_seconds:g}s"
            side_by_side(panels, folder / f"{name}.mp4")
            num_written += 1
    print(f"{num_written} videos in {folder}")
