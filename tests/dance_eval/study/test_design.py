from collections import Counter

import pytest
import torch

from dance_eval.study.design import balanced_sides, deal_pairs, plan_trials
from dance_eval.study.key import Item
from musicinfuser.errors import UserError


def incidence(num_raters, num_pairs, share, seed):
    drawn = torch.rand(num_raters, num_pairs, generator=torch.Generator().manual_seed(seed))
    return [(r, p) for r in range(num_raters) for p in range(num_pairs) if drawn[r, p] < share]


def imbalances(showings, sides, which):
    sums = Counter()
    for showing, side in zip(showings, sides, strict=True):
        sums[showing[which]] += 1 if side else -1
    return {abs(value) for value in sums.values()}


@pytest.mark.parametrize("share", [1.0, 0.37, 0.05])
@pytest.mark.parametrize("shape", [(33, 10), (4, 7), (1, 9), (12, 1)])
def test_sides_are_balanced_for_every_rater_and_every_pair(shape, share):
    showings = incidence(*shape, share, seed=0)
    sides = balanced_sides(showings, seed=1, purpose="test")
    assert len(sides) == len(showings)
    assert imbalances(showings, sides, 0) | imbalances(showings, sides, 1) <= {0, 1}


def test_sides_are_drawn_from_the_seed():
    showings = incidence(20, 20, 1.0, seed=0)
    draws = [balanced_sides(showings, seed=seed, purpose="test") for seed in range(40)]
    assert draws[3] == balanced_sides(showings, seed=3, purpose="test")
    assert len({tuple(draw) for draw in draws}) == 40
    # Every place is on either side for some seed, about as often.
    shares = torch.tensor(draws, dtype=torch.float).mean(dim=0)
    assert 0.1 < shares.min() and shares.max() < 0.9


def test_pairs_are_dealt_evenly_and_never_twice():
    hands = deal_pairs(10, num_raters=33, pairs_per_rater=7, seed=2)
    assert all(len(set(hand)) == 7 for hand in hands)
    counts = Counter(pair for hand in hands for pair in hand)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert all(
        sorted(hand) == list(range(10))
        for hand in deal_pairs(10, num_raters=3, pairs_per_rater=None, seed=2)
    )


def planned(num_pairs=8, num_raters=6, **options):
    pairs = {f"p{i}": (Item("pair", f"a{i}", f"b{i}"), "a/b") for i in range(num_pairs)}
    catches = {f"c{i}": Item("catch", f"i{i}", f"s{i}", expected=("music",)) for i in range(3)}
    return plan_trials(
        pairs,
        catches,
        num_raters=num_raters,
        **{
            "pairs_per_rater": None,
            "num_repeats": 2,
            "repeat_name": lambda pair: f"again-{pair}",
            "seed": 0,
            **options,
        },
    )


def test_every_rater_sees_pairs_catches_and_repeats_with_swapped_sides():
    plan, repeats = planned()
    assert list(plan) == [str(i) for i in range(1, 7)]
    for trials in plan.values():
        names = [trial.item for trial in trials]
        assert len(names) == len(set(names)) == 8 + 3 + 2
        again = [name for name in names if name in repeats]
        assert len(again) == 2
        for name in again:
            place, first = names.index(name), names.index(repeats[name].of)
            assert first < 6 <= place
            shown, before = trials[place], trials[first]
            assert (shown.left, shown.right) == (before.right, before.left)
    orders = {tuple(trial.item for trial in trials) for trials in plan.values()}
    assert len(orders) == 6
    assert plan == planned()[0] != planned(seed=1)[0]


def test_left_and_right_are_balanced_in_the_plan():
    plan, repeats = planned(num_pairs=9, num_raters=7)
    per_pair = Counter()
    for trials in plan.values():
        lefts = [trial.left[0] for trial in trials if trial.item not in repeats]
        assert abs(lefts.count("a") - lefts.count("b")) <= 1
        assert abs(lefts.count("i") - lefts.count("s")) <= 1
        per_pair.update(trial.left for trial in trials if trial.item not in repeats)
    assert all(abs(per_pair[f"a{i}"] - per_pair[f"b{i}"]) <= 1 for i in range(9))


def test_thousands_of_pairs_are_dealt_and_balanced():
    plan, _ = planned(num_pairs=3000, num_raters=30, pairs_per_rater=100)
    counts = Counter(trial.item for trials in plan.values() for trial in trials)
    assert {len(trials) for trials in plan.values()} == {105}
    assert {counts[f"p{i}"] for i in range(3000)} == {1}


def test_numbers_out_of_range_are_refused():
    with pytest.raises(UserError, match="raters is 0; it must be at least 1"):
        planned(num_raters=0)
    with pytest.raises(UserError, match="pairs_per_rater is 0; it must be at least 1"):
        planned(pairs_per_rater=0)
