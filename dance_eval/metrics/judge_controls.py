"""Does a judge listen? Its scores with the clip's own music against those with other sound."""

from collections.abc import Sequence
from typing import Any

from dance_eval.judges.sounds import CONTROLS
from dance_eval.metrics.intervals import bootstrap_mean

SOUNDS = {
    "other_track": "another track",
    "silence": "silence",
    "half_beat": "the music half a beat later",
}
"""How the controls are called in sentences."""


def control_findings(
    records: Sequence[dict[str, Any]],
    *,
    metric: str,
    value: str,
    seed: int,
    confidence: float,
) -> dict[str, Any]:
    """Paired differences of one score, own music minus control, over clips and per system.

    A judge is deaf to a control if the bootstrap interval of the mean difference holds 0, and deaf
    if it is deaf to all of them. With fewer than two clips nothing is claimed.

    Args:
        records: Clips of metrics.json.
        metric: Name of the judged metric.
        value: Name of the score, e.g. ``"beat_alignment"``; that with a control is
            ``"beat_alignment_<control>"``.
        seed: Of the bootstrap.
        confidence: Of the intervals.

    Returns:
        ``controls``: {control: {mean, low, high, n, num_missing, deaf, systems: {system: {mean,
        low, high, n}}}}, ``deaf``: true, false or null, and ``deaf_to``: names of controls.
    """
    scored = [record for record in records if metric in record["values"]]
    controls: dict[str, Any] = {}
    for control in CONTROLS:
        pairs = [
            (record["system"], values[value] - values[f"{value}_{control}"])
            for record in scored
            if {value, f"{value}_{control}"} <= (values := record["values"][metric]).keys()
        ]

        def summary(differences: list[float], name: str) -> dict[str, Any]:
            interval = bootstrap_mean(differences, seed=seed, name=name, confidence=confidence)
            return {
                "mean": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "n": interval.num_values,
            }

        name = f"{metric}/{value}/{control}"
        whole = summary([difference for _, difference in pairs], name)
        is_known = whole["low"] is not None
        controls[control] = {
            **whole,
            "num_missing": len(scored) - len(pairs),
            "deaf": whole["low"] <= 0 <= whole["high"] if is_known else None,
            "systems": {
                system: summary([d for own, d in pairs if own == system], f"{name}/{system}")
                for system in dict.fromkeys(system for system, _ in pairs)
            },
        }
    known = [result["deaf"] for result in controls.values() if result["deaf"] is not None]
    return {
        "controls": controls,
        "deaf": all(known) if known else None,
        "deaf_to": [control for control, result in controls.items() if result["deaf"]],
    }


def control_sentences(findings: dict[str, Any], *, metric: str, value: str) -> list[str]:
    """What `control_findings` found, for people."""
    sentences = []
    for control, result in findings["controls"].items():
        with_sound = f"{metric}: {value}, own music minus {SOUNDS[control]}"
        missing = result["num_missing"]
        left_out = f"; {missing} clips without this control" if missing else ""
        if result["mean"] is None:
            sentences.append(f"{with_sound}: no clips{left_out}.")
        elif result["deaf"] is None:
            sentences.append(f"{with_sound}: {result['mean']:+.2f} (n = {result['n']}){left_out}.")
        else:
            moved = "does not move" if result["deaf"] else "moves"
            sentences.append(
                f"{with_sound}: {result['mean']:+.2f} [{result['low']:+.2f}, "
                f"{result['high']:+.2f}] (n = {result['n']}): {moved}{left_out}."
            )
    if findings["deaf"] is None:
        sentences.append(f"{metric}: too few clips to say whether the judge listens.")
    elif findings["deaf"]:
        sentences.append(
            f"{metric}: the judge is DEAF: {value} does not move with any other sound. Its scores "
            "about music say nothing, or no clip here follows its music (add ground truth)."
        )
    elif findings["deaf_to"]:
        names = " and ".join(SOUNDS[control] for control in findings["deaf_to"])
        sentences.append(f"{metric}: the judge is DEAF to {names}.")
    else:
        sentences.append(f"{metric}: the judge listens: {value} moves with every other sound.")
    return sentences
