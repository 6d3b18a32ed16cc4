"""What a measurement writes, and the page of all of them."""

import argparse
import json
import shlex
from pathlib import Path

import pytest
import torch

from benchmarks import bench, checkpoint, construction, data, loop, scaling, scoring
from benchmarks.profiles import SMALL_CONFIG
from benchmarks.report import Figure, read_figures, write_result
from benchmarks.results_table import RESULTS, SHOWN, gpu_table, main, page, with_table


def test_a_result_can_be_read_and_shown(tmp_path: Path) -> None:
    figures = [Figure("speed", 3.0, "s", 2.0, "a | b"), Figure("name", "flash", "")]
    path = tmp_path / "one.json"
    settings = argparse.Namespace(out=path, steps=3, folder=Path("x"))
    write_result(path, "train_step", figures, settings=settings, details={"more": [1]})
    result, read = read_figures(path)
    assert read == figures
    assert result["settings"] == {"steps": 3, "folder": "x"}
    assert [figure["ratio"] for figure in result["figures"]] == [1.5, None]
    assert result["machine"]["logical cpus"] > 0 and result["details"] == {"more": [1]}
    main(["--folder", str(tmp_path)])
    written = (tmp_path / "README.md").read_text()
    assert "## one" in written and "| 1.5 " in written and "a \\| b" in written


def test_the_committed_page_is_that_of_the_committed_results() -> None:
    assert (RESULTS / "README.md").read_text() == page(RESULTS)
    for path in RESULTS.rglob("*.json"):
        text = path.read_text()
        assert json.loads(text)["figures"] and "/work" not in text and "/tmp" not in text
    for name, (path, shown) in SHOWN.items():
        assert path.read_text() == with_table(path.read_text(), name, shown(RESULTS))


def test_the_bench_makes_the_committed_results() -> None:
    for name, part in bench.PARTS.items():
        benchmark, *options = shlex.split(part)
        result, _ = read_figures(RESULTS / f"{name}.json")
        out = f"benchmarks/results/{name}.json"
        typed = ["python", "-m", f"benchmarks.{benchmark}", *options, "--out", out]
        assert sorted(result["command"].split()) == sorted(typed)


def test_parts_of_the_bench_run_in_one_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(bench.PARTS, "small", "construction --layers 1 --size small")
    num_threads = torch.get_num_threads()
    try:
        bench.main(["--folder", str(tmp_path), "--only", "small", "plan"])
    finally:
        torch.set_num_threads(num_threads)
    for name, options in (("small", " --layers 1 --size small"), ("plan", "")):
        result, _ = read_figures(tmp_path / f"{name}.json")
        benchmark = bench.PARTS[name].split()[0]
        assert result["command"] == f"python -m benchmarks.{benchmark}{options} --out {name}.json"
        assert result["machine"]["threads"] == 1
    assert "## small" in (tmp_path / "README.md").read_text()
    printed = capsys.readouterr().out
    assert "| small " in printed and "| in all, imports included |" in printed


def test_the_table_of_a_gpu_is_made_of_its_file(tmp_path: Path) -> None:
    assert "No GPU has run it yet" in gpu_table(tmp_path)
    path, figures = tmp_path / "H200" / "gpu_check.json", [Figure("Mochi: step", 3.0, "s", 2.0)]
    path.parent.mkdir()
    write_result(path, "gpu_check", figures, settings=argparse.Namespace(try_out=False))
    assert "| Mochi: step | 3     | s    | 2     |      |" in gpu_table(tmp_path)
    write_result(path, "gpu_check", figures, settings=argparse.Namespace(try_out=True))
    with pytest.raises(ValueError, match="is of a rehearsal"):
        gpu_table(tmp_path)


def test_a_page_without_the_place_for_a_table_is_named() -> None:
    with pytest.raises(ValueError, match="once, not 0 times"):
        with_table("a page", "plan", "| a |")


def test_the_loop_is_the_recipes(tmp_path: Path) -> None:
    settings = argparse.Namespace(steps=14, drop=4, repeats=1)
    cli = loop.recipe(tmp_path, settings)
    names = {type(callback).__name__ for callback in cli.trainer.callbacks}
    assert {"AtomicCheckpoint", "TrainingCurves", "FiniteTraining", "LearningRateMonitor",
            "BetaAnnealing", "MemoryUse", "TrainingSpeed"} <= names  # fmt: skip
    whole = loop.by_trainer(cli, settings, without=loop.WHOLE)
    assert cli.trainer.global_step == 14
    assert "train/loss_aist" in cli.trainer.callback_metrics
    bare = loop.by_trainer(cli, settings, without=loop.BARE)
    less = loop.by_trainer(cli, settings, without="TrainingCurves")
    assert "train/loss_aist" not in cli.trainer.callback_metrics
    assert min(whole, bare, less, loop.by_hand(settings)) > 0


def test_a_line_and_a_square_are_found() -> None:
    tokens = [128, 256, 1024, 2048]
    a, b = scaling.fitted(tokens, [2e-6 * n + 3e-9 * n * n for n in tokens])
    assert abs(a - 2e-6) < 1e-12 and abs(b - 3e-9) < 1e-15


def test_trainer_and_hand_run_the_same_steps(tmp_path: Path) -> None:
    batch = scaling.noise_batch(7, 32, 32)
    module = scaling.recipe_module(scaling.small_recipe(tmp_path, max_steps=1))
    assert len(scaling.by_hand(module, batch, 2)) == 2
    own = tmp_path / "own"
    own.mkdir()
    times = scaling.in_trainer(own, batch, 3)
    assert len(times) == 3 and min(times) > 0


def test_a_checkpoint_holds_adapters_and_adam(tmp_path: Path) -> None:
    size, trained, frozen = checkpoint.small_file(tmp_path)
    assert 12 * trained < size < 1.05 * 12 * trained
    assert frozen > 0
    size, trained, frozen = checkpoint.full_state()
    assert trained == 747_804_672 and frozen == 2 * 10_027_677_744
    # Adam counts its steps with a number for each tensor.
    assert 12 * trained <= size < 12 * trained + 10_000


def test_clips_are_written_and_read(tmp_path: Path) -> None:
    settings = argparse.Namespace(clips=4, frames=7, height=32, width=32, repeats=2, workers=[0])
    size = data.write_clips(tmp_path, settings)
    assert size > 2 * 12 * 2 * 4 * 4 * 2 + 14 * 768 * 4
    rates = data.clips_per_second(tmp_path, settings, 0)
    assert len(rates) == 2 and min(rates) > 0


def test_construction_is_measured() -> None:
    found = construction.build(2, size="small")
    width = SMALL_CONFIG["num_attention_heads"] * SMALL_CONFIG["attention_head_dim"]
    assert found["held"] > 2 * 2 * 4 * width**2
    assert found["peak"] >= found["before"] > 0 and found["seconds"] > 0
    assert construction.build(None, size="small")["held"] == 0


def test_scoring_is_measured(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.yaml"
    kind = "dance_eval.metrics.motion_frequency.MotionFrequency"
    metrics.write_text(f"- class_path: {kind}\n")
    settings = argparse.Namespace(
        clips=3, different=2, frames=13, height=48, width=64, num_workers=1, metrics=metrics
    )
    figures, details = scoring.measure(settings)
    cpu, clock, failed = (figure.value for figure in figures)
    assert 0 < cpu < clock * 3 and failed == 0
    assert details == {"metrics": ["motion_frequency"]}
    frames = scoring.dance(0, num_frames=9, height=48, width=64)
    assert frames.shape == (9, 48, 64, 3) and not frames[0].equal(frames[8])
    assert scoring.clicks(30, 1).abs().max() > 0.5
