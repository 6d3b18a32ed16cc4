"""Records of clips in metrics.json: before scoring, from earlier runs, and combined over sets."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from dance_eval.metrics.clip import ClipMetric, NamedMetric
from dance_eval.metrics.clip_folder import ClipEntry, content_digest, file_digest
from dance_eval.metrics.known_tempo import known_bpm
from dance_eval.metrics.music_beats import MusicBeats
from dance_eval.metrics.report import Document
from dance_eval.metrics.set_metric import SetMetric

SHAPE_FIELDS = ("num_frames", "fps")
_ENTRY_FIELDS = ("file", "system", "track", "track_offset_seconds", "prompt", "seed", "heard")


def start_record(
    entry: ClipEntry,
    *,
    beats: MusicBeats,
    metrics: Sequence[NamedMetric],
    specs: Sequence[Document],
    decoding: list[str | float],
) -> Document:
    """A clip's record in metrics.json before scoring; what is wrong already is a failure.

    Args:
        entry: The clip.
        beats: Where its music beats come from.
        metrics: What is measured.
        specs: Class path and arguments of each metric.
        decoding: Everything else that values depend on: the seed and how clips are decoded.
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
            parts = [_described_by(metric, spec), shared, *_digests(metric, entry)]
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


def _described_by(metric: NamedMetric, spec: Document) -> Document:
    """What the numbers of a clip depend on."""
    if not isinstance(metric, SetMetric):
        return spec
    arguments = spec.get("init_args", {})
    return spec | {"init_args": {k: v for k, v in arguments.items() if k not in metric.combining}}


def _digests(metric: NamedMetric, entry: ClipEntry) -> list[str]:
    files = metric.files_of(entry.path)
    return [file_digest(file) if file.is_file() else "missing" for file in files]


def take_known(
    records: Sequence[Document],
    metrics: Sequence[NamedMetric],
    *,
    known: Document | None,
    features: Path,
) -> None:
    """Fill in what an earlier run has scored.

    Args:
        records: As `start_record` gives them.
        metrics: What is measured.
        known: The earlier metrics.json.
        features: Folder of the descriptions of clips.
    """
    earlier = [clip for clip in (known or {}).get("clips", ()) if clip.get("sha256")]
    shapes = {
        clip["sha256"]: {name: clip[name] for name in SHAPE_FIELDS}
        for clip in earlier
        if None not in map(clip.get, SHAPE_FIELDS)
    }
    scored = {
        (clip["sha256"], metric, clip["keys"][metric]): (values, clip.get("music_bpm"))
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
                values, bpm = scored.get((record["sha256"], metric.name, key), (None, None))
                assert isinstance(metric, ClipMetric)
                if values is not None and metric.is_final(values):
                    record["values"][metric.name] = values
                    record["music_bpm"] = bpm or record["music_bpm"]


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
    """Add the values of a set metric to the ``systems`` of metrics.json.

    Args:
        summary: By system, as `report.summarise` gives it.
        metric: What is measured.
        entries: The clips.
        records: Their records, all scored.
        features: Folder of the descriptions.
        seed: Of the resamples.
        confidence: Of the intervals.
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
