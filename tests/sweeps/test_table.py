"""The table of a sweep from stored scores, and intervals over seeds and clips."""

import json
from pathlib import Path

import pytest

from dance_eval.metrics.intervals import bootstrap_seeds_and_clips
from sweeps.plan import Run
from sweeps.scores import combined, differences
from sweeps.settings import RowSpec, ScoreSpec, SweepError, SweepSpec, read_sweep
from sweeps.table import (
    compared,
    forest_plot,
    sweep_rows,
    unpaired_lines,
    write_sweep_table,
)
from tests.sweeps.doors import write_sweep


def scored(
    folder: Path,
    system: str,
    values: list[float],
    failures: int = 0,
    *,
    of_recordings: bool = False,
) -> None:
    clips = [
        {
            "system": system,
            "file": f"{n}_{system}.mp4",
            "track": f"{folder}/{n}.wav",
            "track_offset_seconds": 0.0,
            "prompt": None if of_recordings else "a dancer",
            "seed": None if of_recordings else n,
            "values": {"beat": {"score": v, "chance": 0.25}},
            "failures": {},
        }
        for n, v in enumerate(values)
    ]
    mean = sum(values) / len(values)
    value = {"mean": mean, "low": None, "high": None, "n": len(values), "num_failed": failures}
    over_sets = {"mean": mean / 10, "low": None, "high": None, "n": 2, "num_failed": 0}
    chance = value | {"mean": 0.25}
    numbers = {"beat/score": value, "beat/chance": chance, "set/distance": over_sets}
    document = {"systems": {system: numbers}}
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


def seeds_of(folder: Path, row: str, values: dict[int, list[float]]) -> list[Run]:
    runs = []
    for seed, own in values.items():
        run = Run(f"{row}_{seed}", row, seed, folder / f"{row}_{seed}", ())
        scored(run.folder, row, own)
        runs.append(run)
    return runs


def a_sweep(folder: Path) -> tuple[SweepSpec, list[Run]]:
    """A row far below the reference, one that only its seeds set apart, and what has no seeds."""
    ours = {seed: [0.1 * n + 0.01 * seed for n in range(8)] for seed in (1, 2, 3)}
    worse = {seed: [v - 0.5 for v in own] for seed, own in ours.items()}
    mixed = {
        seed: [v + shift for v in ours[seed]]
        for seed, shift in zip(ours, (-0.3, 0.5, 0.5), strict=True)
    }
    runs = seeds_of(folder, "Ours", ours)
    runs += seeds_of(folder, "Worse", worse) + seeds_of(folder, "Mixed", mixed)
    runs += seeds_of(folder, "Base", {1: [0.0] * 8})
    scored(folder / "truth", "what its list says", [v + 1 for v in ours[2]], of_recordings=True)
    runs.append(Run("truth", "Ground truth", None, folder / "truth", ()))
    rows = [RowSpec("Ours"), RowSpec("Worse"), RowSpec("Mixed"), RowSpec("Base", train=False)]
    rows.append(RowSpec("Ground truth", clips="truth"))
    return SweepSpec(
        folder=str(folder / "out"), configs=[], score=ScoreSpec("m.yaml"), rows=rows,
        seeds=[1, 2, 3], columns={"beats": "beat/score", "chance": "beat/chance"}, reference="Ours",
    ), runs  # fmt: skip


def test_differences_are_paired_by_seed_and_clip(tmp_path: Path) -> None:
    spec, runs = a_sweep(tmp_path)
    found = compared(combined(runs), spec, list(spec.columns.values()))
    assert set(found) == {"Worse", "Mixed", "Base", "Ground truth"}
    assert all(set(values) == {"beat/score"} for values in found.values())
    worse = found["Worse"]["beat/score"]
    # Clips differ far more among each other than rows do; pairs take that out.
    assert worse["mean"] == pytest.approx(-0.5)
    assert worse["high"] - worse["low"] < 1e-9
    assert worse["by_seed"] == pytest.approx({"1": -0.5, "2": -0.5, "3": -0.5})
    assert worse["differs"]
    mixed = found["Mixed"]["beat/score"]
    assert mixed["low"] < 0 < mixed["high"] and not mixed["differs"]
    # One run of what is not trained stands against every training.
    base = found["Base"]["beat/score"]
    assert base["by_seed"] == pytest.approx({"1": -0.36, "2": -0.37, "3": -0.38})
    assert base["differs"]
    truth = found["Ground truth"]["beat/score"]
    assert truth["by_seed"] == pytest.approx({"1": 1.01, "2": 1.0, "3": 0.99})


def test_songs_of_one_name_are_paired_by_their_folders(tmp_path: Path) -> None:
    runs = seeds_of(tmp_path, "Ours", {1: [0.0, 1.0]}) + seeds_of(tmp_path, "Row", {1: [1.1, 0.1]})
    for run, songs in zip(runs, ("ab", "ba"), strict=True):
        document = json.loads((run.folder / "metrics.json").read_text())
        for clip, song in zip(document["clips"], songs, strict=True):
            clip |= {"track": f"{run.folder}/{song}/audio.wav", "seed": 0}
        (run.folder / "metrics.json").write_text(json.dumps(document))
    fields = differences(combined(runs), ["beat/score"], reference="Ours", untrained=())
    assert fields["Row"]["beat/score"]["mean"] == pytest.approx(0.1)
    assert fields["Row"]["beat/score"]["n"] == 2
    assert fields["Row"]["beat/score"]["num_alone"] == 0


def test_only_the_seed_that_both_have_is_paired_and_the_others_are_counted(tmp_path: Path) -> None:
    runs = seeds_of(tmp_path, "Ours", {1: [0.0, 0.1]}) + seeds_of(tmp_path, "Row", {1: [1.0, 1.2]})
    for run, first in zip(runs, (0, 1), strict=True):
        document = json.loads((run.folder / "metrics.json").read_text())
        for number, clip in enumerate(document["clips"], start=first):
            clip |= {"track": "song.wav", "seed": number}
        (run.folder / "metrics.json").write_text(json.dumps(document))
    found = differences(combined(runs), ["beat/score"], reference="Ours", untrained=())
    fields = found["Row"]["beat/score"]
    assert fields["mean"] == pytest.approx(0.9)
    assert (fields["n"], fields["num_alone"]) == (1, 2)
    assert unpaired_lines(found, {"beats": "beat/score"}) == [
        "Row: 2 generation requests of it or of the reference have no counterpart."
    ]


def test_clips_of_two_folders_of_one_run_count_both(tmp_path: Path) -> None:
    [run] = seeds_of(tmp_path, "Ours", {1: [0.1, 0.3]})
    document = json.loads((run.folder / "metrics.json").read_text())
    second = [
        clip | {"folder": "two", "values": {"beat": {"score": 0.9}}} for clip in document["clips"]
    ]
    document["clips"] = [clip | {"folder": "one"} for clip in document["clips"]] + second
    (run.folder / "metrics.json").write_text(json.dumps(document))
    found = combined([run])["systems"]["Ours"]["beat/score"]
    assert (found["n"], found["mean"]) == (4, pytest.approx(0.55))


@pytest.mark.parametrize("sign", [1, -1])
def test_an_interval_without_0_is_not_enough_if_a_seed_disagrees(tmp_path: Path, sign: int) -> None:
    ours = {seed: [0.0] * 8 for seed in range(1, 9)}
    row = {seed: [sign * (-0.1 if seed == 1 else 0.5)] * 8 for seed in ours}
    runs = seeds_of(tmp_path, "Ours", ours) + seeds_of(tmp_path, "Row", row)
    fields = differences(combined(runs), ["beat/score"], reference="Ours", untrained=())
    [found] = fields["Row"].values()
    assert min(sign * found["low"], sign * found["high"]) > 0 and not found["differs"]


def test_tables_numbers_and_plots_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, runs = a_sweep(tmp_path)
    monkeypatch.setattr("sweeps.table.is_finished", lambda run: run.row != "Mixed")
    write_sweep_table(spec, runs, command="python train.py sweep s.yaml")
    out = tmp_path / "out"
    text = (out / "rows.md").read_text()
    assert "| **-0.500 [-0.500, -0.500] (-0.500 to -0.500)** |" in text
    assert "![beats](rows_beats.svg)" in text
    assert "Not finished: Mixed_1, Mixed_2, Mixed_3." in text
    numbers = json.loads((out / "rows.json").read_text())
    assert numbers["rows"]["Worse"]["beat/score"]["by_seed"].keys() == {"1", "2", "3"}
    assert numbers["differences"]["Worse"]["beat/score"]["differs"] is True
    assert numbers["complete"] is False and numbers["reference"] == "Ours"
    assert str(tmp_path) not in json.dumps(numbers)
    plot = (out / "rows_beats.svg").read_text()
    assert "beats (dashed: chance, 0.250)" in plot
    assert all(f">{row}</text>" in plot for row in ("Ours", "Worse", "Base", "Ground truth"))
    # Chance levels are marks, no plots of their own.
    assert [path.name for path in out.glob("*.svg")] == ["rows_beats.svg"]


def test_rows_that_do_not_differ_are_rings(tmp_path: Path) -> None:
    spec, runs = a_sweep(tmp_path)
    document = combined(runs)
    options = {"heading": "beats", "reference": "Ours"}
    plot = forest_plot(document, "beat/score", alike=["Mixed"], **options)
    assert "chance, 0.250; rings: not set apart from Ours)" in plot
    assert plot.count('class="mean hollow"') == 1
    # Without a chance level, the line is the reference.
    assert "(dashed: Ours)" in forest_plot(document, "set/distance", alike=[], **options)
    assert forest_plot(document, "no/value", alike=[], **options) == ""


def test_a_reference_must_be_a_row(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, [{"name": "Ours"}], reference="Hours")
    with pytest.raises(SweepError, match="reference 'Hours' is no row"):
        read_sweep(path)
