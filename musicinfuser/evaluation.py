"""From folders of clips to decoded clips: shared by all verbs of `evaluate.py`."""

import functools
from collections.abc import Sequence
from pathlib import Path

from musicinfuser.media.audio import read_audio
from musicinfuser.media.contact_sheet import SheetRow
from musicinfuser.media.video import probe_video, read_clip
from musicinfuser.metrics.clip import ScoredClip
from musicinfuser.metrics.clip_folder import ClipEntry, list_clips
from musicinfuser.metrics.music_beats import BEAT_RATE_HZ, MusicBeats


class EvaluationError(ValueError):
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
    entry: ClipEntry, beats: MusicBeats, max_height: int, *, label: str
) -> SheetRow | None:
    """A clip as it is drawn, or None and a line on why not."""
    try:
        clip = load_clip(entry, beats=beats, seed=0, max_height=max_height)
        times = clip.music_beats().tolist() if clip.waveform is not None else None
    except ValueError as error:
        print(f"not drawn: {error}")
        return None
    return SheetRow(
        label=label,
        frames=clip.frames,
        fps=clip.fps,
        audio=clip.waveform,
        audio_rate_hz=clip.rate_hz if clip.waveform is not None else None,
        beats_seconds=times,
    )
