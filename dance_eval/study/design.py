"""Who sees what, in which order and on which side."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from dance_eval.study.errors import StudyError
from dance_eval.study.sides import balanced_sides
from musicinfuser.keyed_random import generator

ItemKind = Literal["pair", "repeat", "catch"]


@dataclass(frozen=True)
class Item:
    """Two clips to be compared, under a name that says nothing.

    Attributes:
        kind: A ``pair`` of systems, the same pair shown once more (``repeat``), or an intact clip
            against a spoilt copy (``catch``).
        first: Name of the clip of the first system, or of the intact one.
        second: Name of the other clip.
        of: The repeated pair; empty for others.
        expected: Questions that a careful rater answers with the first clip; catches only.
    """

    kind: ItemKind
    first: str
    second: str
    of: str = ""
    expected: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """One item as one rater sees it: the names of the item and of the clips on both sides."""

    item: str
    left: str
    right: str


def _shuffled(num: int, *, seed: int, index: int | str, purpose: str) -> list[int]:
    return torch.randperm(num, generator=generator(seed, index, purpose)).tolist()


def _in_order(names: Sequence[str], *, seed: int, index: int, purpose: str) -> list[str]:
    order = _shuffled(len(names), seed=seed, index=index, purpose=purpose)
    return [names[number] for number in order]


def deal_pairs(
    num_pairs: int, *, num_raters: int, pairs_per_rater: int | None, seed: int
) -> list[list[int]]:
    """Give every rater so many pairs, and every pair as evenly many raters as possible.

    Pairs are dealt from shuffled decks, one rater after the other; a pair that a rater already
    holds waits for the next rater.

    Args:
        num_pairs: How many there are.
        num_raters: Among how many raters they are dealt.
        pairs_per_rater: How many each gets; None, or more than there are, gives all.
        seed: The study's seed.

    Returns:
        The pairs of each rater, by number.
    """
    wanted = num_pairs if pairs_per_rater is None else min(pairs_per_rater, num_pairs)
    stock: list[int] = []
    num_decks, dealt = 0, []
    for _ in range(num_raters):
        hand: dict[int, None] = {}
        waiting: list[int] = []
        while len(hand) < wanted:
            if not stock:
                stock = _shuffled(num_pairs, seed=seed, index=num_decks, purpose="study deck")
                num_decks += 1
            pair = stock.pop(0)
            if pair in hand:
                waiting.append(pair)
            else:
                hand[pair] = None
        stock = waiting + stock
        dealt.append(list(hand))
    return dealt


def plan_trials(
    pairs: Mapping[str, tuple[Item, str]],
    catches: Mapping[str, Item],
    *,
    num_raters: int,
    pairs_per_rater: int | None,
    num_repeats: int,
    repeat_name: Callable[[str], str],
    seed: int,
) -> tuple[dict[str, list[Trial]], dict[str, Item]]:
    """Lay down everything that raters will see.

    Sides are balanced as `balanced_sides` says, for each two systems by themselves and for the
    catches. Orders are shuffled for each rater. Repeats show a pair of the first half once more in
    the second half, with its sides swapped.

    Args:
        pairs: Item of each pair by its name, with a text that is equal for pairs of the same two
            systems.
        catches: Catch items by their name; every rater sees all.
        num_raters: Raters are called "1" to this number.
        pairs_per_rater: As for `deal_pairs`.
        num_repeats: For each rater; at most half of what a rater sees.
        repeat_name: Gives the name under which a pair is shown again.
        seed: The study's seed.

    Returns:
        Trials of each rater, and the items that repeats added, by name.

    Raises:
        StudyError: If a number is out of its range.
    """
    if num_raters < 1 or num_repeats < 0 or (pairs_per_rater is not None and pairs_per_rater < 1):
        raise StudyError(
            f"raters {num_raters}, repeats {num_repeats} and pairs per rater {pairs_per_rater}: "
            "raters and pairs must be at least 1 and repeats at least 0."
        )
    names = list(pairs)
    hands = deal_pairs(
        len(names), num_raters=num_raters, pairs_per_rater=pairs_per_rater, seed=seed
    )
    groups: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for rater, hand in enumerate(hands):
        for number in hand:
            groups[pairs[names[number]][1]].append((rater, names[number]))
        groups["catches"] += [(rater, name) for name in catches]
    is_first_left: dict[tuple[int, str], bool] = {}
    for group in sorted(groups):
        numbers = {name: i for i, name in enumerate(dict.fromkeys(n for _, n in groups[group]))}
        sides = balanced_sides(
            [(rater, numbers[name]) for rater, name in groups[group]],
            seed=seed,
            purpose=f"study sides {group}",
        )
        is_first_left |= dict(zip(groups[group], sides, strict=True))

    items = {name: item for name, (item, _) in pairs.items()} | dict(catches)
    repeats: dict[str, Item] = {}
    plan: dict[str, list[Trial]] = {}
    for rater, hand in enumerate(hands):
        trials = {
            name: _trial(name, items[name], first_left=is_first_left[rater, name])
            for name in [*(names[number] for number in hand), *catches]
        }
        order, again = _first_showings(
            list(trials), num_pairs=len(hand), num_repeats=num_repeats, seed=seed, rater=rater
        )
        shown = [trials[name] for name in order]
        for name in again:
            repeated, item = repeat_name(name), items[name]
            repeats[repeated] = Item("repeat", item.first, item.second, of=name)
            places = generator(seed, f"{rater} {name}", "study place")
            half = (len(trials) + 1) // 2
            place = int(torch.randint(half, len(shown) + 1, (1,), generator=places))
            shown.insert(place, Trial(repeated, trials[name].right, trials[name].left))
        plan[str(rater + 1)] = shown
    return plan, repeats


def _trial(name: str, item: Item, *, first_left: bool) -> Trial:
    sides = (item.first, item.second) if first_left else (item.second, item.first)
    return Trial(name, *sides)


def _first_showings(
    names: Sequence[str], *, num_pairs: int, num_repeats: int, seed: int, rater: int
) -> tuple[list[str], list[str]]:
    """The order of one rater's items, and the pairs, all in its first half, to be shown again.

    Args:
        names: Pairs, then catches.
        num_pairs: How many of them are pairs.
        num_repeats: How many pairs are wanted again.
        seed: The study's seed.
        rater: Whose order it is.
    """
    half = (len(names) + 1) // 2
    picks = _shuffled(num_pairs, seed=seed, index=rater, purpose="study repeats")
    again = [names[number] for number in picks[: min(num_repeats, half)]]
    others = [name for name in names if name not in set(again)]
    others = _in_order(others, seed=seed, index=rater, purpose="study order")
    early = half - len(again)
    first = _in_order([*again, *others[:early]], seed=seed, index=rater, purpose="study first")
    return [*first, *others[early:]], again
