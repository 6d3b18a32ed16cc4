import json

import pytest

from musicinfuser.errors import UserError
from musicinfuser.networks.layer_selection import LayerStrategy, select_layers

AUTHORS = (6, 7, 8, 9, 10, 21, 34, 35, 36, 38, 39, 43, 44, 45, 46, 47)


def select(strategy, depth=48, **settings):
    return select_layers(LayerStrategy(strategy, **settings), depth)


def test_adaptability_at_depth_48_is_the_authors_list():
    assert select("adaptability") == AUTHORS
    assert select("adaptability", num_layers=16) == AUTHORS


def test_baselines_at_depth_48():
    assert select("even") == (0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 36, 39, 42, 45)
    assert select("first") == tuple(range(0, 16))
    assert select("middle") == tuple(range(16, 32))
    assert select("last") == tuple(range(32, 48))
    assert select("all") == tuple(range(48))


def test_baselines_at_other_depths_and_counts():
    assert select("even", 6) == (0, 3)
    assert select("even", 10, num_layers=4) == (0, 2, 5, 7)
    assert select("even", 2) == (0,)  # a third, but at least one
    assert select("first", 6) == (0, 1)
    assert select("middle", 6) == (2, 3)
    assert select("middle", 7, num_layers=2) == (2, 3)
    assert select("last", 6) == (4, 5)
    assert select("all", 3) == (0, 1, 2)
    for strategy in ("even", "first", "middle", "last"):
        assert select(strategy, 5, num_layers=5) == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("depth", range(3, 60, 7))
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_every_strategy_gives_sorted_distinct_blocks(depth, num_layers):
    for strategy in ("even", "first", "middle", "last"):
        layers = select(strategy, depth, num_layers=num_layers)
        assert len(set(layers)) == num_layers and list(layers) == sorted(layers)
        assert 0 <= layers[0] and layers[-1] < depth


def test_explicit_lists_are_sorted_and_may_be_empty():
    assert select_layers([5, 0, 3], 6) == (0, 3, 5)
    assert select_layers([], 6) == ()


def test_scores_choose_the_highest_and_ties_go_to_the_lower_index(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"scores": [0.5, 0.9, 0.1, 0.9, 0.5, 0.5]}))
    chosen = [select("adaptability", 6, num_layers=n, scores=str(path)) for n in (None, 1, 3, 4, 6)]
    assert chosen == [(1, 3), (1,), (0, 1, 3), (0, 1, 3, 4), (0, 1, 2, 3, 4, 5)]


def test_scores_replace_the_authors_list_at_depth_48(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"scores": list(range(48))}))
    assert select("adaptability", scores=str(path)) == tuple(range(32, 48))


@pytest.mark.parametrize(("depth", "num_layers"), [(6, None), (48, 8), (47, 16)])
def test_adaptability_is_unknown_elsewhere(depth, num_layers):
    with pytest.raises(ValueError, match=r"known for 16 of 48 blocks only.*give layers\.scores"):
        select("adaptability", depth, num_layers=num_layers)


@pytest.mark.parametrize("num_layers", [0, 7, -1])
@pytest.mark.parametrize("strategy", ["even", "first", "middle", "last", "adaptability"])
def test_a_count_that_does_not_fit(strategy, num_layers):
    message = f"num_layers is {num_layers}, but the backbone has 6 blocks; choose 1 to 6"
    with pytest.raises(ValueError, match=message):
        select(strategy, 6, num_layers=num_layers)


def test_a_setting_without_effect_is_an_error():
    with pytest.raises(ValueError, match="'all' takes all 6 blocks; remove it"):
        select("all", 6, num_layers=2)
    for strategy in ("all", "even", "first", "middle", "last"):
        with pytest.raises(ValueError, match=f"no effect with strategy '{strategy}'"):
            select(strategy, 6, scores="scores.json")


def test_errors_of_explicit_lists_and_unknown_strategies():
    with pytest.raises(ValueError, match="block 6, but the backbone has 6 blocks; use 0 to 5"):
        select_layers([0, 6], 6)
    with pytest.raises(ValueError, match="block -1"):
        select_layers([-1], 6)
    with pytest.raises(ValueError, match=r"repeats an index: \[2, 2, 4\]"):
        select_layers([4, 2, 2], 6)
    with pytest.raises(ValueError, match="'random'; choose even, first"):
        select("random", 6)


def test_errors_of_scores_files(tmp_path):
    path = tmp_path / "scores.json"
    with pytest.raises(ValueError, match=r"scores\.json, which does not exist"):
        select("adaptability", 6, scores=str(path))
    path.write_text(json.dumps({"scores": [1, 2]}))
    with pytest.raises(ValueError, match="has 2 scores, but the backbone has 6 blocks"):
        select("adaptability", 6, scores=str(path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1: not JSON"),
        ('{"scores": [NaN]}', "NaN is no number"),
        ('{"scores": "123456"}', 'a list of numbers under "scores"'),
        ("{}", 'a list of numbers under "scores"'),
        ("[1]", "one JSON object"),
    ],
)
def test_scores_that_are_none_are_named(tmp_path, text, said):
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(UserError, match=rf"scores\.json.*{said}"):
        select("adaptability", 6, num_layers=1, scores=str(tmp_path / "scores.json"))
