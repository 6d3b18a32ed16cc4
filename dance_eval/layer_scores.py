"""Layer adaptability from the scores of clips (section 4.1, appendix G, Fig. 15).

Fields of adaptability.json, which `layers: {strategy: adaptability, scores: FILE}` reads:
    scores: One number per block, the mean of the value that ranks.
    value: That value, as ``metric/value``.
    ranking: Block indices, the highest score first, ties to the lower index.
    chosen: The first of the ranking, sorted; num_layers says how many.
    values: {value: {"layers": [one per block], "reference": as one of them}}, each with mean, low,
        high and n; for values of single clips also ``gain``, the mean difference to the reference
        over the same prompts and seeds, likewise with its interval.
    choices: What the clips were made with.
    metrics: What they were scored with, all defaults filled in.
    seed, confidence: Of the intervals.
"""

from collections.abc import Sequence
from typing import Any

from dance_eval.metrics.intervals import MeanInterval, bootstrap_mean
from dance_eval.metrics.report import Document
from dance_eval.plots import PlotRow, interval_plot
from musicinfuser.errors import UserError
from musicinfuser.generation_requests import rank_layers, system_name
from musicinfuser.tables import Row


class AdaptabilityError(UserError):
    """Layers cannot be ranked. The message is one sentence."""


def layer_scores(
    document: Document,
    *,
    values: Sequence[str],
    depth: int,
    num_layers: int | None = None,
    choices: Document | None = None,
) -> Document:
    """Rank the layers by what guidance by each of them gives (section 4.1, appendix G).

    Args:
        document: metrics.json of the folders of all layers and the reference.
        values: ``metric/value`` of which more is better; the first ranks, all are reported.
        depth: Number of blocks.
        num_layers: How many are chosen; a third of them if absent (16 of 48).
        choices: What the clips were made with.

    Returns:
        The content of adaptability.json.

    Raises:
        AdaptabilityError: A value that was not measured for a layer or on some of its clips, or a
            number of layers that the model does not have.
    """
    num_layers = depth // 3 if num_layers is None else num_layers
    if not values or not 1 <= num_layers <= depth:
        raise AdaptabilityError(
            f"{num_layers} of {depth} layers cannot be chosen by {list(values)}; name a value and "
            f"a number from 1 to {depth}."
        )
    found = {value: _measured(document, value, depth=depth) for value in values}
    scores = [layer["mean"] for layer in found[values[0]]["layers"]]
    ranking = rank_layers(scores)
    return {
        "scores": scores,
        "value": values[0],
        "ranking": ranking,
        "num_layers": num_layers,
        "chosen": sorted(ranking[:num_layers]),
        "values": found,
        "choices": choices or {},
        "metrics": document["metrics"],
        "seed": document["seed"],
        "confidence": document["confidence"],
    }


def _measured(document: Document, value: str, *, depth: int) -> Document:
    reference, by_request, num_failed = _of_system(document, value, None)
    layers = []
    for layer in range(depth):
        fields, own, failed = _of_system(document, value, layer)
        if own.keys() != by_request.keys() or failed or num_failed:
            raise AdaptabilityError(
                f"{value} was not measured on the same clips for layer {layer} as without skipping "
                f"({fields['n']} and {reference['n']} clips); see the failures in metrics.json and "
                "repeat the command."
            )
        if own:
            gain = bootstrap_mean(
                [own[request] - by_request[request] for request in by_request],
                seed=document["seed"],
                name=f"gain of {value}, layer {layer}",
                confidence=document["confidence"],
            )
            fields["gain"] = gain.as_fields()
        layers.append(fields)
    return {"layers": layers, "reference": reference}


def _of_system(
    document: Document, value: str, layer: int | None
) -> tuple[Document, dict[tuple[str, int], float], int]:
    """Fields of a layer's mean, its numbers by prompt and seed, and how many clips failed."""
    system = system_name(layer)
    fields = document["systems"].get(system, {}).get(value)
    if fields is None or fields["mean"] is None:
        measured = list(document["systems"].get(system, {}))
        raise AdaptabilityError(
            f"{value} was not measured for clips with {system}; there is "
            f"{', '.join(measured) or 'nothing'}."
        )
    metric, _, name = value.partition("/")
    clips = [clip for clip in document["clips"] if clip["system"] == system]
    numbers = {
        (clip["prompt"], clip["seed"]): clip["values"][metric][name]
        for clip in clips
        if name in clip["values"].get(metric, {})
    }
    fields = dict(fields)
    num_failed = fields.pop("num_failed")
    return fields, numbers, num_failed


def score_rows(found: Document) -> list[Row]:
    """One row per layer for reading, the reference last."""
    rows: list[Row] = []
    layers: list[int | None] = [*range(len(found["scores"])), None]
    for layer in layers:
        row: dict[str, Any] = {"layer": system_name(layer)}
        for value, measured in found["values"].items():
            fields = measured["reference" if layer is None else "layers"]
            fields = fields if layer is None else fields[layer]
            row[value] = _text(fields)
            row[f"{value}, gain"] = _text(fields["gain"]) if "gain" in fields else None
        row["rank"] = None if layer is None else found["ranking"].index(layer) + 1
        row["chosen"] = "yes" if layer in found["chosen"] else ""
        rows.append(row)
    return rows


def score_plot(found: Document, value: str) -> str:
    """Fig. 15 as SVG: each layer's score with its interval, a dashed line at the reference.

    Layers that are not chosen are rings.
    """
    measured = found["values"][value]
    layers, reference = measured["layers"], measured["reference"]["mean"]
    rows = []
    for layer, fields in enumerate(layers):
        is_chosen = layer in found["chosen"]
        label = f"{system_name(layer)}{', chosen' if is_chosen else ''}"
        ends = fields["mean"], fields["low"], fields["high"]
        rows.append(PlotRow(label, 0, *ends, is_hollow=not is_chosen))
    return interval_plot(
        f"{value} with guidance by each layer (dashed: none, {reference:.3f})",
        rows,
        is_wide=True,
        reference=reference,
    )


def _text(fields: Document) -> str:
    return MeanInterval(fields["mean"], fields["low"], fields["high"]).text()
