"""A run that was cut off and resumed equals an uninterrupted one, to the bit."""

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightning_modules.checkpointing import CheckpointMismatchError
from tests.conftest import ROOT, cli_arguments
from tests.ranks import Ended, run_alone
from train import main

NUM_STEPS, KILL_AT = 8, 3


# Samples without text, without music and without either, each more often than not in six steps.
DROPOUTS = [f"--data.init_args.{part}_dropout=0.25" for part in ("caption", "music", "both")]


def arguments(root: Path, parts: Path, cache: Path, *, workers: int, accumulation: int) -> list:
    callbacks = (
        "[{class_path: callbacks.AtomicCheckpoint, init_args: {dirpath: "
        f"{root}/checkpoints, every_n_train_steps: 1, save_top_k: -1, save_last: true, "
        "enable_version_counter: false}},"
        f"{{class_path: tests.training_record.TrainingRecord, init_args: {{path: {root}/record}}}}]"
    )
    return cli_arguments(
        "fit",
        f"--trainer.callbacks={callbacks}",
        f"--trainer.max_steps={NUM_STEPS}",
        f"--trainer.accumulate_grad_batches={accumulation}",
        "--data.init_args.batch_size=2",
        f"--data.init_args.num_workers={workers}",
        "--model.init_args.schedule.warmup_steps=2",
        parts=parts,
        cache=cache,
        root=root,
    )


def cut_off(root: Path, run_arguments: list[str], end: str) -> Ended:
    """Run the same command in a process of its own until it is cut off at step 3."""
    cut = [
        a.replace(f"{root}/record", f"{root}/record, at_step: {KILL_AT}, end: {end}")
        for a in run_arguments
    ]
    return run_alone(root, cut, cwd=ROOT)


def lines(root: Path) -> list[str]:
    return (root / "record").read_text().splitlines(keepends=True)


def record(root: Path) -> list[dict]:
    return [json.loads(line) for line in lines(root)]


@pytest.mark.parametrize(
    ("end", "workers", "accumulation", "options"),
    [
        ("SIGKILL", 0, 1, []),
        ("SIGKILL", 0, 1, DROPOUTS),
        # Quicker in tests/test_slurm.py, with two processes.
        pytest.param("SIGTERM", 2, 2, [], marks=pytest.mark.slow),
        pytest.param("SIGKILL", 2, 2, DROPOUTS, marks=pytest.mark.slow),
        pytest.param("SIGKILL", 0, 2, [], marks=pytest.mark.slow),
        pytest.param("SIGTERM", 0, 1, [], marks=pytest.mark.slow),
        pytest.param("full disk", 0, 1, [], marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_cut_off_continues_to_the_bit(
    tmp_path: Path,
    small_parts: Path,
    small_cache: Path,
    end: str,
    workers: int,
    accumulation: int,
    options: list[str],
) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    whole.mkdir()
    parted.mkdir()
    split = {"workers": workers, "accumulation": accumulation}
    main([*arguments(whole, small_parts, small_cache, **split), *options])
    command = [*arguments(parted, small_parts, small_cache, **split), *options]
    process = cut_off(parted, command, end)
    expected = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 0, "full disk": 1}
    assert process.exit_code == expected[end], process.errors[-2000:]
    if end == "full disk":
        assert process.errors.strip().splitlines()[-1].startswith("train.py: ")
        assert "could not be written (File too large); make room" in process.errors
        # The step whose checkpoint found no room was done, and is done again.
        (parted / "record").write_text("".join(lines(parted)[: KILL_AT * accumulation]))
    # SIGTERM finds its step in the middle and finishes it.
    num_done = KILL_AT + (end == "SIGTERM")
    assert len(record(parted)) == num_done * accumulation
    last = torch.load(parted / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == num_done
    assert not [p for p in (parted / "checkpoints").iterdir() if p.name.startswith(".")]
    main(command)

    assert len(record(whole)) == NUM_STEPS * accumulation
    assert record(parted) == record(whole)
    seen = [i for line in record(whole) for i in line["samples"]]
    assert seen == list(range(NUM_STEPS * accumulation * 2))
    checkpoints = [
        torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)
        for root in (whole, parted)
    ]
    assert_equal(*(c["state_dict"] for c in checkpoints))
    assert_equal(*(c["optimizer_states"] for c in checkpoints))
    assert_equal(*(c["lr_schedulers"] for c in checkpoints))
    # The rate was not zero and the weights did move.
    assert any((v != 0).any() for k, v in checkpoints[0]["state_dict"].items() if "to_out" in k)


def assert_equal(one: object, other: object) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert one == other


def test_repeating_a_command_starts_continues_and_stops(run_cli, small_cache: Path, tmp_path: Path):
    steps = [
        run_cli("fit", f"--trainer.max_steps={n}", cache=small_cache).trainer.global_step
        for n in (2, 4, 4)
    ]
    assert steps == [2, 4, 4]
    assert len(list((tmp_path / "checkpoints").glob("last*.ckpt"))) == 1


@pytest.mark.parametrize("by_path", [False, True])
def test_checkpoint_of_another_model_is_refused(
    run_cli, small_cache: Path, fitted: SimpleNamespace, by_path: bool
):
    path = f"--ckpt_path={fitted.last if by_path else 'last'}"
    changed = ("--model.init_args.lora.rank=3", "--model.init_args.zica.num_heads=4")
    for verb in ("fit", "validate"):
        with pytest.raises(CheckpointMismatchError) as error:
            run_cli(verb, path, *changed, cache=small_cache, root=fitted.root)
        assert "lora.rank: 2 in the checkpoint, 3 in the config" in str(error.value)
        assert "zica.num_heads: 8 in the checkpoint, 4 in the config" in str(error.value)
    with pytest.raises(CheckpointMismatchError, match="layers"):
        layers = "--model.init_args.layers=[0, 1]"
        run_cli("fit", path, layers, cache=small_cache, root=fitted.root)


def test_foreign_checkpoint_is_refused(
    run_cli, small_cache: Path, fitted: SimpleNamespace, tmp_path: Path
) -> None:
    checkpoint = torch.load(fitted.last, weights_only=True)
    del checkpoint["musicinfuser"]
    torch.save(checkpoint, tmp_path / "foreign.ckpt")
    with pytest.raises(CheckpointMismatchError, match="not written by this program"):
        run_cli("fit", f"--ckpt_path={tmp_path}/foreign.ckpt", cache=small_cache)


def test_checkpoint_holds_adapters_and_optimizer_only(fitted: SimpleNamespace) -> None:
    checkpoint = torch.load(fitted.last, weights_only=True)
    assert set(checkpoint["state_dict"]) == fitted.names
    adapters = sum(t.numel() * t.element_size() for t in checkpoint["state_dict"].values())
    moments = sum(
        t.numel() * t.element_size()
        for state in checkpoint["optimizer_states"][0]["state"].values()
        for t in state.values()
    )
    assert moments == pytest.approx(2 * adapters, rel=0.01)
    assert fitted.last.stat().st_size <= 1.05 * (adapters + moments) + 100_000


@pytest.mark.parametrize("verb", ["validate", "predict"])
def test_last_without_a_checkpoint_is_refused(run_cli, small_cache: Path, verb: str) -> None:
    with pytest.raises(ValueError, match="there is none in .*checkpoints; run fit first"):
        run_cli(verb, cache=small_cache)


def test_a_checkpoint_of_a_step_will_do_for_last(
    tmp_path: Path, small_parts: Path, small_cache: Path
) -> None:
    """Killed between writing a step's file and `last`, a run can still be judged."""
    run = arguments(tmp_path, small_parts, small_cache, workers=0, accumulation=1)
    main([a.replace(f"max_steps={NUM_STEPS}", "max_steps=1") for a in run])
    (tmp_path / "checkpoints" / "last.ckpt").unlink()
    [step] = (tmp_path / "checkpoints").glob("*.ckpt")
    folder = f"{{dirpath: {tmp_path}/checkpoints}}"
    saving = f"{{class_path: callbacks.AtomicCheckpoint, init_args: {folder}}}"
    options = [a for a in run[1:] if "training_record" not in a]
    cli = main(["validate", *options, f"--trainer.callbacks=[{saving}]"])
    assert Path(cli.trainer.ckpt_path) == step
