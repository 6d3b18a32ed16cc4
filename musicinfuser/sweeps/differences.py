"""How each row of a sweep differs from one of them, paired by training seed and clip."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from musicinfuser.metrics.report import Document, as_fields
from musicinfuser.metrics.seed_intervals import bootstrap_seeds_and_clips

Trainings = dict[str, dict[str, float]]
"""A value by seed of the training and by cell."""


def differences(
    document: Document, values: Sequence[str], *, reference: str, untrained: Collection[str]
) -> Document:
    """Mean difference of every row to the reference, per value.

    Both clips of a pair are of one cell and of trainings with one seed, so what the cell and the
    order of the data do to the value falls out. What was not trained is compared with every
    training of the reference; recordings, which have no seed, by music and start.

    Args:
        document: What `combined` made.
        values: ``metric/value``, each of single clips.
        reference: The row that is taken away from the others.
        untrained: Rows that are the same for every seed.

    Returns:
        ``{row: {value: {mean, low, high, n, by_seed, differs}}}`` for rows with any pair. The
        interval resamples seeds and clips (`bootstrap_seeds_and_clips`); ``differs`` says that it
        leaves out 0 and that the mean of every seed lies on one side, which the interval of few
        seeds does not ensure.
    """
    found: Document = {}
    for row in document["systems"]:
        if row == reference:
            continue
        for value in values:
            pairs = _pairs(document, value, row, reference, is_trained=row not in untrained)
            if not pairs:
                continue
            interval = bootstrap_seeds_and_clips(
                list(pairs.values()),
                seed=document["seed"],
                name=f"{value} of {row} minus {reference}",
                confidence=document["confidence"],
            )
            by_seed = {seed: fmean(own.values()) for seed, own in pairs.items()}
            fields = as_fields(interval) | {"by_seed": by_seed}
            found.setdefault(row, {})[value] = fields | {"differs": _differs(fields)}
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


def _differs(fields: Document) -> bool:
    if fields["low"] is None:
        return False
    means = fields["by_seed"].values()
    return (fields["low"] > 0 and min(means) > 0) or (fields["high"] < 0 and max(means) < 0)


def _pairs(
    document: Document, value: str, row: str, reference: str, *, is_trained: bool
) -> Trainings:
    own, others = (
        [clip for clip in document["clips"] if clip["system"] == system]
        for system in (row, reference)
    )
    by_music = any(clip.get("seed") is None for clip in own + others)
    of_row, of_reference = (
        _by_training(clips, value, by_music=by_music) for clips in (own, others)
    )
    if not is_trained and of_row:
        [same, *_] = of_row.values()
        of_row = dict.fromkeys(of_reference, same)
    pairs = {
        seed: {
            cell: number - of_reference[seed][cell]
            for cell, number in numbers.items()
            if cell in of_reference[seed]
        }
        for seed, numbers in of_row.items()
        if seed in of_reference
    }
    return {seed: found for seed, found in pairs.items() if found}


def _by_training(clips: Sequence[Document], value: str, *, by_music: bool) -> Trainings:
    metric, _, name = value.partition("/")
    numbers: dict[str, dict[str, list[float]]] = {}
    for clip in clips:
        number = clip["values"].get(metric, {}).get(name)
        if number is None:
            continue
        music = f"{Path(clip.get('track') or clip['file']).stem}|{clip['track_offset_seconds']}"
        cell = music if by_music else f"{music}|{clip['prompt']}|{clip['seed']}"
        training = numbers.setdefault(str(clip["trained_with_seed"]), {})
        training.setdefault(cell, []).append(number)
    return {
        seed: {cell: fmean(found) for cell, found in cells.items()}
        for seed, cells in numbers.items()
    }
