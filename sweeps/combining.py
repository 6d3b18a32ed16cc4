"""The scores of a sweep's runs as one metrics.json."""

from collections.abc import Mapping, Sequence

from dance_eval.metrics.intervals import bootstrap_seeds_and_clips
from dance_eval.metrics.report import Document, read_report
from sweeps.plan import Run


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
        own = [
            (run, summary)
            for run, document in documents
            for name, summary in document["systems"].items()
            if _row_name(run, name) == system
        ]
        for value in dict.fromkeys(value for _, summary in own for value in summary):
            summaries = {str(run.seed): s[value] for run, s in own if value in s}
            fields = _summary(system, value, clips, summaries, **settings)
            systems.setdefault(system, {})[value] = fields
            means = {seed: summary["mean"] for seed, summary in summaries.items()}
            by_seed.setdefault(system, {})[value] = means
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
    """Generated clips carry the row's name, with a mark if they hear something else."""
    return run.row if run.seed is None else system


def _summary(
    system: str,
    name: str,
    clips: Sequence[Document],
    summaries: Mapping[str, Document],
    *,
    seed: int,
    confidence: float,
) -> Document:
    metric, _, value = name.partition("/")
    by_training: dict[str, dict[str, float]] = {}
    folders: dict[str, dict[str | None, int]] = {}
    for clip in clips:
        number = clip["values"].get(metric, {}).get(value)
        if clip["system"] == system and number is not None:
            seed_name = str(clip["trained_with_seed"])
            training = by_training.setdefault(seed_name, {})
            # A run may score several folders, whose files are called alike.
            place = folders.setdefault(seed_name, {})
            number_of_folder = place.setdefault(clip.get("folder"), len(place))
            training[f"{number_of_folder}/{clip['file']}"] = number
    num_failed = {"num_failed": sum(s.get("num_failed", 0) for s in summaries.values())}
    if not by_training:
        means = [s["mean"] for s in summaries.values() if s["mean"] is not None]
        mean = sum(means) / len(means) if means else None
        n = max(s["n"] for s in summaries.values())
        return {"mean": mean, "low": None, "high": None, "n": n} | num_failed
    interval = bootstrap_seeds_and_clips(
        list(by_training.values()), seed=seed, name=name, confidence=confidence
    )
    return interval.as_fields() | num_failed
