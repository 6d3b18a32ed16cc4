"""Who stands on the left: balanced for every rater and for every pair at once."""

from collections import defaultdict
from collections.abc import Sequence

import torch

from musicinfuser.keyed_random import generator

Showing = tuple[int, int]
"""A rater and a pair, by number."""


def balanced_sides(showings: Sequence[Showing], *, seed: int, purpose: str) -> list[bool]:
    """Draw sides so that no rater and no pair has one more on the left than half.

    Raters and pairs are the two kinds of nodes of a graph, showings its edges. Nodes with an odd
    number of edges get one more, to a node that stands for nobody; then every edge lies on a
    closed walk, and along a closed walk between two kinds of nodes every other edge runs from a
    rater to a pair. These are the showings with the first clip on the left. Where walks begin and
    which way they turn is drawn.

    Args:
        showings: Each (rater, pair) at most once.
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
        while True:
            # Every walk comes back to where it began, since each node has an even degree.
            here, walked = node, False
            while around[here]:
                number = around[here].pop()
                if is_first_left[number] is not None:
                    continue
                rater, pair = edges[number]
                is_first_left[number] = (here == rater) != bool(flip)
                here, walked = (pair if here == rater else rater), True
            if not walked:
                break
    return [bool(side) for side in is_first_left[: len(showings)]]
