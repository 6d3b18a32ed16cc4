"""`evaluate.py sheet` and `evaluate.py side_by_side`: clips as pictures and as videos."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt
from tqdm import tqdm

from dance_eval.commands.options import MAX_CLIPS, add_decoding_options, music_beats
from dance_eval.contact_sheet import SheetRow, contact_sheet
from dance_eval.loading import EvaluationError, collect_clips, load_clip
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.matching import ClipGroup, clip_groups
from dance_eval.metrics.motion import (
    DEFAULT_SMOOTHING_SECONDS,
    frame_difference,
    gaussian_smoothed,
    kinematic_beats,
)
from dance_eval.metrics.music_beats import MusicBeats
from dance_eval.side_by_side import side_by_side
from musicinfuser.atomic_files import require_writable
from musicinfuser.errors import UserError
from musicinfuser.generation_requests import slug
from musicinfuser.option_parser import OptionParser


def sheet_parser() -> ArgumentParser:
    """The options of `sheet`."""
    sheet = _parser("Draw clips, their sound and beats on one picture.", Path("contact_sheet.png"))
    sheet.add_argument(
        "--pair", type=bool, default=False, help="Clips of the same music below each other."
    )
    return sheet


def side_by_side_parser() -> ArgumentParser:
    """The options of `side_by_side`."""
    return _parser("Show systems beside each other, with sound.", Path("side_by_side"))


def _parser(description: str, output: Path) -> ArgumentParser:
    parser = OptionParser(description=description)
    parser.add_argument("folders", nargs="+", type=Path, help="As for `score`.")
    parser.add_argument("--output", type=Path, default=output)
    parser.add_argument("--max_clips", type=PositiveInt, default=MAX_CLIPS)
    add_decoding_options(parser)
    return parser


def run_sheet(settings: Namespace) -> None:
    """Draw the sheet; `UserError` if there is nothing to draw."""
    entries, _ = collect_clips(settings.folders)
    require_writable(settings.output.parent, option="--output")
    draw_sheet(entries, settings.output, settings, pair=settings.pair)


def run_side_by_side(settings: Namespace) -> None:
    """Write the videos; `UserError` if no two systems share a piece of music."""
    entries, _ = collect_clips(settings.folders)
    require_writable(settings.output, option="--output")
    write_side_by_side(entries, settings.output, settings)


def draw_sheet(
    entries: Sequence[ClipEntry], output: Path, settings: Namespace, *, pair: bool
) -> None:
    """Draw clips on one png in their order, with sound and beats under each.

    With ``pair`` those of the same music, start, prompt and seed come below each other; the
    settings say how many, how large, and where beats come from. `EvaluationError` if none of the
    clips can be read.
    """
    if pair:
        grouped = list(dict.fromkeys(entry for group in same_music(entries) for entry in group))
        if more := len(entries) - len(grouped):
            print(f"{more} clips are not drawn: each repeats another, or its list cannot be read.")
        entries = grouped
    beats = music_beats(settings)
    beats.check(entries)
    shown = entries[: settings.max_clips]
    drawn = (
        picture_row(entry, beats, settings.max_height, label=label)
        for entry, label in zip(shown, sheet_labels(shown), strict=True)
    )
    rows = [row for row in drawn if row is not None]
    if not rows:
        raise EvaluationError(f"None of the {len(entries)} clips could be drawn.")
    contact_sheet(rows, output)
    print(f"{len(rows)} clips on {output}")


def write_side_by_side(entries: Sequence[ClipEntry], folder: Path, settings: Namespace) -> None:
    """Write one mp4, with sound, per music, start, prompt and seed that several systems have.

    The settings say how many, how large, and where beats come from. `EvaluationError` if no two
    systems share one.
    """
    groups = [group for group in _first_groups(entries) if len(group.clips) > 1]
    if not groups:
        raise EvaluationError(
            "No two folders hold a clip of the same track, start, prompt and seed; give folders "
            "that were generated for the same list of requests."
        )
    beats = music_beats(settings)
    beats.check(entries)
    num_written = 0
    named = list(zip(groups, video_names(groups), strict=True))
    for group, name in tqdm(named[: settings.max_clips], unit="video", desc="side by side"):
        drawn = [
            picture_row(entry, beats, settings.max_height, label=system)
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


def same_music(entries: Sequence[ClipEntry]) -> list[list[ClipEntry]]:
    """Clips by music, start, prompt and seed, one per system, as `clip_groups` has them."""
    return [list(group.clips.values()) for group in _first_groups(entries)]


def _first_groups(entries: Sequence[ClipEntry]) -> list[ClipGroup]:
    """Of the clips that can be read and that a system has several of for one request, the first."""
    usable = [entry for entry in entries if entry.problem is None]
    return [group for group in clip_groups(usable) if group.number == 1]


def video_names(groups: Sequence[ClipGroup]) -> list[str]:
    """Names of files, without suffix, no two alike."""
    names: list[str] = []
    for group in groups:
        start = f"_from_{group.offset_seconds:g}s" if group.offset_seconds else ""
        names.append(f"{group.track.replace('/', '_')}{start}")
    unique: list[str] = []
    for name, group in zip(names, groups, strict=True):
        if names.count(name) > 1:
            seed = "" if group.seed is None else f"_seed{group.seed}"
            name = f"{name}_{slug(group.prompt or '')}{seed}"
        # Slugs are cut short, and a track may be called like that.
        tries = (f"{name}_{number}" for number in itertools.count(2))
        unique.append(next(own for own in itertools.chain([name], tries) if own not in unique))
    return unique


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
