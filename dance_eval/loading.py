"""From folders of clips to decoded clips: shared by all commands of `evaluate.py`."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from dance_eval.metrics.beat_trackers import BEAT_RATE_HZ
from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.clip_folder import ClipEntry, list_clips
from dance_eval.metrics.matching import Pieces
from dance_eval.metrics.music_beats import MusicBeats
from musicinfuser.errors import UserError
from musicinfuser.media.audio import read_audio
from musicinfuser.media.video import VideoInfo, probe_video, read_clip


class EvaluationError(UserError):
    """The evaluation cannot be done as asked. The message is one sentence."""


def read_frames(entry: ClipEntry, *, max_height: int) -> tuple[torch.Tensor, float]:
    """Frames of a clip, at most ``max_height`` px high, uint8 (T, H, W, 3), and their rate.

    `UserError` if they cannot be read.
    """
    return _frames(entry, probe_video(entry.path), max_height=max_height)


def _frames(entry: ClipEntry, info: VideoInfo, *, max_height: int) -> tuple[torch.Tensor, float]:
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
    return frames, fps


def load_clip(entry: ClipEntry, *, beats: MusicBeats, seed: int, max_height: int) -> ScoredClip:
    """Decode one clip, at most ``max_height`` px high; `UserError` if it cannot be read."""
    info = probe_video(entry.path)
    frames, fps = _frames(entry, info, max_height=max_height)
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
        music_tempo=functools.partial(beats.tempo, entry),
        image=None if entry.image is None else entry.file_of(entry.image) or Path(entry.image),
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
