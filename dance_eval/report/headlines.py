"""The first screen of a report: what can be said of each system, and what cannot."""

from dance_eval.metrics.report import (
    CONTROL_NAME,
    Document,
    by_metric,
    interval_text,
    mismatched_control,
)
from musicinfuser.tables import Row

MOST_HEADLINES = 5
FEW_CLIPS = 20


def headlines(document: Document) -> list[Document]:
    """What can be said of each system, for the first screen: ``system``, ``sentences``, ``rows``.

    There is a row for each of the first five metrics with a level of chance: the system's value
    beside chance, ground truth and the same system conditioned on another track. The sentences say
    what follows from the first of them and what does not. Controls and ground truth stand beside
    others only; if there is nothing else, ground truth has its own.
    """
    systems: Document = document["systems"]
    metrics = [(metric, own[0]) for metric, own in by_metric(document) if f"{metric}/chance" in own]
    truth = next((name for name in systems if is_ground_truth(name)), None)
    judged = [name for name in systems if not CONTROL_NAME.search(name) and name != truth]
    found = []
    for system in judged or [name for name in systems if name == truth]:
        other = mismatched_control(systems, system)
        beside = {"ground truth": truth if truth != system else None, "another track": other}
        rows: list[Row] = []
        for metric, name in metrics:
            values = [systems[s or ""].get(name) if s else None for s in beside.values()]
            own, chance = systems[system].get(name), systems[system].get(f"{metric}/chance")
            if not own or own["mean"] is None or not chance:
                continue
            if not rows:
                sentences = _conclusions(metric, own, chance["mean"], *values)
            row = {
                "score": name.removesuffix("/score"),
                "value": interval_text(own, num_scored=0),
                "chance": f"{chance['mean']:.3f}",
            }
            others = zip(beside, values, strict=True)
            rows.append(row | {k: (v and interval_text(v, num_scored=0)) or "-" for k, v in others})
        if not rows:
            sentences = [
                "No metric that has a level of chance was computed: of music nothing can be said."
            ]
        found.append({"system": system, "sentences": sentences, "rows": rows[:MOST_HEADLINES]})
    return found


def is_ground_truth(system: str) -> bool:
    """Whether a system is called ground truth."""
    return system.lower().replace("_", " ") == "ground truth"


def _conclusions(
    metric: str, own: Document, chance: float, truth: Document | None, other: Document | None
) -> list[str]:
    what = metric.replace("_", " ")
    text = f"{what[0].upper()}{what[1:]} is {interval_text(own, num_scored=0)}, n = {own['n']}"
    if own["low"] is None:
        return [f"{text}: of one clip nothing can be said."]
    above = own["low"] > chance
    if above:
        said = [f"{text}: above chance ({chance:.3f})."]
    elif own["high"] < chance:
        said = [f"{text}: below chance ({chance:.3f})."]
    else:
        said = [f"{text}: it cannot be told from chance ({chance:.3f})."]
    if truth is None or truth["mean"] is None:
        said.append("Without ground truth it cannot be said how much was possible.")
    elif above and truth["mean"] > chance:
        share = (own["mean"] - chance) / (truth["mean"] - chance)
        said.append(f"That is {share:.0%} of the way from chance to ground truth.")
    if above and (other is None or other["high"] is None):
        said.append(
            "Without clips conditioned on another track it cannot be said that it comes from the "
            "music."
        )
    elif above and other is not None:
        follows = own["low"] > other["high"]
        said.append(
            f"With another track it is {interval_text(other, num_scored=0)}: "
            + (
                "the dance follows its own music."
                if follows
                else "that it follows its own music cannot be said, the intervals overlap."
            )
        )
    if own["n"] < FEW_CLIPS:
        said.append(f"{own['n']} clips are few: other clips may say otherwise.")
    return said
