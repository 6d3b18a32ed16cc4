"""Which blocks carry audio (section 4.1, Table 1): an explicit list or a named strategy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from musicinfuser.errors import UserError
from musicinfuser.generation_requests import rank_layers
from musicinfuser.label_files import LabelError, read_json
from musicinfuser.setting_checks import check_file

# Authors' code: the 16 blocks with the highest layer adaptability of the 48 (0-based).
ADAPTABLE_LAYERS_OF_MOCHI = (6, 7, 8, 9, 10, 21, 34, 35, 36, 38, 39, 43, 44, 45, 46, 47)
DEPTH_OF_MOCHI = 48


@dataclass(frozen=True)
class LayerStrategy:
    """A rule that names the blocks.

    The paper prints no index sets for its baselines; ``even``, ``first``, ``middle`` and ``last``
    are the natural readings: at depth 48 and 16 layers 0, 3, ..., 45; 0-15; 16-31; 32-47.
    """

    strategy: Literal["even", "first", "middle", "last", "all", "adaptability"]
    """``adaptability`` is the authors' list at depth 48; any other depth needs ``scores``."""
    num_layers: int | None = None
    """How many blocks; a third of the depth, at least one, when absent (Appendix G: 16 of 48)."""
    scores: str | None = None
    """A json file ``{"scores": [one number per block]}``; the highest win, ties to the lower
    index. Further fields, as configs/adaptability.yaml's job writes, are not looked at. Only for
    ``adaptability``."""


def select_layers(layers: list[int] | LayerStrategy, depth: int) -> tuple[int, ...]:
    """The sorted block indices that carry audio.

    Args:
        layers: Explicit 0-based indices (may be empty: no audio), or a strategy.
        depth: Number of transformer blocks.

    Raises:
        ValueError: An index outside the model, a repeated index, a count that does not fit, or
            ``adaptability`` without scores at a depth other than 48.
    """
    if not isinstance(layers, LayerStrategy):
        return _checked_indices(layers, depth)
    number = layers.num_layers if layers.num_layers is not None else max(depth // 3, 1)
    if layers.strategy == "all":
        if layers.num_layers not in (None, depth):
            raise UserError(
                f"layers.num_layers is {layers.num_layers}, but strategy 'all' takes all {depth} "
                "blocks; remove it."
            )
        number = depth
    if not 1 <= number <= depth:
        raise UserError(
            f"layers.num_layers is {number}, but the backbone has {depth} blocks; choose 1 to "
            f"{depth}."
        )
    if layers.scores is not None and layers.strategy != "adaptability":
        raise UserError(
            f"layers.scores has no effect with strategy {layers.strategy!r}; remove it or use "
            "'adaptability'."
        )
    middle = (depth - number) // 2
    match layers.strategy:
        case "even":
            return tuple(i * depth // number for i in range(number))
        case "first" | "all":
            return tuple(range(number))
        case "middle":
            return tuple(range(middle, middle + number))
        case "last":
            return tuple(range(depth - number, depth))
        case "adaptability":
            return _most_adaptable(layers.scores, number, depth)
    raise UserError(
        f"layers.strategy is {layers.strategy!r}; choose even, first, middle, last, all or "
        "adaptability."
    )


def _checked_indices(indices: list[int], depth: int) -> tuple[int, ...]:
    outside = [i for i in indices if not 0 <= i < depth]
    if outside:
        raise UserError(
            f"layers names block {outside[0]}, but the backbone has {depth} blocks; use 0 to "
            f"{depth - 1}."
        )
    if len(set(indices)) != len(indices):
        raise UserError(f"layers repeats an index: {sorted(indices)}; name each block once.")
    return tuple(sorted(indices))


def _most_adaptable(file: str | None, number: int, depth: int) -> tuple[int, ...]:
    if file is None:
        if depth == DEPTH_OF_MOCHI and number == len(ADAPTABLE_LAYERS_OF_MOCHI):
            return ADAPTABLE_LAYERS_OF_MOCHI
        raise UserError(
            f"layers.strategy 'adaptability' is known for 16 of 48 blocks only, not {number} of "
            f"{depth}; give layers.scores, a json file with one score per block."
        )
    check_file("layers.scores", file, hint="; measure it first")
    path = Path(file)
    scores = read_json(path).get("scores")
    if not isinstance(scores, list) or not all(isinstance(s, int | float) for s in scores):
        raise LabelError(path, 'must be json with a list of numbers under "scores".')
    if len(scores) != depth:
        raise UserError(f"{path} has {len(scores)} scores, but the backbone has {depth} blocks.")
    return tuple(sorted(rank_layers(scores)[:number]))


def check_skipped(skip_layers: Sequence[int], *, depth: int) -> None:
    """Refuse to leave blocks out that do not exist, or in training.

    Raises:
        ValueError: An index (0-based) outside the model, or gradients are on.
    """
    if torch.is_grad_enabled():
        # Blocks in host memory are fetched in the order of a whole backward pass.
        raise ValueError("skip_layers is for sampling; switch gradients off.")
    if outside := [layer for layer in skip_layers if not 0 <= layer < depth]:
        raise UserError(
            f"block {outside[0]} cannot be skipped: the backbone has {depth} blocks, 0 to "
            f"{depth - 1}."
        )
