"""Scoring clips, in this process and in others, into the records of metrics.json."""

import math
import sys
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from dance_eval.metrics.clip import ClipMetric, NamedMetric, ScoredClip
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.records import description_name
from dance_eval.metrics.report import Document
from dance_eval.metrics.set_metric import SetMetric
from dance_eval.metrics.workers import WorkerLost, results_of
from musicinfuser.errors import UserError, WriteError
from musicinfuser.safetensors_files import save_tensors

# Starting processes takes as long as scoring about so many clips.
CLIPS_PER_WORKER = 8


def fill_in(record: Document, found: Document) -> None:
    """Add entries to a clip's record; what it holds by metric is added to."""
    for name, entry in found.items():
        record[name] = record[name] | entry if isinstance(entry, dict) else entry


@dataclass(frozen=True)
class Scorer:
    """Scores single clips; can be sent to other processes.

    Attributes:
        metrics: What is measured.
        load: Decodes a clip.
        features: Folder where descriptions are written.
    """

    metrics: Sequence[NamedMetric]
    load: Callable[[ClipEntry], ScoredClip]
    features: Path

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
        bpm = clip.music_bpm() if clip.music_bpm is not None else None
        return found if bpm is None else found | {"music_bpm": round(bpm, 2)}

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
    one, it computes the former with one thread as well.

    Args:
        entries: The clips.
        records: Their records.
        scorer: What is measured.
        num_workers: Processes; few clips take fewer.

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
