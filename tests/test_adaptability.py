"""Scores, ranking and plot out of a metrics.json with known numbers."""

import json
import re

import pytest
import yaml

from dance_eval.layer_scores import (
    AdaptabilityError,
    layer_scores,
    score_plot,
    score_rows,
)
from musicinfuser.networks.layer_selection import LayerStrategy, select_layers
from tests.conftest import ROOT
from tests.scored_numbers import document, record

VALUES = ("imaging/score", "aesthetic/score")
# By layer, the last the reference: three clips of each.
IMAGING = ((0.5, 0.6, 0.7), (0.8, 0.9, 1.0), (0.1, 0.2, 0.3), (0.9, 0.8, 1.0), (0.4, 0.4, 0.4),
           (0.5, 0.5, 0.5), (0.4, 0.5, 0.6))  # fmt: skip
DEPTH = len(IMAGING) - 1


def measured(numbers=IMAGING):
    names = [*(f"layer {i}" for i in range(len(numbers) - 1)), "no layer skipped"]
    return document(
        [
            record(
                name, i, {"imaging": {"score": x}, "aesthetic": {"score": 1 - x}}, prompt=f"p{i}"
            )
            | {"seed": 0}
            for name, own in zip(names, numbers, strict=True)
            for i, x in enumerate(own)
        ]
    )


def test_ranks_by_the_first_value_with_ties_to_the_lower_index(tmp_path):
    found = layer_scores(measured(), values=VALUES, depth=DEPTH, choices={"seeds": [0]})
    assert found["scores"] == pytest.approx([0.6, 0.9, 0.2, 0.9, 0.4, 0.5])
    assert found["ranking"] == [1, 3, 0, 5, 4, 2]
    assert (found["num_layers"], found["chosen"], found["choices"]) == (2, [1, 3], {"seeds": [0]})
    path = tmp_path / "adaptability.json"
    path.write_text(json.dumps(found))
    for number, expected in ((None, (1, 3)), (1, (1,)), (3, (0, 1, 3))):
        strategy = LayerStrategy("adaptability", num_layers=number, scores=str(path))
        assert select_layers(strategy, DEPTH) == expected
        chosen = layer_scores(measured(), values=VALUES, depth=DEPTH, num_layers=number)["chosen"]
        assert chosen == list(expected)
    other = layer_scores(measured(), values=VALUES[::-1], depth=DEPTH)
    assert other["chosen"] == [2, 4]


def test_layers_of_mochi_are_measured_as_pictures_are() -> None:
    def read(name):
        return yaml.safe_load((ROOT / f"{name}.yaml").read_text())

    pictures = {m["init_args"]["name"]: m for m in read("dance_eval/configs/picture_metrics")}
    own = {m["init_args"]["name"]: m for m in read("configs/adaptability_metrics")}
    assert own.keys() == {"imaging_quality", "aesthetic_quality"}
    assert own.items() <= pictures.items()
    [callback] = read("configs/adaptability")["trainer"]["callbacks"]
    assert callback["init_args"]["values"] == ["imaging_quality/score", "aesthetic_quality/score"]
    assert callback["init_args"]["metrics"] == "configs/adaptability_metrics.yaml"


def test_gains_are_taken_clip_by_clip():
    found = layer_scores(measured(), values=VALUES, depth=DEPTH)
    imaging = found["values"]["imaging/score"]
    assert imaging["reference"]["mean"] == pytest.approx(0.5)
    # Layer 0 is 0.1 above the reference on every clip: the interval of the gain is a point.
    gain = imaging["layers"][0]["gain"]
    assert [gain[end] for end in ("mean", "low", "high")] == pytest.approx([0.1, 0.1, 0.1])
    assert imaging["layers"][0]["low"] < 0.6 < imaging["layers"][0]["high"]
    assert gain["n"] == 3
    assert imaging["layers"][3]["gain"]["low"] < imaging["layers"][3]["gain"]["high"]


def test_the_table_and_the_plot_show_every_layer_and_which_are_chosen():
    found = layer_scores(measured(), values=VALUES, depth=DEPTH)
    rows = score_rows(found)
    assert [row["layer"] for row in rows] == [*(f"layer {i}" for i in range(6)), "no layer skipped"]
    assert [row["rank"] for row in rows] == [3, 1, 6, 2, 5, 4, None]
    assert [row["chosen"] for row in rows] == ["", "yes", "", "yes", "", "", ""]
    assert rows[4]["imaging/score"] == "0.400 [0.400, 0.400]"
    plot = score_plot(found, "imaging/score")
    places = [float(x) for x in re.findall(r'<circle class="mean[^"]*" cx="([\d.]+)"', plot)]
    ranks = sorted(range(6), key=lambda i: (-places[i], i))
    assert ranks == found["ranking"]
    assert re.findall(r'<circle class="mean( hollow)?"', plot) == [
        " hollow", "", " hollow", "", " hollow", " hollow"
    ]  # fmt: skip
    assert plot.count(", chosen<") == 2 and plot.count('<line class="chance"') == 1
    assert "dashed: none, 0.500" in plot


def test_layers_are_compared_on_the_same_clips_only():
    lacking = measured((*IMAGING[:2], IMAGING[2][:2], *IMAGING[3:]))
    with pytest.raises(AdaptabilityError, match=r"layer 2 as without skipping \(2 and 3 clips\)"):
        layer_scores(lacking, values=VALUES, depth=DEPTH)
    with pytest.raises(AdaptabilityError, match="layer 6; there is nothing"):
        layer_scores(measured(), values=VALUES, depth=DEPTH + 1)
    with pytest.raises(AdaptabilityError, match="there is imaging/score, aesthetic/score"):
        layer_scores(measured(), values=("fidelity/score",), depth=DEPTH)
    with pytest.raises(AdaptabilityError, match="7 of 6 layers cannot be chosen"):
        layer_scores(measured(), values=VALUES, depth=DEPTH, num_layers=7)
