"""Two processes on the CPU are one process at the same global batch; sharded, they are two."""

import csv
import json
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, cli_arguments
from tests.ranks import Ended, run_ranks
from tests.test_resume import assert_equal
from train import main

NUM_STEPS, GLOBAL_BATCH = 4, 4
TWO = (f"--config={ROOT}/configs/ddp.yaml", "--trainer.devices=2", "--data.init_args.batch_size=2")
# In a step one process may have samples with music only and the other none; each batch is
# predicted with changed music too.
DROPOUTS = (
    "--data.init_args.music_dropout=0.4",
    "--data.init_args.both_dropout=0.2",
    "--model.init_args.objective.counterfactual.weight=0.5",
)
SHARDED = (f"--config={ROOT}/configs/sharded.yaml", *TWO, "--data.init_args.max_validation_clips=2")


def arguments(
    root: Path, parts: Path, cache: Path, *options: str, steps: int = NUM_STEPS
) -> list[str]:
    root.mkdir(exist_ok=True)
    callbacks = (
        "{class_path: callbacks.AtomicCheckpoint, init_args: {dirpath: "
        f"{root}/checkpoints, filename: '{{step}}', every_n_train_steps: 2, save_top_k: -1, "
        "save_last: true, enable_version_counter: false}}",
        f"{{class_path: tests.rank_record.RankRecord, init_args: {{path: {root}/record}}}}",
        *(
            f"{{class_path: callbacks.{name}}}"
            for name in ("FiniteTraining", "TrainingCurves", "AdapterEMA", "MemoryUse")
        ),
    )
    return cli_arguments(
        "fit",
        f"--config={ROOT}/configs/loggers/csv.yaml",
        *options,
        f"--trainer.callbacks=[{', '.join(callbacks)}]",
        f"--trainer.max_steps={steps}",
        "--trainer.accelerator=cpu",
        "--trainer.log_every_n_steps=2",
        "--trainer.val_check_interval=2",
        "--trainer.limit_val_batches=1.0",
        "--model.init_args.schedule.decay=constant",
        # A gradient that is a rounding error would make a step of full length.
        "--model.init_args.optimizer.eps=1e-4",
        parts=parts,
        cache=cache,
        root=root,
    )


def finish(ended: list[Ended]) -> None:
    assert [process.exit_code for process in ended] == [0, 0], ended[-1].output[-2000:]


def checkpoint(root: Path) -> dict:
    return torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)


def record(root: Path, rank: int) -> list[dict]:
    return [json.loads(line) for line in (root / f"record.{rank}").read_text().splitlines()]


def logged(root: Path) -> dict[tuple[str, int], float]:
    """Values by name and step, over all starts of a run."""
    values = {}
    for path in sorted((root / "csv").glob("version_*/metrics.csv")):
        for row in csv.DictReader(path.open()):
            step = int(row["step"])
            values |= {(name, step): float(v) for name, v in row.items() if v and name != "step"}
    return values


@pytest.fixture(scope="module")
def one_and_two(
    small_parts: Path, small_cache: Path, media: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A run of one process, and one of two that was stopped and resumed in its middle."""
    folder = tmp_path_factory.mktemp("ddp")
    one, two = folder / "one", folder / "two"
    world = (small_parts, small_cache)
    main(arguments(one, *world, f"--data.init_args.batch_size={GLOBAL_BATCH}", *DROPOUTS))
    tracks = sorted((media / "aist").glob("*.mp4"))[:2]
    requests = ", ".join(f"{{track: {track}, prompt: a dance video}}" for track in tracks)
    samples = ("--sample_generation.every_n_steps=4", f"--sample_generation.requests=[{requests}]")
    for steps in (2, NUM_STEPS):
        run = arguments(two, *world, *TWO, *samples, *DROPOUTS, steps=steps)
        finish(run_ranks(folder, run))
    return one, two


def test_they_share_the_samples_out(one_and_two: tuple[Path, Path]) -> None:
    one, two = one_and_two
    whole, parts = record(one, 0), [record(two, rank) for rank in (0, 1)]
    assert len(whole) == len(parts[0]) == len(parts[1]) == NUM_STEPS
    for step, (all_, a, b) in enumerate(zip(whole, *parts, strict=True)):
        assert a["samples"] + b["samples"] == all_["samples"]
        assert all_["samples"] == list(range(step * GLOBAL_BATCH, (step + 1) * GLOBAL_BATCH))
        assert a["clips"] + b["clips"] == all_["clips"]
        from_aist = [clip for clip in all_["clips"] if clip.startswith("g")]
        assert len(from_aist) == GLOBAL_BATCH / 2


def test_losses_weights_and_averages_are_those_of_one_process(
    one_and_two: tuple[Path, Path],
) -> None:
    one, two = one_and_two
    for all_, a, b in zip(record(one, 0), record(two, 0), record(two, 1), strict=True):
        losses = [float.fromhex(line["loss"]) for line in (all_, a, b)]
        assert losses[0] == pytest.approx((losses[1] + losses[2]) / 2, rel=1e-4)
        assert (all_["lr"], all_["beta"]) == (a["lr"], a["beta"]) == (b["lr"], b["beta"])
    states = [checkpoint(root) for root in one_and_two]
    averages = [s["callbacks"]["AdapterEMA"]["average"] for s in states]
    for ours, theirs in (tuple(s["state_dict"] for s in states), averages):
        assert ours.keys() == theirs.keys()
        for name, weight in ours.items():
            assert torch.allclose(weight, theirs[name], rtol=0, atol=1e-4), name
    moved = states[0]["state_dict"]["model.zica.0.to_out.weight"]
    assert moved.abs().max() > 1e-3


def test_what_is_logged_is_over_all_processes(one_and_two: tuple[Path, Path]) -> None:
    one, two = map(logged, one_and_two)
    own = {"train/peak_ram_gb", "epoch"}
    # Only the run of two processes makes samples.
    samples = {key: two.pop(key) for key in list(two) if key[0].startswith("samples/")}
    assert [step for _, step in samples] == [4, 4]
    assert one.keys() == two.keys()
    compared = {key for key in one if key[0] not in own}
    assert {name for name, _ in compared} >= {
        "train/loss", "train/loss_aist", "train/loss_youtube", "train/grad_norm_zica",
        "train/grad_norm_lora", "train/grad_norm_max", "train/counterfactual_loss",
        "val/loss", "val/loss_other_music", "val/music_gap",
    }  # fmt: skip
    for key in compared:
        assert one[key] == pytest.approx(two[key], rel=1e-3, abs=2e-5), key


def test_files_are_written_once(one_and_two: tuple[Path, Path]) -> None:
    _, two = one_and_two
    names = {path.name for path in (two / "checkpoints").iterdir()}
    assert names == {"2.ckpt", "4.ckpt", "last.ckpt"}
    rows = (two / "samples" / "step_000004" / "manifest.jsonl").read_text().splitlines()
    assert len({json.loads(row)["file"] for row in rows}) == len(rows) == 2
    assert len(list((two / "logs").glob("events.*"))) == 2  # one per start
    assert len(list((two / "csv").iterdir())) == 2


def test_a_sharded_backbone_changes_nothing(
    one_and_two: tuple[Path, Path], small_parts: Path, small_cache: Path, tmp_path: Path
) -> None:
    """Gradient checkpointing runs a block once more within backward, where weights are gathered."""
    sharded, plain = tmp_path / "sharded", one_and_two[1]
    for steps in (2, NUM_STEPS):
        run = arguments(
            sharded, small_parts, small_cache, *SHARDED, *DROPOUTS,
            "--model.init_args.memory.gradient_checkpointing=attention", steps=steps,
        )  # fmt: skip
        finish(run_ranks(tmp_path, run))
    whole, *held = (
        json.loads((root / f"record.{rank}.weights").read_text())
        for root, rank in ((plain, 0), (sharded, 0), (sharded, 1))
    )
    for name, size in whole.items():
        shares = [part[name] for part in held]
        assert shares == [size, size] if "lora" in name else sum(shares) == size, name
    assert 0.9 < sum(held[0].values()) / sum(held[1].values()) < 1.1
    states = [checkpoint(root) for root in (plain, sharded)]
    for group in ("state_dict", "optimizer_states"):
        assert_equal(states[0][group], states[1][group])
    assert_equal(*(s["callbacks"]["AdapterEMA"]["average"] for s in states))
    # It is an ordinary checkpoint.
    validate = cli_arguments(
        "validate", "--trainer.limit_val_batches=1.0", "--data.init_args.max_validation_clips=2",
        f"--ckpt_path={sharded}/checkpoints/last.ckpt", "--model.init_args.shard_backbone=true",
        "--model.init_args.schedule.decay=constant",
        "--trainer.callbacks=[{class_path: callbacks.AdapterEMA}]",
        parts=small_parts, cache=small_cache, root=tmp_path / "validated",
    )  # fmt: skip
    metrics = main(validate).trainer.callback_metrics
    in_training = logged(sharded)
    assert metrics["val/loss"].item() == pytest.approx(in_training["val/loss", 3], rel=1e-4)
    assert metrics["val/music_gap"].item() != 0


@pytest.mark.slow
def test_weights_and_inputs_in_the_hosts_memory_change_nothing(
    small_parts: Path, small_cache: Path, tmp_path: Path
) -> None:
    """The profile for 24 GB on two processes, each with a backbone of its own, stopped midway."""
    states = []
    for held in ("false", "true"):
        root = tmp_path / held
        options = (
            "--model.init_args.memory.gradient_checkpointing=full",
            *(
                f"--model.init_args.memory.{name}={held}"
                for name in ("stream_blocks", "offload_inputs", "modulations_on_host")
            ),
        )
        for steps in (2, NUM_STEPS):
            run = arguments(root, small_parts, small_cache, *TWO, *options, steps=steps)
            finish(run_ranks(tmp_path, run))
        states.append(checkpoint(root))
    for group in ("state_dict", "optimizer_states"):
        assert_equal(states[0][group], states[1][group])
    assert_equal(*(s["callbacks"]["AdapterEMA"]["average"] for s in states))
    assert states[0]["state_dict"]["model.zica.0.to_out.weight"].abs().max() > 1e-3


@pytest.mark.slow
def test_a_sharded_backbone_may_be_compiled(
    small_parts: Path, small_cache: Path, tmp_path: Path
) -> None:
    """Weights are gathered around what is compiled, and again before its backward pass."""
    options = (
        *SHARDED, "--model.init_args.layers=[0, 1, 2]", "--data.init_args.caption_dropout=0",
        "--model.init_args.memory.gradient_checkpointing=attention",
        "--data.init_args.batch_size=1",
    )  # fmt: skip
    states = []
    for compiled in ("false", "true"):
        run = arguments(
            tmp_path / compiled, small_parts, small_cache, *options,
            f"--model.init_args.memory.compile_blocks={compiled}", steps=2,
        )  # fmt: skip
        finish(run_ranks(tmp_path, [*run, "--trainer.limit_val_batches=0"]))
        states.append(checkpoint(tmp_path / compiled)["state_dict"])
    for name, weight in states[0].items():
        assert torch.allclose(weight, states[1][name], rtol=0, atol=1e-4), name


def test_sharded_processes_must_validate_alike(
    small_parts: Path, small_cache: Path, tmp_path: Path
) -> None:
    uneven = "--data.init_args.max_validation_clips=3"
    ended = run_ranks(
        tmp_path, arguments(tmp_path / "run", small_parts, small_cache, *SHARDED, uneven)
    )
    for rank, process in enumerate(ended):
        assert process.exit_code == 1
        last = process.output.strip().splitlines()[-1]
        assert last.startswith(f"train.py: rank {rank}: the processes have [2, 1] batches")


def test_sharded_processes_make_no_samples(run_cli, small_cache: Path, media: Path) -> None:
    track = next((media / "aist").glob("*.mp4"))
    with pytest.raises(ValueError, match=r"shard_backbone and samples .* exclude each other"):
        run_cli(
            "fit", "--trainer.devices=2", "--model.init_args.shard_backbone=true",
            "--sample_generation.every_n_steps=1",
            f"--sample_generation.requests=[{{track: {track}, prompt: p}}]", cache=small_cache,
        )  # fmt: skip
