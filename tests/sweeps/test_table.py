"""The table of a sweep from stored scores, and intervals over seeds and clips."""

import json
from pathlib import Path

import pytest

from musicinfuser.metrics.seed_intervals import bootstrap_seeds_and_clips
from musicinfuser.sweeps.plan import Run
from musicinfuser.sweeps.table import combined, sweep_rows


def scored(folder: Path, system: str, values: list[float], failures: int = 0) -> None:
    clips = [
        {"system": system, "file": f"{n}.mp4", "values": {"beat": {"score": v}}, "failures": {}}
        for n, v in enumerate(values)
    ]
    mean = sum(values) / len(values)
    value = {"mean": mean, "low": None, "high": None, "n": len(values), "num_failed": failures}
    over_sets = {"mean": mean / 10, "low": None, "high": None, "n": 2, "num_failed": 0}
    document = {"systems": {system: {"beat/score": value, "set/distance": over_sets}}}
    document |= {"clips": clips, "seed": 0, "confidence": 0.95, "complete": True}
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(document))


def test_rows_are_means_over_seeds_and_clips(tmp_path: Path) -> None:
    runs = []
    for seed, values in ((1, [0.1, 0.3]), (2, [0.5, 0.7])):
        scored(tmp_path / f"ours_seed{seed}", "Ours", values, failures=seed)
        runs.append(Run(f"ours_seed{seed}", "Ours", seed, tmp_path / f"ours_seed{seed}", ()))
    scored(tmp_path / "truth", "what its list says", [0.9, 0.8])
    runs.append(Run("truth", "Ground truth", None, tmp_path / "truth", ()))
    document = combined(runs)
    ours = document["systems"]["Ours"]
    assert ours["beat/score"]["mean"] == pytest.approx(0.4)
    assert ours["beat/score"]["n"] == 2
    assert ours["beat/score"]["num_failed"] == 3
    assert ours["beat/score"]["low"] < 0.3 and ours["beat/score"]["high"] > 0.5
    assert ours["set/distance"]["mean"] == pytest.approx(0.04)
    assert document["by_seed"]["Ours"]["beat/score"] == pytest.approx({"1": 0.2, "2": 0.6})
    rows = sweep_rows(document, {"beats": "beat/score"})
    assert [row["row"] for row in rows] == ["Ours", "Ground truth"]
    assert [(row["seeds"], row["clips"]) for row in rows] == [(2, 2), (1, 2)]
    assert str(rows[0]["beats"]).startswith("0.400 [")


def test_seeds_that_disagree_widen_the_interval() -> None:
    clips = {str(n): 0.1 * (n % 3) for n in range(30)}
    agreeing = [clips, clips, clips]
    apart = [{c: v + shift for c, v in clips.items()} for shift in (-0.5, 0.0, 0.5)]
    options = {"seed": 0, "name": "x"}
    narrow = bootstrap_seeds_and_clips(agreeing, **options)
    wide = bootstrap_seeds_and_clips(apart, **options)
    assert wide.mean == pytest.approx(narrow.mean)
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)
    assert bootstrap_seeds_and_clips(apart, **options) == wide
    # A clip that one seed lacks counts with the others.
    holes = [clips, {c: v for c, v in clips.items() if c != "0"}]
    assert bootstrap_seeds_and_clips(holes, **options).num_values == 30
    assert bootstrap_seeds_and_clips([], **options).mean is None
    assert bootstrap_seeds_and_clips([{"a": 1.0}], **options).low is None
