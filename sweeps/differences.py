"""How each row of a sweep differs from one of them, paired by training seed and clip."""

from collections.abc import Collection, Mapping, Sequence
from statistics import fmean

from dance_eval.metrics.intervals import bootstrap_seeds_and_clips
from dance_eval.metrics.matching import Pieces, start_of
from dance_eval.metrics.records import entry_of
from dance_eval.metrics.report import Document

Trainings = dict[str, dict[str, float]]
"""A value by seed of the training and by cell."""
Cells = dict[str, list[Document]]
"""Clips by cell, of which a system may have several."""


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
        ``{row: {value: {mean, low, high, n, by_seed, num_alone, differs}}}`` for rows with any
        pair; ``num_alone`` counts cells of all trainings that only one of the two has. The
        interval resamples seeds and clips (`bootstrap_seeds_and_clips`); ``differs`` says that it
        leaves out 0 and that the mean of every seed lies on one side, which the interval of few
        seeds does not ensure.
    """
    found: Document = {}
    for row in document["systems"]:
        if row == reference:
            continue
        trainings = _cells(document, row, reference, is_trained=row not in untrained)
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
            fields = interval.as_fields() | {"by_seed": by_seed, "num_alone": num_alone}
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


def _cells(
    document: Document, row: str, reference: str, *, is_trained: bool
) -> dict[str, tuple[Cells, Cells]]:
    """Clips of a row and of the reference, by seed of the training and by cell."""
    own, others = (
        [clip for clip in document["clips"] if clip["system"] == system]
        for system in (row, reference)
    )
    by_music = any(clip.get("seed") is None for clip in own + others)
    of_row, of_reference = (_by_training(clips) for clips in (own, others))
    if not is_trained and of_row:
        [same, *_] = of_row.values()
        of_row = dict.fromkeys(of_reference, same)
    found = {}
    for seed in (seed for seed in of_row if seed in of_reference):
        # Runs may name one file by paths of their own.
        pieces = Pieces(map(entry_of, [*of_row[seed], *of_reference[seed]]))
        found[seed] = (
            _by_cell(of_row[seed], pieces, by_music=by_music),
            _by_cell(of_reference[seed], pieces, by_music=by_music),
        )
    return found


def _by_training(clips: Sequence[Document]) -> dict[str, list[Document]]:
    trainings: dict[str, list[Document]] = {}
    for clip in clips:
        trainings.setdefault(str(clip["trained_with_seed"]), []).append(clip)
    return trainings


def _by_cell(clips: Sequence[Document], pieces: Pieces, *, by_music: bool) -> Cells:
    cells: Cells = {}
    for clip in clips:
        entry = entry_of(clip)
        music = f"{pieces.of(entry)}|{start_of(entry)}"
        cell = music if by_music else f"{music}|{entry.prompt}|{entry.seed}"
        cells.setdefault(cell, []).append(clip)
    return cells


def _pairs(trainings: Mapping[str, tuple[Cells, Cells]], value: str) -> tuple[Trainings, int]:
    """Differences of a value by seed and cell, and how many cells only one of the two has."""
    found: Trainings = {}
    num_alone = 0
    for seed, (own, others) in trainings.items():
        numbers, against = _means(own, value), _means(others, value)
        pairs = {cell: numbers[cell] - against[cell] for cell in numbers if cell in against}
        num_alone += len(numbers.keys() ^ against.keys())
        if pairs:
            found[seed] = pairs
    return found, num_alone


def _means(cells: Cells, value: str) -> dict[str, float]:
    metric, _, name = value.partition("/")
    means = {}
    for cell, clips in cells.items():
        numbers = (clip["values"].get(metric, {}).get(name) for clip in clips)
        if known := [number for number in numbers if number is not None]:
            means[cell] = fmean(known)
    return means
