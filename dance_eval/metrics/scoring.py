"""Scoring clips, in this process and in others, into the records of metrics.json."""

import hashlib
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from dance_eval.metrics.clip import ClipMetric, NamedMetric, ScoredClip, SetMetric
from dance_eval.metrics.clip_folder import ClipEntry, content_digest
from dance_eval.metrics.music_beats import MusicBeats, known_bpm
from dance_eval.metrics.report import Document
from dance_eval.metrics.workers import WorkerLost, results_of
from musicinfuser.errors import UserError, WriteError
from musicinfuser.fingerprint import file_digest
from musicinfuser.safetensors_files import save_tensors

# Starting processes takes as long as scoring about so many clips.
CLIPS_PER_WORKER = 8
SHAPE_FIELDS = ("num_frames", "fps")
TEMPO_FIELDS = ("music_bpm", "other_bpm")
_ENTRY_FIELDS = (
    *("file", "system", "track", "track_offset_seconds", "prompt", "seed"),
    *("heard", "heard_offset_seconds"),
)


def start_record(
    entry: ClipEntry,
    *,
    beats: MusicBeats,
    metrics: Sequence[NamedMetric],
    specs: Sequence[Document],
    decoding: list[str | float],
) -> Document:
    """A clip's record in metrics.json before scoring; what is wrong already is a failure.

    Values depend on the beats, on each metric's class path and arguments, and on ``decoding``: the
    seed and how clips are decoded.
    """
    problem, digest = entry.problem, None
    keys: dict[str, str] = {}
    if problem is None:
        try:
            digest = file_digest(entry.path)
            beats_key = beats.key(entry)
        except OSError as error:
            problem = f"{error.filename}: cannot be opened ({error.strerror})."
    if digest and entry.sha256 and digest != entry.sha256:
        problem = f"{entry.path}: is not the file that its manifest describes (sha256 differs)."
    if problem is None:
        shared = [entry.file, entry.fps, entry.num_frames, entry.prompt, *decoding, beats_key]
        for metric, spec in zip(metrics, specs, strict=True):
            files = metric.files_of(entry.path)
            digests = (file_digest(file) if file.is_file() else "missing" for file in files)
            if metric.combining:
                args = {k: v for k, v in spec["init_args"].items() if k not in metric.combining}
                spec = spec | {"init_args": args}
            parts = [spec, shared, *digests]
            if (key := metric.clip_key(entry)) is not None:
                parts.append(key)
            text = json.dumps(parts, sort_keys=True)
            keys[metric.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
    kind, beats_file = beats.source(entry)
    return {
        "folder": str(entry.folder),
        **{name: getattr(entry, name) for name in _ENTRY_FIELDS},
        "track_sha256": content_digest(entry.file_of(entry.track)) if entry.track else None,
        "music_beats": kind,
        "beats_file": os.path.normpath(beats_file) if beats_file.is_file() else None,
        "music_bpm": None,
        "other_bpm": None,
        "known_bpm": known_bpm(entry),
        "sha256": digest,
        **dict.fromkeys(SHAPE_FIELDS),
        "keys": keys,
        "values": {},
        "features": {},
        "failures": {} if problem is None else {metric.name: problem for metric in metrics},
    }


def entry_of(record: Document) -> ClipEntry:
    """The clip of a record, as far as its music and what it was generated for go."""
    known = {name: record[name] for name in (*_ENTRY_FIELDS, "track_sha256") if name in record}
    return ClipEntry(folder=Path(record.get("folder", "")), **known)


def take_known(
    records: Sequence[Document],
    metrics: Sequence[NamedMetric],
    *,
    known: Document | None,
    features: Path,
) -> None:
    """Fill in what an earlier run has scored, by its metrics.json and folder of descriptions."""
    earlier = [clip for clip in (known or {}).get("clips", ()) if clip.get("sha256")]
    shapes = {
        clip["sha256"]: {name: clip[name] for name in SHAPE_FIELDS}
        for clip in earlier
        if None not in map(clip.get, SHAPE_FIELDS)
    }
    scored = {
        (clip["sha256"], metric, clip["keys"][metric]): (
            values,
            {name: clip[name] for name in TEMPO_FIELDS if clip.get(name) is not None},
        )
        for clip in earlier
        if "keys" in clip
        for metric, values in clip["values"].items()
    }
    for record in records:
        record.update(shapes.get(record["sha256"], {}))
        for metric in metrics:
            key = record["keys"].get(metric.name)
            if isinstance(metric, SetMetric):
                if key and read_description(features, record, metric.name) is not None:
                    record["features"][metric.name] = description_name(record, metric.name)
            else:
                values, tempo = scored.get((record["sha256"], metric.name, key), (None, {}))
                assert isinstance(metric, ClipMetric)
                if values is not None and metric.is_final(values):
                    record["values"][metric.name] = values
                    record.update(tempo)


def description_name(record: Document, metric: str) -> str:
    """The file of a clip's numbers for a set metric."""
    return f"{record['sha256'][:16]}_{record['keys'][metric]}.safetensors"


def read_description(folder: Path, record: Document, metric: str) -> torch.Tensor | None:
    """A clip's numbers for a set metric, float64, shape (D,); None if there are none to be read."""
    if metric not in record["keys"] or metric in record["failures"]:
        return None
    try:
        numbers = load_file(folder / description_name(record, metric))["features"]
        return numbers if numbers.ndim == 1 and numbers.isfinite().all() else None
    except (OSError, KeyError, SafetensorError):
        return None


def add_sets(
    summary: Document,
    metric: SetMetric,
    *,
    entries: Sequence[ClipEntry],
    records: Sequence[Document],
    features: Path,
    seed: int,
    confidence: float,
) -> None:
    """Add the values of a set metric to the ``systems`` of metrics.json (`report.summarise`).

    All clips of ``entries`` are scored, and ``features`` is the folder of their descriptions.
    """
    described = [read_description(features, record, metric.name) for record in records]
    for system, own in summary.items():
        kept = [
            (numbers, labels)
            for entry, numbers in zip(entries, described, strict=True)
            if numbers is not None
            and (labels := metric.labels_of(entry, system=system)) is not None
        ]
        values = metric.combine(
            [numbers for numbers, _ in kept],
            [labels for _, labels in kept],
            seed=seed,
            confidence=confidence,
        )
        num_failed = sum(r["system"] == system and metric.name in r["failures"] for r in records)
        for value, interval in values.items():
            own[f"{metric.name}/{value}"] = interval.as_fields() | {"num_failed": num_failed}


def fill_in(record: Document, found: Document) -> None:
    """Add entries to a clip's record; what it holds by metric is added to."""
    for name, entry in found.items():
        record[name] = record[name] | entry if isinstance(entry, dict) else entry


@dataclass(frozen=True)
class Scorer:
    """Scores single clips; can be sent to other processes."""

    metrics: Sequence[NamedMetric]
    load: Callable[[ClipEntry], ScoredClip]
    """Decodes a clip."""
    features: Path
    """Folder where descriptions are written."""

    def missing(self, record: Document) -> list[NamedMetric]:
        """The metrics that a clip's record lacks."""
        settled = {*record["values"], *record["features"], *record["failures"]}
        return [metric for metric in self.metrics if metric.name not in settled]

    def __call__(self, task: tuple[ClipEntry, Document]) -> Document:
        """Entries that a clip's record lacks; the clip is decoded once for all metrics.

        Every kind of exception is a failure of this clip only: a batch runs for hours, and one odd
        file or one metric that runs out of memory must not end it. A full disk does.
        """
        entry, record = task
        missing = self.missing(record)
        try:
            clip = self.load(entry)
        except Exception as error:
            return {"failures": {metric.name: reason(error) for metric in missing}}
        found: Document = {"values": {}, "features": {}, "failures": {}}
        found |= {"num_frames": len(clip.frames), "fps": clip.fps}
        for metric in missing:
            try:
                if isinstance(metric, SetMetric):
                    found["features"][metric.name] = self._describe(metric, clip, record)
                else:
                    assert isinstance(metric, ClipMetric)
                    found["values"][metric.name] = _values(metric, clip, entry)
            except WriteError:
                raise
            except Exception as error:
                found["failures"][metric.name] = reason(error)
        tempo = clip.music_tempo() if clip.music_tempo is not None else None
        if tempo is None:
            return found
        others = [round(bpm, 2) for bpm in tempo.other_bpm]
        return found | {"music_bpm": round(tempo.bpm, 2), "other_bpm": others}

    def _describe(self, metric: SetMetric, clip: ScoredClip, record: Document) -> str:
        numbers = metric.describe(clip).detach().cpu().double()
        if not numbers.isfinite().all():
            raise UserError(f"{clip.name}: {metric.name} came out as no finite numbers.")
        name = description_name(record, metric.name)
        save_tensors({"features": numbers}, self.features / name)
        return name


def _values(metric: ClipMetric, clip: ScoredClip, entry: ClipEntry) -> dict[str, float]:
    found = metric.score_clip(clip)
    values = {name: float(found[name]) for name in metric.value_names if name in found}
    if not metric.is_complete(values):
        raise KeyError(f"{metric.name} gave {sorted(values)}, not {metric.value_names}")
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise UserError(f"{entry.path}: {', '.join(bad)} came out as no finite number.")
    return values


def score_clips(
    entries: Sequence[ClipEntry],
    records: Sequence[Document],
    scorer: Scorer,
    *,
    num_workers: int,
) -> tuple[int, Generator[None, None, None]]:
    """Fill in what records lack, clip by clip.

    Metrics that allow it are computed by several processes with one thread each, the others
    afterwards in this one. The values do not depend on the number of processes: where there is only
    one, it computes the former with one thread as well. Few clips take fewer processes than
    ``num_workers``.

    Returns:
        How many steps there are, and an iterator that does one at each turn.
    """
    parts = []
    for in_workers in (True, False):
        metrics = [metric for metric in scorer.metrics if metric.in_workers is in_workers]
        part = Scorer(metrics, scorer.load, scorer.features)
        due = [number for number, record in enumerate(records) if part.missing(record)]
        parts.append((part, due))
    num_steps = sum(len(due) for _, due in parts)

    def steps() -> Generator[None, None, None]:
        (shared, due), (own, due_here) = parts
        tasks = [(entries[number], records[number]) for number in due]
        processes = min(num_workers, len(due) // CLIPS_PER_WORKER)
        for place, found in _results(tasks, shared, processes):
            record = records[due[place]]
            if isinstance(found, WorkerLost):
                found = {"failures": {m.name: str(found) for m in shared.missing(record)}}
            fill_in(record, found)
            yield
        for number in due_here:
            fill_in(records[number], own((entries[number], records[number])))
            yield

    return num_steps, steps()


def _results(
    tasks: Sequence[tuple[ClipEntry, Document]], scorer: Scorer, num_workers: int
) -> Iterator[tuple[int, Document | WorkerLost]]:
    if num_workers > 1:
        yield from results_of(tasks, scorer, num_workers=num_workers)
        return
    for place, task in enumerate(tasks):
        with one_thread():
            found = scorer(task)
        yield place, found


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums over many numbers come out differently in their last bits with more threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def reason(error: Exception) -> str:
    """One line that says what went wrong.

    What is no `UserError` keeps its type here, and its traceback on stderr: a fault of the metric.
    """
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    traceback.print_exception(error, file=sys.stderr)
    return f"{type(error).__name__}: {text}"
