"""Who sees what, in which order and on which side."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from dance_eval.study.key import Item, Trial
from musicinfuser.keyed_random import generator
from musicinfuser.setting_checks import check_number


def _shuffled(items: Sequence[Any], *, seed: int, index: int, purpose: str) -> list[Any]:
    order = torch.randperm(len(items), generator=generator(seed, index, purpose)).tolist()
    return [items[number] for number in order]


def deal_pairs(
    num_pairs: int, *, num_raters: int, pairs_per_rater: int | None, seed: int
) -> list[list[int]]:
    """Give every rater so many pairs, and every pair as evenly many raters as possible.

    Pairs are dealt from shuffled decks, one rater after the other; a pair that a rater already
    holds waits for the next rater. ``pairs_per_rater`` None, or more than there are, gives all.

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
                stock = _shuffled(
                    range(num_pairs), seed=seed, index=num_decks, purpose="study deck"
                )
                num_decks += 1
            pair = stock.pop(0)
            if pair in hand:
                waiting.append(pair)
            hand[pair] = None
        stock = waiting + stock
        dealt.append(list(hand))
    return dealt


def balanced_sides(showings: Sequence[tuple[int, int]], *, seed: int, purpose: str) -> list[bool]:
    """Draw sides so that no rater and no pair has one more on the left than half.

    Raters and pairs are the two kinds of nodes of a graph, showings its edges. Nodes with an odd
    number of edges get one more, to a node that stands for nobody; then every edge lies on a
    closed walk, and along a closed walk between two kinds of nodes every other edge runs from a
    rater to a pair. These are the showings with the first clip on the left. Where walks begin and
    which way they turn is drawn.

    Args:
        showings: A rater and a pair, by number; each at most once.
        seed: The study's seed.
        purpose: Tells apart draws of one seed.

    Returns:
        For each showing, whether the pair's first clip is on the left. Over the showings of any
        rater, and of any pair, the two sides differ by at most one.
    """
    stream = generator(seed, 0, purpose)
    edges = [(("rater", rater), ("pair", pair)) for rater, pair in showings]
    nobody = {"rater": ("pair", -1), "pair": ("rater", -1)}
    degree: dict[tuple[str, int], int] = defaultdict(int)
    for edge in edges:
        for node in edge:
            degree[node] += 1
    for node in [node for node, count in degree.items() if count % 2]:
        other = nobody[node[0]]
        edges.append((node, other) if node[0] == "rater" else (other, node))
        degree[other] += 1
    if degree[nobody["rater"]] % 2:
        edges.append((nobody["pair"], nobody["rater"]))

    around: dict[tuple[str, int], list[int]] = defaultdict(list)
    for number in torch.randperm(len(edges), generator=stream).tolist():
        for node in edges[number]:
            around[node].append(number)
    nodes = sorted(around)
    flips = torch.randint(2, (len(nodes),), generator=stream).tolist()
    is_first_left: list[bool | None] = [None] * len(edges)
    for node, flip in zip(nodes, flips, strict=True):
        here = node
        # Every walk ends where it began, since each node has an even degree.
        while around[here]:
            number = around[here].pop()
            if is_first_left[number] is None:
                rater, pair = edges[number]
                is_first_left[number] = (here == rater) != bool(flip)
                here = pair if here == rater else rater
    return [bool(side) for side in is_first_left[: len(showings)]]


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
        UserError: If a number is out of its range.
    """
    check_number("raters", num_raters, at_least=1)
    check_number("repeats", num_repeats, at_least=0)
    check_number("pairs_per_rater", pairs_per_rater, at_least=1)
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
        trials = {}
        for name in [*(names[number] for number in hand), *catches]:
            shown = items[name].first, items[name].second
            trials[name] = Trial(name, *(shown if is_first_left[rater, name] else shown[::-1]))
        order, again = _first_showings(
            list(trials), num_pairs=len(hand), num_repeats=num_repeats, seed=seed, rater=rater
        )
        own = [trials[name] for name in order]
        for name in again:
            repeated, item = repeat_name(name), items[name]
            repeats[repeated] = Item("repeat", item.first, item.second, of=name)
            places = generator(seed, f"{rater} {name}", "study place")
            half = (len(trials) + 1) // 2
            place = int(torch.randint(half, len(own) + 1, (1,), generator=places))
            own.insert(place, Trial(repeated, trials[name].right, trials[name].left))
        plan[str(rater + 1)] = own
    return plan, repeats


def _first_showings(
    names: Sequence[str], *, num_pairs: int, num_repeats: int, seed: int, rater: int
) -> tuple[list[str], list[str]]:
    """The order of a rater's pairs and catches, and the pairs of its first half to show again."""
    half = (len(names) + 1) // 2
    picks = _shuffled(names[:num_pairs], seed=seed, index=rater, purpose="study repeats")
    again = picks[: min(num_repeats, half)]
    others = [name for name in names if name not in set(again)]
    others = _shuffled(others, seed=seed, index=rater, purpose="study order")
    early = half - len(again)
    first = [*again, *others[:early]]
    first = _shuffled(first, seed=seed, index=rater, purpose="study first")
    return [*first, *others[early:]], again
