"""Pairs of clips as the page will show them, and what had to be left out or changed for it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.matching import MatchedPair, Pieces, matched
from dance_eval.study.media import SPOILINGS, Form, Picture, Source, open_source, sounds_differ
from musicinfuser.errors import UserError
from musicinfuser.keyed_random import generator


@dataclass(frozen=True)
class ShownPair:
    """Two clips of one sound and one length; the intact one of a catch is the first."""

    first: Picture
    second: Picture

    @property
    def paths(self) -> set[Path]:
        """The files it needs."""
        pictures = (self.first, self.second)
        return {s.entry.path for picture in pictures for s in (picture.source, picture.sound)}

    def identity(self) -> str:
        """A text that is equal for pairs that look and sound the same."""
        return f"{self.first.identity()} {self.second.identity()}"


def open_sources(entries: Iterable[ClipEntry]) -> tuple[list[Source], list[str]]:
    """Look at all clips: those that can be read, and one sentence for each other."""
    sources: list[Source] = []
    notes: list[str] = []
    for entry in tqdm(entries, unit="clip", desc="clips"):
        try:
            sources.append(open_source(entry))
        except UserError as error:
            notes.append(f"Left out: {error}")
    return sources, notes


def match_clips(entries: Sequence[ClipEntry]) -> tuple[list[MatchedPair], list[str]]:
    """Pair the clips of every two systems as `matched` does; a sentence for each clip left over."""
    pieces = Pieces(entries)
    pairs, alone = matched(entries, pieces)
    notes = []
    for entry, system in alone:
        asked = [f"track {pieces.title(entry)}", f"start {entry.track_offset_seconds:g} s"]
        asked += [] if entry.prompt is None else [f"prompt {entry.prompt!r}"]
        asked += [] if entry.seed is None else [f"seed {entry.seed}"]
        notes.append(f"{entry.path}: {system} has no clip left for it ({', '.join(asked)}).")
    return pairs, notes


def shown_pairs(sources: Sequence[Source], *, form: Form) -> tuple[list[ShownPair], list[str]]:
    """Match clips and give each pair one sound and one length, with a sentence on every change.

    The sound is that of the system named first, or the other's where it has none.
    """
    by_path = {source.entry.path: source for source in sources}
    found, notes = match_clips([source.entry for source in sources])
    pairs: list[ShownPair] = []
    for match in tqdm(found, unit="pair", desc="sounds"):
        first, second = by_path[match.first.path], by_path[match.second.path]
        names = f"{first.entry.path} and {second.entry.path}"
        sound = first if first.info.has_audio else second
        try:
            differ = sounds_differ(first, second)
        except UserError as error:
            notes.append(f"{names}: left out, since a sound cannot be decoded: {error}")
            continue
        if not sound.info.has_audio:
            notes.append(f"{names}: left out, since neither has a sound.")
            continue
        if not (first.info.has_audio and second.info.has_audio):
            notes.append(f"{names}: one has no sound; both play that of {sound.entry.system}.")
        elif differ:
            notes.append(f"{names}: their sounds differ; both play that of {sound.entry.system}.")
        lengths = first.num_frames(form.fps), second.num_frames(form.fps)
        length = min(lengths)
        if length < max(lengths):
            notes.append(
                f"{names}: last {lengths[0]} and {lengths[1]} frames at {form.fps:g} per second; "
                f"both are cut to {length}."
            )
        pairs.append(ShownPair(Picture(first, sound, length), Picture(second, sound, length)))
    used = {path for pair in pairs for path in pair.paths}
    for source in sources:
        if source.entry.path in used and (changes := _changes(source, form)):
            notes.append(f"{source.entry.path}: {', '.join(changes)}.")
    return pairs, notes


def catch_pairs(pairs: Sequence[ShownPair], *, num_catches: int, seed: int) -> list[ShownPair]:
    """Intact clips of drawn pairs against copies of them, spoilt in each way in turn.

    No clip is drawn again before all were taken.
    """
    stream = generator(seed, 0, "study catches")
    order = torch.randperm(2 * len(pairs), generator=stream).tolist()
    ways = list(SPOILINGS)
    catches = []
    for number in range(num_catches):
        drawn = order[number % len(order)]
        pair = pairs[drawn // 2]
        intact = pair.first if drawn % 2 else pair.second
        catches.append(ShownPair(intact, replace(intact, spoiling=ways[number % len(ways)])))
    return catches


def _changes(source: Source, form: Form) -> list[str]:
    """How a clip is shown in another size or rate than it came in."""
    info, found = source.info, []
    if (info.height, info.width) != (form.height, form.width):
        found.append(f"{info.height}x{info.width} px shown as {form.height}x{form.width}")
        longest = max(info.width, info.height, form.width, form.height)
        if abs(info.width * form.height - info.height * form.width) > 2 * longest:
            found.append("cut to the study's proportions")
    if abs(info.average_fps - form.fps) > 0.01:
        found.append(f"{info.average_fps:g} frames per second shown at {form.fps:g}")
    return found
