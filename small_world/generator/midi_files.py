"""Pieces that people wrote: notes and beats of MIDI files, for sampled instruments to play.

Debian has some: ``openttd-openmsx`` (files), ``freedoom`` (inside its two .wad files).
"""

import dataclasses
import io
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from musicinfuser.errors import UserError
from small_world.generator.band import DRUM_CHANNEL, Draw, Score

BEATS_PER_BAR = 4
MAX_CHANNELS = 16
SNARES = (38, 40)
KITS = (0, 8, 16, 24, 25, 32, 40, 48)
"""Drum kits of General MIDI; of those that a soundfont lacks the first one plays."""
OTHER_INSTRUMENT = 0.4
"""How often a part is played by another instrument of its family, or the drums by another kit."""
NEAR = 0.08
"""How far from a place in the beat a note counts as there, in beats."""


def read_midi_files(folder: str | Path) -> list[Score]:
    """The pieces below a folder that have four steady beats to the bar and are played on them.

    Of what cannot be read as MIDI the names are said in one warning.

    Raises:
        UserError: There is none, or pretty_midi is not installed.
    """
    try:
        import pretty_midi
    except ImportError as error:
        raise UserError(
            "music of MIDI files needs pretty_midi: pip install pretty_midi==0.2.11"
        ) from error
    scores, seen, unreadable = [], set(), []
    for name, content in tqdm(sorted(_midi_files(Path(folder))), "reading MIDI files"):
        if content in seen:
            continue
        seen.add(content)
        try:
            midi = pretty_midi.PrettyMIDI(io.BytesIO(content))
        except Exception as error:  # noqa: BLE001 -- files of the wild raise anything
            unreadable.append(f"{name} ({error})")
            continue
        score = _score(name, midi)
        if score is not None and is_on_the_beat(score):
            scores.append(score)
    if unreadable:
        warnings.warn(f"not read as MIDI below {folder}: {', '.join(unreadable)}.", stacklevel=2)
    if not scores:
        raise UserError(f"no MIDI file with steady beats below {folder}; name another folder.")
    return scores


def excerpt(score: Score, draw: Draw, *, seconds: float) -> Score:
    """A part of a piece that starts on a bar, as other players play it.

    Another pitch and tempo, other levels, and some instruments others of their family.
    """
    speed = float(np.exp(draw.uniform(np.log(0.85), np.log(1.2))))
    steps = int(draw.integers(-5, 7))
    beats = score.beats_seconds / speed
    last = np.searchsorted(beats, beats[-1] - seconds)
    bar = BEATS_PER_BAR * int(draw.integers(0, max(int(last) // BEATS_PER_BAR, 0) + 1))
    zero = beats[bar]
    beats = beats[bar:][beats[bar:] < zero + seconds] - zero
    programs = {channel: _program(channel, *of, draw) for channel, of in score.programs.items()}
    louder = {channel: draw.uniform(0.35, 1.0) for channel in score.programs}
    notes = []
    for start, end, channel, key, loud in score.notes:
        start, end = start / speed - zero, end / speed - zero
        if 0 <= start < seconds:
            key += steps if channel != DRUM_CHANNEL else 0
            velocity = max(int(loud * louder[channel]), 8)
            notes.append((start, end, channel, int(np.clip(key, 0, 127)), velocity))
    return dataclasses.replace(
        score, bpm=score.bpm * speed, beats_seconds=beats, programs=programs, notes=notes
    )


def _program(channel: int, bank: int, preset: int, draw: Draw) -> tuple[int, int]:
    if draw.random() >= OTHER_INSTRUMENT:
        return bank, preset
    if channel == DRUM_CHANNEL:
        return bank, int(draw.choice(KITS))
    return bank, preset // 8 * 8 + int(draw.integers(8))


def is_on_the_beat(score: Score) -> bool:
    """Whether the tempo is steady and most snares, else most notes, are near beats."""
    between = np.diff(score.beats_seconds)
    if len(between) < 32 or between.std() > 0.02 * between.mean():
        return False
    starts = np.array([start for start, _, channel, _, _ in score.notes if channel != DRUM_CHANNEL])
    snares = np.array(
        [
            start
            for start, _, channel, key, _ in score.notes
            if channel == DRUM_CHANNEL and key in SNARES
        ]
    )
    at_beat, *between_beats = (_share_at(starts, score.beats_seconds, at) for at in (0, 0.25, 0.75))
    if at_beat < 1.2 * max(between_beats):
        return False
    return (_share_at(snares, score.beats_seconds, 0) if len(snares) >= 20 else at_beat) > 0.35


def _share_at(starts: NDArray[np.float64], beats: NDArray[np.float64], at: float) -> float:
    if len(starts) == 0:
        return 0.0
    place = np.interp(starts, beats, np.arange(len(beats))) - at
    return float((np.abs(place - np.round(place)) < NEAR).mean())


def _score(name: str, midi: "pretty_midi.PrettyMIDI") -> Score | None:  # type: ignore[name-defined] # noqa: F821
    """None where a bar has not four beats; instruments beyond 15 are left out."""
    if any(change.numerator != BEATS_PER_BAR for change in midi.time_signature_changes):
        return None
    beats = np.asarray(midi.get_beats(), np.float64)
    if len(beats) < 2:
        return None
    score = Score(name, float(60 / np.median(np.diff(beats))), beats, BEATS_PER_BAR, {})
    free = [channel for channel in range(MAX_CHANNELS) if channel != DRUM_CHANNEL]
    for instrument in midi.instruments:
        if instrument.is_drum:
            channel, program = DRUM_CHANNEL, (128, 0)
        elif free:
            channel, program = free.pop(0), (0, instrument.program)
        else:
            continue
        score.programs[channel] = program
        score.notes += [
            (note.start, note.end, channel, note.pitch, note.velocity) for note in instrument.notes
        ]
    return score


def _midi_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".mid", ".midi"):
            yield path.stem, path.read_bytes()
        elif path.suffix.lower() == ".wad":
            yield from _in_wad(path)


def _in_wad(path: Path) -> Iterator[tuple[str, bytes]]:
    """MIDI files among the lumps of a game's data: a directory of place, size and name."""
    content = path.read_bytes()
    _, count, directory = struct.unpack_from("<4sii", content)
    for number in range(count):
        at, size, name = struct.unpack_from("<ii8s", content, directory + 16 * number)
        if content[at : at + 4] == b"MThd":
            yield name.rstrip(b"\0").decode(), content[at : at + size]
