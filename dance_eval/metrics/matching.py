"""What a piece of music is, and which clips belong together, for all tools of evaluation."""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path, PurePath
from typing import NamedTuple

from dance_eval.metrics.clip_folder import ClipEntry, content_digest
from musicinfuser.generation_requests import NO_AUDIO, SILENCE

Name = tuple[str, ...]


@dataclass(frozen=True)
class Sound:
    """What is known about the music of a clip."""

    source: Hashable
    """The list that names it; what one list names differently is different."""
    digest: str | None
    """SHA-256 of its file, or None where the file is not here."""
    name: Name
    """Its path without the suffix, folder by folder."""
    is_clip: bool = False
    """Whether no track is named, so that the name is the clip's own."""


def sound_of(entry: ClipEntry, named: str | None) -> Sound:
    """The sound that a clip's list names, such as its track; None: the clip's own."""
    digest = entry.track_sha256 if named == entry.track else None
    if named is not None and digest is None:
        digest = content_digest(entry.file_of(named))
    source = (str(entry.folder), entry.system)
    name = (unicodedata.normalize("NFC", part) for part in name_of(entry, named or entry.file))
    return Sound(source, digest, tuple(name), is_clip=named is None)


def name_of(entry: ClipEntry, named: str) -> Name:
    """Folders and stem of a path as a list names it, from the list's folder where it leaves it."""
    path = os.path.normpath(named)
    if path.startswith(os.pardir):
        path = os.path.normpath(entry.folder / path)
    *folders, last = PurePath(path).parts
    suffix = PurePath(last).suffix
    # "song 1.5" ends in no suffix.
    if suffix[1:].isalnum() and not suffix[1:].isdigit():
        last = last.removesuffix(suffix)
    return (*(part for part in folders if part not in (os.sep, os.pardir)), last)


def told_apart(sounds: Iterable[Sound]) -> dict[Sound, str]:
    """Which sounds are one piece of music.

    Files that are here are one piece if their content is the same, wherever they lie. Others are
    known by their names alone: as many parts of their paths, from the end, as it takes to tell the
    pieces of every list apart. So ``music/song.wav`` and ``/data/song.wav`` are one piece, unless
    a list has another ``song`` too, as in ``a/song.wav`` and ``b/song.wav``. Sounds of one piece
    get equal texts.
    """
    pieces: dict[Sound, str] = {}

    def split(members: Sequence[Sound], depth: int) -> None:
        digests = {sound.digest for sound in members if sound.digest is not None}
        lists = _grouped(members, lambda sound: sound.source)
        if len(digests) < 2 and all(_num_pieces(own) < 2 for own in lists.values()):
            longest = max((sound.name for sound in members), key=lambda name: (len(name), name))
            piece = next(iter(digests), None) or "/".join(longest)
            pieces.update(dict.fromkeys(members, piece))
            return
        for sound in members:
            if sound.digest is not None or len(sound.name) == depth:
                pieces[sound] = sound.digest or "/".join(sound.name)
        deeper = [sound for sound in members if len(sound.name) > depth]
        for own in _grouped(deeper, lambda sound: sound.name[-depth - 1 :]).values():
            split(own, depth + 1)

    for own in _grouped(dict.fromkeys(sounds), lambda sound: sound.name[-1:]).values():
        split(own, 1)
    return pieces


def _grouped(
    sounds: Iterable[Sound], key: Callable[[Sound], Hashable]
) -> dict[Hashable, list[Sound]]:
    groups: dict[Hashable, list[Sound]] = defaultdict(list)
    for sound in sounds:
        groups[key(sound)].append(sound)
    return groups


def _num_pieces(sounds: Sequence[Sound]) -> int:
    """How many pieces one list names; a name that ends another one is that one."""
    known = {sound.name for sound in sounds if sound.digest is not None}
    unknown = _longest({sound.name for sound in sounds}) - known
    return len({sound.digest for sound in sounds if sound.digest is not None}) + len(unknown)


def _ends_in(name: Name, end: Name) -> bool:
    return name[-len(end) :] == end


def _longest(names: set[Name]) -> set[Name]:
    """Those that are not the end of another one."""
    return {n for n in names if not any(n != other and _ends_in(other, n) for other in names)}


def track_of(entry: ClipEntry) -> str:
    """What people call a clip's music: its track without folder and suffix, or the clip so."""
    return name_of(entry, entry.track or entry.file)[-1]


class Pieces:
    """The pieces of music of a set of clips.

    Args:
        entries: All clips that are looked at together; of others, `of` knows the clip alone.

    Attributes:
        notes: One sentence for every piece whose files are not here and whose names differ.
    """

    def __init__(self, entries: Iterable[ClipEntry] = ()) -> None:
        sounds = {
            (entry, named): sound_of(entry, named)
            for entry in entries
            for named in (entry.track, entry.heard)
            if (named is not None or entry.track is None) and named not in (SILENCE, NO_AUDIO)
        }
        pieces = told_apart(sounds.values())
        self._pieces = {key: pieces[sound] for key, sound in sounds.items()}
        members: dict[str, set[Sound]] = defaultdict(set)
        for sound, piece in pieces.items():
            members[piece].add(sound)
        self.notes = [note for own in members.values() if (note := _by_name(own))]
        self._titles = _titles({piece: max(s.name for s in own) for piece, own in members.items()})

    def of(self, entry: ClipEntry) -> str:
        """A text that is equal for clips of one piece of music."""
        return self._piece(entry, entry.track)

    def conditioned_on(self, entry: ClipEntry) -> str | None:
        """The piece that the model was conditioned on in place of the clip's; None: the clip's."""
        if entry.heard in (None, SILENCE, NO_AUDIO):
            return entry.heard
        return self._piece(entry, entry.heard)

    def title(self, entry: ClipEntry) -> str:
        """What people call the piece: its name, with folders where another one has that name."""
        return self._titles.get(self.of(entry), track_of(entry))

    def _piece(self, entry: ClipEntry, named: str | None) -> str:
        if (entry, named) not in self._pieces:
            sound = sound_of(entry, named)
            return told_apart([sound])[sound]
        return self._pieces[entry, named]


def _by_name(sounds: Iterable[Sound]) -> str:
    named = {sound for sound in sounds if not sound.is_clip}
    places = _longest({sound.name for sound in named})
    if len(places) < 2 or all(sound.digest for sound in named):
        return ""
    listed = " and ".join("/".join(name) for name in sorted(places)[:2])
    return f"{listed} are taken for one piece by their names, since the files are not all here."


def _titles(names: dict[str, Name]) -> dict[str, str]:
    titles = {}
    for piece, name in names.items():
        others = [other for key, other in names.items() if key != piece and other[-1] == name[-1]]
        depth = 1
        while depth < len(name) and any(_ends_in(other, name[-depth:]) for other in others):
            depth += 1
        title = "/".join(name[-depth:])
        is_taken = any(_ends_in(other, name[-depth:]) for other in others)
        titles[piece] = f"{title} ({piece[:6]})" if is_taken else title
    return titles


def strangers(contents: Sequence[tuple[ClipEntry, Hashable]]) -> dict[Path, ClipEntry]:
    """For every clip, by its path, the next one in the list whose content is another one.

    Clips are missing where all have the same.
    """
    found = {}
    for number, (entry, own) in enumerate(contents):
        following = (contents[(number + k) % len(contents)] for k in range(1, len(contents)))
        other = next((one for one, content in following if content != own), None)
        if other is not None:
            found[entry.path] = other
    return found


def start_of(entry: ClipEntry) -> float:
    """Where in its track a clip starts, in seconds, to the millisecond."""
    return round(entry.track_offset_seconds, 3)


def is_same(first: ClipEntry, second: ClipEntry) -> bool:
    """Whether prompt and seed are the same."""
    return (first.prompt, first.seed) == (second.prompt, second.seed)


def is_compatible(first: ClipEntry, second: ClipEntry) -> bool:
    """Whether no prompt and seed speak against it; films of people have none."""
    return all(
        one is None or other is None or one == other
        for one, other in ((first.prompt, second.prompt), (first.seed, second.seed))
    )


class MatchedPair(NamedTuple):
    """Two clips for the same music, start, prompt and seed, in the order of their systems."""

    first: ClipEntry
    second: ClipEntry


def matched(
    entries: Sequence[ClipEntry], pieces: Pieces
) -> tuple[list[MatchedPair], list[tuple[ClipEntry, str]]]:
    """Pair the clips of every two systems by what they were generated for.

    Clips with the same music and start are paired if prompt and seed agree too; where a list names
    no prompt or seed, as for films of people, the first clip left with that music is taken. No clip
    is in two pairs of the same two systems, which keep the order in which they first appear.

    Returns:
        The pairs, and every clip without a counterpart with the system that lacks it.
    """
    systems: dict[str, dict[tuple[str, str, float], list[ClipEntry]]] = {}
    for entry in entries:
        music = pieces.title(entry), pieces.of(entry), start_of(entry)
        systems.setdefault(entry.system, defaultdict(list))[music].append(entry)
    pairs: list[MatchedPair] = []
    alone: list[tuple[ClipEntry, str]] = []
    for one, other in combinations(systems, 2):
        for music in sorted({*systems[one], *systems[other]}):
            mine, theirs = (list(systems[system].get(music, ())) for system in (one, other))
            for agrees in (is_same, is_compatible):
                for entry in list(mine):
                    if found := next((clip for clip in theirs if agrees(entry, clip)), None):
                        pairs.append(MatchedPair(entry, found))
                        mine.remove(entry)
                        theirs.remove(found)
            alone += [(entry, other) for entry in mine] + [(entry, one) for entry in theirs]
    return pairs, alone


@dataclass(frozen=True)
class ClipGroup:
    """The clips of one generation request."""

    track: str
    """Name of the music, with folders where another piece has the same one."""
    offset_seconds: float
    """Where in the track the clips start."""
    prompt: str | None
    """The text that they were generated for, where it is known."""
    seed: int | None = None
    """What their generation was seeded with, where it is known."""
    number: int = 1
    """From 1; above it, of clips that a system has several of for one request."""
    clips: dict[str, ClipEntry] = field(default_factory=dict)
    """By system."""


def clip_groups(entries: Sequence[ClipEntry]) -> list[ClipGroup]:
    """Clips by music, start, prompt and seed, one per system.

    Of several clips of one system for one request, the first stands beside the first of the others,
    the second beside the second. A clip whose prompt or seed is not known, such as a recording,
    stands in every group of its music that it fits; several such clips of one system share them
    out. Systems keep their order, groups have that of tracks, starts, prompts and seeds.
    """
    pieces = Pieces(entries)
    order = {system: n for n, system in enumerate(dict.fromkeys(e.system for e in entries))}
    counts: Counter[Hashable] = Counter()
    groups: dict[str, list[tuple[ClipEntry, ClipGroup]]] = defaultdict(list)
    # Clips that are known best make the groups, the others find theirs.
    owns = {e: (e.system, pieces.of(e), start_of(e), e.prompt, e.seed) for e in entries}
    totals = Counter(owns[entry] for entry in entries)
    for entry in sorted(entries, key=lambda e: (e.prompt is None) + (e.seed is None)):
        own = owns[entry]
        _, piece, start, *_ = own
        counts[own] += 1
        near = [(asked, g) for asked, g in groups[piece] if g.offset_seconds == start]
        found = [g for asked, g in near if is_same(asked, entry) and g.number == counts[own]]
        if not found:
            # Not where a clip of the system stands of which more is known.
            free = [
                group
                for asked, group in near
                if is_compatible(asked, entry) and owns[group.clips.get(entry.system, entry)] == own
            ]
            found = free[counts[own] - 1 :: totals[own]]
        if not found:
            title = pieces.title(entry)
            found = [ClipGroup(title, start, entry.prompt, entry.seed, counts[own])]
            groups[piece].append((entry, found[0]))
        for group in found:
            group.clips.setdefault(entry.system, entry)
    found = [group for own in groups.values() for _, group in own]
    for group in found:
        clips = sorted(group.clips.items(), key=lambda item: order[item[0]])
        group.clips.clear()
        group.clips.update(clips)

    def place(group: ClipGroup) -> tuple[str, float, str, int, int]:
        seed = -1 if group.seed is None else group.seed
        return group.track, group.offset_seconds, group.prompt or "", seed, group.number

    return sorted(found, key=place)
