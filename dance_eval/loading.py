"""From folders of clips to decoded clips: shared by all verbs of `evaluate.py`."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from dance_eval.contact_sheet import SheetRow, contact_sheet
from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.clip_folder import ClipEntry, list_clips
from dance_eval.metrics.matching import CellGroup, Pieces, cell_groups
from dance_eval.metrics.motion import (
    DEFAULT_SMOOTHING_SECONDS,
    frame_difference,
    gaussian_smoothed,
    kinematic_beats,
)
from dance_eval.metrics.music_beats import BEAT_RATE_HZ, MusicBeats
from dance_eval.side_by_side import side_by_side
from musicinfuser.errors import UserError
from musicinfuser.generation_requests import slug
from musicinfuser.media.audio import read_audio
from musicinfuser.media.video import probe_video, read_clip


class EvaluationError(UserError):
    """The evaluation cannot be done as asked. The message is one sentence."""


def load_clip(entry: ClipEntry, *, beats: MusicBeats, seed: int, max_height: int) -> ScoredClip:
    """Decode one clip; frames taller than ``max_height`` px are scaled down.

    Raises:
        UserError: If the file cannot be read.
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
        music_bpm=functools.partial(beats.bpm, entry),
    )


def collect_clips(folders: Sequence[Path]) -> tuple[list[ClipEntry], list[str]]:
    """Clips of all folders in order, and the mp4 files that their manifests leave out.

    Prints which pieces of music are known by their names alone.

    Raises:
        ClipListError: If a folder holds no clips.
        EvaluationError: If two folders would be mixed up under one name, or hold one clip twice.
    """
    entries: list[ClipEntry] = []
    unlisted: list[str] = []
    named: dict[str, Path] = {}
    listed: dict[tuple[str, str], Path] = {}
    places: dict[Path, Path] = {}  # one folder may be given by two names
    for folder in folders:
        places.setdefault(folder.resolve(), folder)
    for folder in places.values():
        clips, left_out = list_clips(folder)
        name = folder.resolve().name
        if any(clip.system == name for clip in clips) and named.setdefault(name, folder) != folder:
            raise EvaluationError(
                f"{named[name]} and {folder} would both be the system {name!r}; rename one folder "
                f"or name the systems in its clips.csv."
            )
        for clip in clips:
            # Unlike Path.resolve, it lets a link to itself pass: that is one clip that fails.
            place = os.path.realpath(clip.path)
            if (first := listed.setdefault((clip.system, place), folder)) != folder:
                raise EvaluationError(
                    f"{clip.path}: is listed in {first} for the system {clip.system!r}, too, and "
                    "would count twice; leave one line out."
                )
        entries += clips
        unlisted += [str(folder / file) for file in left_out]
    for note in Pieces(entries).notes:
        print(note)
    return entries, unlisted


def same_music(entries: Sequence[ClipEntry]) -> list[list[ClipEntry]]:
    """Clips by music, start, prompt and seed, one per system, as `cell_groups` has them."""
    return [list(group.clips.values()) for group in _first_groups(entries)]


def _first_groups(entries: Sequence[ClipEntry]) -> list[CellGroup]:
    """Of the clips that can be read and that a system has several of for one request, the first."""
    usable = [entry for entry in entries if entry.problem is None]
    return [group for group in cell_groups(usable) if group.number == 1]


def video_names(groups: Sequence[CellGroup]) -> list[str]:
    """Names of files, without suffix, no two alike."""
    names: list[str] = []
    for group in groups:
        start = f"_from_{group.offset_seconds:g}s" if group.offset_seconds else ""
        names.append(f"{group.track.replace('/', '_')}{start}")
    told: list[str] = []
    for name, group in zip(names, groups, strict=True):
        if names.count(name) > 1:
            seed = "" if group.seed is None else f"_seed{group.seed}"
            name = f"{name}_{slug(group.prompt or '')}{seed}"
        # Slugs are cut short, and a track may be called like that.
        again = told.count(name)
        told.append(name)
        if again:
            told[-1] += f"_{again + 1}"
    return told


def sheet_labels(entries: Sequence[ClipEntry]) -> list[str]:
    """System and file of each clip, with its folder where two would be alike."""
    labels = [f"{entry.system}: {entry.file}" for entry in entries]
    return [
        label if labels.count(label) == 1 else f"{entry.system}: {entry.path}"
        for label, entry in zip(labels, entries, strict=True)
    ]


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
    except UserError as error:
        print(f"not drawn: {error}")
        return None
    times = None
    try:
        times = clip.music_beats().tolist() if clip.waveform is not None else None
    except UserError as error:
        print(f"drawn without beats: {error}")
    motion, rests = None, []
    if with_motion:
        sigma_samples = DEFAULT_SMOOTHING_SECONDS * clip.fps
        curve = gaussian_smoothed(frame_difference(clip.frames), sigma_samples=sigma_samples)
        motion = curve.tolist()
        rests = kinematic_beats(curve, fps=clip.fps, smoothing_seconds=0.0).tolist()
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
        pair: Put clips of the same music, start, prompt and seed below each other.
        max_clips: Of the first so many.
        max_height: Taller frames are scaled down to it, in px.

    Raises:
        EvaluationError: If none of the clips can be read.
    """
    if pair:
        grouped = list(dict.fromkeys(entry for group in same_music(entries) for entry in group))
        if more := len(entries) - len(grouped):
            print(f"{more} clips are not drawn: each repeats another, or its list cannot be read.")
        entries = grouped
    beats.check(entries)
    shown = entries[:max_clips]
    drawn = (
        picture_row(entry, beats, max_height, label=label)
        for entry, label in zip(shown, sheet_labels(shown), strict=True)
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
    """Write one mp4, with sound, per music, start, prompt and seed that several systems have.

    Args:
        entries: The clips.
        folder: Where the videos go.
        beats: Where beats come from.
        max_videos: The first so many.
        max_height: Taller frames are scaled down to it, in px.

    Raises:
        EvaluationError: If no two systems share one.
    """
    groups = [group for group in _first_groups(entries) if len(group.clips) > 1]
    if not groups:
        raise EvaluationError(
            "No two folders hold a clip of the same track, start, prompt and seed; give folders "
            "that were generated for the same list of requests."
        )
    beats.check(entries)
    num_written = 0
    named = list(zip(groups, video_names(groups), strict=True))
    for group, name in tqdm(named[:max_videos], unit="video", desc="side by side"):
        drawn = [
            picture_row(entry, beats, max_height, label=system)
            for system, entry in group.clips.items()
        ]
        panels = [panel for panel in drawn if panel is not None]
        if len(panels) > 1:
            side_by_side(panels, folder / f"{name}.mp4")
            num_written += 1
    print(f"{num_written} videos in {folder}")
    beside = {entry for group in groups for entry in group.clips.values()}
    alone = [entry for entry in entries if entry not in beside]
    if alone:
        print(f"{len(alone)} clips stand beside no other, such as {alone[0].path}")
