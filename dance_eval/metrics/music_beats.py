"""Beats of the music, tracked or known, and its tempo where a name or list says it."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from dance_eval.metrics.beat_trackers import (
    TEMPO_TOLERANCE,
    BeatTracker,
    LibrosaBeats,
    TrackedBeats,
)
from dance_eval.metrics.clip_folder import ClipEntry, content_digest
from dance_eval.metrics.matching import Pieces, name_of
from musicinfuser.aist_music import MUSIC_BPM, music_code
from musicinfuser.errors import UserError
from musicinfuser.joint_files import read_numbers
from musicinfuser.media.tempo import FACTORS

TEMPO_MARK = re.compile(r"^(.*?)_?tempo_(\d+(?:\.\d+)?)$")
"""End of a file's or folder's name that says at how many times its tempo a track is played."""


def tempo_of(path: str | Path) -> tuple[str, float]:
    """Name of a track and the factor of its tempo, from its path.

    The file's stem or the nearest folder that ends in ``tempo_<factor>`` says it:
    ``song_tempo_0.75.wav`` and ``tempo_0.75/music/song.wav`` are ``song`` at 0.75 times its tempo.
    Without one the factor is 1.
    """
    path = Path(os.path.normpath(path))
    found = _tempo_mark(path.stem)
    name = found[1] if found else path.stem
    marks = [found, *(_tempo_mark(part) for part in reversed(path.parts[:-1]))]
    return name, next((float(mark[2]) for mark in marks if mark), 1.0)


def without_tempo(parts: Sequence[str]) -> tuple[str, ...]:
    """Folders and names without what `TEMPO_MARK` finds; those that say nothing else are gone."""
    marks = ((part, _tempo_mark(part)) for part in parts)
    return tuple(name for part, mark in marks if (name := mark[1] if mark else part))


def _tempo_mark(part: str) -> re.Match[str] | None:
    found = TEMPO_MARK.match(part)
    # ``house_tempo_128`` says beats per minute.
    return found if found and FACTORS[0] <= float(found[2]) <= FACTORS[1] else None


def place_of(entry: ClipEntry, named: str | None) -> Path:
    """Where a sound that a clip's list names lies, or would lie; None: the clip itself."""
    return entry.file_of(named or entry.file) or entry.folder / (named or entry.file)


def known_bpm(entry: ClipEntry) -> float | None:
    """Beats per minute of a clip's music as it is played, by its list, else by its AIST name."""
    if entry.bpm is not None:
        return entry.bpm
    name, factor = tempo_of(place_of(entry, entry.track))
    code = music_code(name)
    return None if code is None else MUSIC_BPM[code] * factor


def read_known_beats(path: Path | str) -> torch.Tensor:
    """Beats of a track from a JSON file ``{"beats_seconds": [...]}``, float64, shape (num_beats,).

    `UserError` if the file is missing or does not hold finite ascending times.
    """
    beats = read_numbers(path, "beats_seconds", "with times in seconds")
    if beats.ndim != 1 or not (beats.isfinite().all() and (beats.diff() > 0).all()):
        raise UserError(f"{path}: beats_seconds must be finite and ascending; sort the times.")
    return beats


def beats_in_clip(
    beats_seconds: torch.Tensor, *, offset_seconds: float = 0.0, duration_seconds: float
) -> torch.Tensor:
    """The beats of a track that fall into a clip, on the clip's own clock, float64.

    The clip starts at the offset in the track; its times lie in [0, duration_seconds).
    """
    times = beats_seconds.double() - offset_seconds
    # Offsets are decimal fractions; a beat exactly on the start must survive the subtraction.
    times = torch.where(times.abs() < 1e-6, torch.zeros_like(times), times)
    return times[(times >= 0) & (times < duration_seconds)]


class MusicTempo(NamedTuple):
    """How fast the music of a clip is, in beats per minute."""

    bpm: float
    """From the median time between beats."""
    other_bpm: tuple[float, ...]
    """What the tracker finds from other start tempi, where that is another tempo."""


@dataclass
class MusicBeats:
    """Where the music beats of all clips of one evaluation come from, each file read once.

    Args:
        read_waveform: Reads a media file as mono at the tracker's rate, shape (S,).
        mode: ``"tracked"``: the tracker on the whole track if the clip's list names one, else on
            the clip's own sound. ``"truth"``: a JSON file beside the track (or beside the clip, if
            no track is named) of the same stem, as `read_known_beats` reads it.
        folder: Where the JSON files lie instead: ``a/audio.json`` for a track ``music/a/audio.wav``
            if it is there, else ``audio.json``.
        tracker: What finds the beats.
        use_known_tempo: Whether to track near the tempo that a list or an AIST name says; AIST++'s
            code does not.
    """

    read_waveform: Callable[[Path], torch.Tensor]
    mode: Literal["tracked", "truth"] = "tracked"
    folder: Path | None = None
    tracker: BeatTracker = field(default_factory=LibrosaBeats)
    use_known_tempo: bool = True
    _beats: dict[tuple[Path, float | None], TrackedBeats] = field(
        default_factory=dict, init=False, repr=False
    )

    def source(self, entry: ClipEntry) -> tuple[Literal["truth", "track", "clip"], Path]:
        """What the beats of a clip are taken from, and the file, which may be missing."""
        if self.mode == "truth":
            named = entry.track or entry.file
            if self.folder is None:
                places = [p.with_suffix(".json") for p in (entry.folder / named, Path(named))]
                places = places if entry.track is not None else places[:1]
            else:
                *folders, stem = name_of(entry, named)
                tails = (folders[depth:] for depth in range(len(folders) + 1))
                places = [self.folder.joinpath(*tail, f"{stem}.json") for tail in tails]
            likely = places[0 if self.folder is None else -1]
            return "truth", next((place for place in places if place.is_file()), likely)
        if entry.track is None:
            return "clip", entry.path
        return "track", entry.file_of(entry.track) or entry.folder / entry.track

    def check(self, entries: Sequence[ClipEntry]) -> None:
        """`UserError` if the tracker cannot run, or one file would give beats of two pieces."""
        if self.mode == "tracked":
            self.tracker.check()
        if self.mode != "truth" or self.folder is None:
            return
        pieces, users = Pieces(entries), dict[Path, ClipEntry]()
        for entry in entries:
            _, path = self.source(entry)
            other = users.setdefault(path, entry)
            if path.is_file() and pieces.of(other) != pieces.of(entry):
                names = " and ".join(clip.track or clip.file for clip in (other, entry))
                raise UserError(
                    f"{path}: would give the beats of {names}, which are two pieces of music; put "
                    f"a file for each below {self.folder}, such as <folder>/<track stem>.json."
                )

    def key(self, entry: ClipEntry) -> list[str | float]:
        """Everything that the beats of a clip depend on."""
        kind, path = self.source(entry)
        settings = [] if kind == "truth" else self.tracker.identity
        if (known := self._prior(entry)) is not None:
            settings.append(known)
        digest = content_digest(path) or "missing"
        return [kind, digest, entry.track_offset_seconds, *settings]

    def read(self, entry: ClipEntry, *, duration_seconds: float) -> torch.Tensor:
        """Beats in [0, duration_seconds) on the clip's clock, float64, shape (num_beats,).

        Raises:
            UserError: If the file cannot be read, or a track is named that is not there.
        """
        kind, path = self.source(entry)
        if kind == "track" and not path.is_file():
            raise UserError(
                f"{entry.listed or entry.path}: names the track {entry.track} for {entry.file}, "
                f"which exists neither in {entry.folder} nor in the working directory; mend the "
                "name, or name no track to take the beats of the clip's own sound."
            )
        place = path, self._prior(entry)
        if place not in self._beats and kind == "truth":
            self._beats[place] = TrackedBeats(read_known_beats(path))
        elif place not in self._beats:
            self._beats[place] = self.tracker(
                self.read_waveform(path),
                rate_hz=self.tracker.rate_hz,
                known_bpm=self._prior(entry),
            )
        return beats_in_clip(
            self._beats[place].seconds,
            offset_seconds=0.0 if kind == "clip" else entry.track_offset_seconds,
            duration_seconds=duration_seconds,
        )

    def _prior(self, entry: ClipEntry) -> float | None:
        """The tempo near which beats are tracked."""
        return known_bpm(entry) if self.mode == "tracked" and self.use_known_tempo else None

    def tempo(self, entry: ClipEntry) -> MusicTempo | None:
        """Tempo of the beats that `read` found; None without."""
        found = self._beats.get((self.source(entry)[1], self._prior(entry)))
        if found is None or len(found.seconds) < 2:
            return None
        return MusicTempo(60 / float(found.seconds.diff().median()), found.other_bpm)


def tempo_disagreements(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence on music in records of metrics.json with beats at another than the known tempo."""
    known = [r for r in records if r.get("music_bpm") and r.get("known_bpm")]
    found = {
        r.get("beats_file") or r["file"]: (r["music_bpm"], r["known_bpm"])
        for r in known
        if abs(r["music_bpm"] / r["known_bpm"] - 1) > TEMPO_TOLERANCE
    }
    if not found:
        return []
    listed = "; ".join(
        f"{Path(file).name} at {bpm:.0f} bpm, known {true:.0f}"
        for file, (bpm, true) in found.items()
    )
    num = len({r.get("beats_file") or r["file"] for r in known})
    return [
        f"Beats are at another tempo than the known one in {len(found)} of {num} files: {listed}."
    ]


def uncertain_tempi(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence on music in records of metrics.json whose tempo depends on the start tempo."""
    tracked = {
        r.get("beats_file") or r["file"]: (r["music_bpm"], r.get("other_bpm") or [])
        for r in records
        if r.get("music_bpm")
    }
    unsure = {file: found for file, found in tracked.items() if found[1]}
    if not unsure:
        return []
    listed = "; ".join(
        f"{Path(file).name} at {bpm:.0f} bpm or {' or '.join(f'{other:.0f}' for other in others)}"
        for file, (bpm, others) in unsure.items()
    )
    return [
        f"The tempo depends on the tempo that the tracker starts from in {len(unsure)} of "
        f"{len(tracked)} files: {listed}. Say which it is in the column bpm of clips.csv."
    ]


def beat_sources(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where the music beats of records in metrics.json came from: a sentence per kind of source."""
    lines = []
    there = [record for record in records if record.get("beats_file", "") is not None]
    for kind, said in _SOURCES.items():
        if not (own := [record for record in there if record.get("music_beats") == kind]):
            continue
        files = [record.get("beats_file") or record["file"] for record in own]
        starts = {record.get("track_offset_seconds") or 0.0 for record in own}
        from_on = f"{min(starts):g}" + (f" to {max(starts):g}" if len(starts) > 1 else "")
        num, clips = len(set(files)), "clip" if len(own) == 1 else "clips"
        lines.append(
            f"Music beats of {len(own)} {clips}: {said.format(starts=from_on)} "
            f"({num} file{'s' * (num > 1)}, such as {files[0]})."
        )
    if missing := len(records) - len(there):
        clips = "clip" if missing == 1 else "clips"
        lines.append(f"Music beats of {missing} {clips}: none, the file they lie in is not there.")
    return lines + tempo_disagreements(records) + uncertain_tempi(records)


_SOURCES = {
    "truth": "known, from truth files, from second {starts} of the music on",
    "track": "tracked in the named track, from second {starts} of it on",
    "clip": "tracked in the clip's own sound, since its list names no track",
}
