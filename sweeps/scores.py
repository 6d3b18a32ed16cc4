"""The scores of a sweep's runs as one metrics.json, and how its rows differ."""

from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from typing import Any

from dance_eval.metrics.intervals import bootstrap_seeds_and_clips
from dance_eval.metrics.matching import Pieces, start_of
from dance_eval.metrics.report import Document, read_report
from dance_eval.metrics.scoring import entry_of
from sweeps.plan import Run

Trainings = dict[str, dict[str, float]]
"""A value by seed of the training and by clip or generation request."""


def combined(runs: Sequence[Run]) -> Document:
    """The scores of several runs as one metrics.json.

    Its systems are rows; ``by_seed`` has the mean of each training, by row and value. Values of
    metrics over sets of clips are given as the mean over seeds, without an interval.
    """
    documents = [
        (run, read_report(run.folder / "metrics.json", clip_fields=["file"])) for run in runs
    ]
    settings = {name: documents[0][1][name] for name in ("seed", "confidence")}
    clips = [
        clip | {"system": _row_name(run, clip["system"]), "trained_with_seed": run.seed}
        for run, document in documents
        for clip in document["clips"]
    ]
    systems: Document = {}
    by_seed: Document = {}
    for system in dict.fromkeys(clip["system"] for clip in clips):
        summaries: dict[str, Document] = {}
        for run, document in documents:
            for name, values in document["systems"].items():
                if _row_name(run, name) == system:
                    for value, summary in values.items():
                        summaries.setdefault(value, {})[str(run.seed)] = summary
        own = [clip for clip in clips if clip["system"] == system]
        systems[system] = {
            value: _summary(value, own, list(by_training.values()), **settings)
            for value, by_training in summaries.items()
        }
        by_seed[system] = {
            value: {seed: summary["mean"] for seed, summary in by_training.items()}
            for value, by_training in summaries.items()
        }
    return {
        "systems": systems,
        "by_seed": by_seed,
        "clips": clips,
        "findings": {},
        "metrics": documents[0][1].get("metrics", []),
        "unlisted": [],
        **settings,
    }


def _row_name(run: Run, system: str) -> str:
    """Generated clips carry the row's name, marked where audio conditioning is other audio."""
    return run.row if run.seed is None else system


def _summary(
    name: str,
    clips: Sequence[Document],
    summaries: Sequence[Document],
    *,
    seed: int,
    confidence: float,
) -> Document:
    trainings: Trainings = {}
    folders: dict[str, dict[Any, int]] = {}
    for clip in clips:
        if (number := _value(clip, name)) is not None:
            training = str(clip["trained_with_seed"])
            # A run may score several folders, whose files are called alike.
            own = folders.setdefault(training, {})
            folder = own.setdefault(clip.get("folder"), len(own))
            trainings.setdefault(training, {})[f"{folder}/{clip['file']}"] = number
    if trainings:
        interval = bootstrap_seeds_and_clips(
            list(trainings.values()), seed=seed, name=name, confidence=confidence
        )
        fields = interval.as_fields()
    else:
        means = [s["mean"] for s in summaries if s["mean"] is not None]
        fields = {"mean": fmean(means) if means else None, "low": None, "high": None}
        fields["n"] = max(s["n"] for s in summaries)
    return fields | {"num_failed": sum(s.get("num_failed", 0) for s in summaries)}


def _value(clip: Document, name: str) -> float | None:
    metric, _, value = name.partition("/")
    number: float | None = clip["values"].get(metric, {}).get(value)
    return number


def differences(
    document: Document, values: Sequence[str], *, reference: str, untrained: Collection[str]
) -> Document:
    """Mean difference of every row to the reference, per ``metric/value`` of single clips.

    Both clips of a pair are of one generation request and of trainings with one seed, so what the
    request and the order of the data do to the value falls out. What was not trained, the same for
    every seed, is compared with every training of the reference; recordings, which have no seed, by
    music and start.

    Returns:
        ``{row: {value: {mean, low, high, n, by_seed, num_alone, differs}}}`` for rows with any
        pair; ``num_alone`` counts requests of all trainings that only one of the two has. The
        interval resamples seeds and clips (`bootstrap_seeds_and_clips`); ``differs`` says that it
        leaves out 0 and that the mean of every seed lies on one side, which the interval of few
        seeds does not ensure.
    """
    found: Document = {}
    for row in document["systems"]:
        if row == reference:
            continue
        trainings = _pairable(document, row, reference, is_trained=row not in untrained)
        for value in values:
            pairs, num_alone = _pairs(trainings, value)
            if not pairs:
                continue
            interval = bootstrap_seeds_and_clips(
                list(pairs.values()),
                seed=document["seed"],
                name=f"{value} of {row} minus {reference}",
                confidence=document["confidence"],
            )
            by_seed = {seed: fmean(own.values()) for seed, own in pairs.items()}
            is_above = interval.low is not None and min(interval.low, *by_seed.values()) > 0
            is_below = interval.high is not None and max(interval.high, *by_seed.values()) < 0
            fields: Document = interval.as_fields() | {"by_seed": by_seed, "num_alone": num_alone}
            fields["differs"] = is_above or is_below
            found.setdefault(row, {})[value] = fields
    return found


def difference_text(fields: Mapping[str, object]) -> str:
    """``mean [low, high] (lowest to highest seed)``; only what there is."""
    text = f"{fields['mean']:+.3f}"
    if fields["low"] is not None:
        text += f" [{fields['low']:+.3f}, {fields['high']:+.3f}]"
    by_seed = fields["by_seed"]
    assert isinstance(by_seed, Mapping)
    if len(by_seed) > 1:
        text += f" ({min(by_seed.values()):+.3f} to {max(by_seed.values()):+.3f})"
    return text


Requested = list[tuple[str, Document]]
"""Clips, each after its generation request, of which a system may have several clips."""


def _pairable(
    document: Document, row: str, reference: str, *, is_trained: bool
) -> dict[str, tuple[Requested, Requested]]:
    """Clips of a row and of the reference, by seed of the training."""
    own, others = (
        [clip for clip in document["clips"] if clip["system"] == system]
        for system in (row, reference)
    )
    by_music = any(clip.get("seed") is None for clip in own + others)
    found = {}
    for seed in dict.fromkeys(clip["trained_with_seed"] for clip in others):
        sides = [
            [clip for clip in clips if clip["trained_with_seed"] == training]
            for clips, training in (
                (own, seed if is_trained or not own else own[0]["trained_with_seed"]),
                (others, seed),
            )
        ]
        if all(sides):
            # Runs may name one file by paths of their own.
            pieces = Pieces(entry_of(clip) for clips in sides for clip in clips)
            one, other = (
                [(_request(clip, pieces, by_music=by_music), clip) for clip in clips]
                for clips in sides
            )
            found[str(seed)] = one, other
    return found


def _request(clip: Document, pieces: Pieces, *, by_music: bool) -> str:
    entry = entry_of(clip)
    music = f"{pieces.of(entry)}|{start_of(entry)}"
    return music if by_music else f"{music}|{entry.prompt}|{entry.seed}"


def _pairs(
    trainings: Mapping[str, tuple[Requested, Requested]], name: str
) -> tuple[Trainings, int]:
    """Differences of a value by seed and request, and how many requests only one of the two has."""
    found: Trainings = {}
    num_alone = 0
    for seed, sides in trainings.items():
        own, others = (_means(requested, name) for requested in sides)
        num_alone += len(own.keys() ^ others.keys())
        if pairs := {key: own[key] - others[key] for key in own if key in others}:
            found[seed] = pairs
    return found, num_alone


def _means(requested: Requested, name: str) -> dict[str, float]:
    numbers: dict[str, list[float]] = {}
    for request, clip in requested:
        if (number := _value(clip, name)) is not None:
            numbers.setdefault(request, []).append(number)
    return {request: fmean(own) for request, own in numbers.items()}
