"""However a run ends, its last step is saved; resumed, it equals the run that was not ended."""

import os
import signal
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, Timer

from callbacks import AdapterEMA, AtomicCheckpoint, FiniteTraining
from callbacks.atomic_checkpoint import last_checkpoint
from callbacks.checkpoint_files import CheckpointError
from tests.callbacks.test_atomic_checkpoint import load, saver
from tests.small_training import Line, Numbered, StepRecord, trainer
from tests.test_resume import assert_equal

NUM_STEPS = 6


class Seen(L.Callback):
    """The samples of every batch by optimizer step."""

    def __init__(self) -> None:
        self.samples: list[tuple[int, list[str]]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.samples.append((trainer.global_step, batch.clip_ids))


class At(L.Callback):
    """Does something at the hooks of that name, in the batch of that number of the run."""

    def __init__(self, hook: str, batch: int, do: Any) -> None:
        setattr(self, hook, self._look)
        self.batch, self.do = batch, do

    def _look(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.fit_loop.epoch_loop.total_batch_idx == self.batch:
            self.do(trainer)


class Level(Line):
    """Never gets better."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("level", 1.0, batch_size=1)


def ask(trainer: L.Trainer) -> None:
    trainer.should_stop = True


def interrupt(trainer: L.Trainer) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def crash(trainer: L.Trainer) -> None:
    raise ZeroDivisionError


def run(
    root: Path, *callbacks: L.Callback, size: int = 2, steps: int = NUM_STEPS,
    last: str | None = None, saving: AtomicCheckpoint | None = None, **options: Any,
) -> SimpleNamespace:  # fmt: skip
    """A run of ``size`` samples per batch; ``last`` is what it starts from."""
    seen, record = Seen(), StepRecord()
    fit = trainer(
        root, seen, AdapterEMA(0.5), FiniteTraining(), record, *callbacks,
        saving or saver(root / "c"), num_steps=steps, **({"max_epochs": -1} | options),
    )  # fmt: skip
    code = None
    try:
        fit.fit(Level(), datamodule=Numbered(size), ckpt_path=last)
    except ZeroDivisionError:
        pass
    except SystemExit as left:
        code = left.code
    return SimpleNamespace(trainer=fit, seen=seen.samples, record=record, code=code)


def assert_same_end(one: Path, other: Path) -> None:
    first, second = (load(root / "c" / "last.ckpt") for root in (one, other))
    for key in ("global_step", "state_dict", "optimizer_states", "loops"):
        assert_equal(first[key], second[key])
    assert_equal(*(c["callbacks"]["AdapterEMA"] for c in (first, second)))


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize(
    ("ending", "steps"),
    [("max_steps", 5), ("epochs", 4), ("time", 3), ("early", 2), ("asked", 3), ("ctrl-C", 3)],
)
def test_the_last_step_is_saved(tmp_path: Path, ending: str, steps: int, accumulation: int) -> None:
    timer = Timer(timedelta(seconds=50))
    options: dict[str, Any] = {"accumulate_grad_batches": accumulation}
    callbacks: list[L.Callback] = [StepRecord()]
    middle = 2 * accumulation  # the first batch of the third step
    if ending == "max_steps":
        options["steps"] = steps
    elif ending == "epochs":
        options |= {"max_epochs": 2, "limit_train_batches": 2 * accumulation}
    elif ending == "time":
        expire = At("on_train_batch_start", middle, lambda _: setattr(timer, "_duration", 0.0))
        callbacks += [timer, expire]
    elif ending == "early":
        callbacks.append(EarlyStopping("level", patience=1))
        options |= {"val_check_interval": accumulation, "limit_val_batches": 1}
        options["check_val_every_n_epoch"] = None
    else:
        do = ask if ending == "asked" else interrupt
        callbacks.append(At("on_train_batch_start", middle, do))
    handler = signal.getsignal(signal.SIGINT)
    done = run(tmp_path, *callbacks, **options)
    assert signal.getsignal(signal.SIGINT) is handler
    assert done.trainer.global_step == steps
    assert done.code == (130 if ending == "ctrl-C" else None)
    saved = load(tmp_path / "c" / "last.ckpt")
    assert saved["global_step"] == steps
    assert_equal(saved["state_dict"]["layer.weight"], done.record.weights[steps])
    assert_equal(list(saved["optimizer_states"][0]["state"].values()), done.record.states[steps])
    assert last_checkpoint(done.trainer) == str(tmp_path / "c" / "last.ckpt")
    assert [step for step, _ in done.seen] == [s for s in range(steps) for _ in range(accumulation)]


@pytest.mark.parametrize(
    ("hook", "batch"),
    [
        ("on_train_batch_start", 6),
        ("on_train_batch_end", 7),
        ("on_validation_end", 7),
        ("on_train_epoch_end", 8),
        ("on_train_start", -1),
    ],
)
@pytest.mark.parametrize("ending", ["asked", "time", "crash"])
def test_a_stop_in_the_middle_of_a_step_resumes_to_the_bit(
    tmp_path: Path, hook: str, batch: int, ending: str
) -> None:
    """Two epochs of three steps of three batches; validation after every second batch."""
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    options: dict[str, Any] = {
        "accumulate_grad_batches": 3, "limit_train_batches": 9, "val_check_interval": 2,
        "limit_val_batches": 1, "check_val_every_n_epoch": None,
    }  # fmt: skip
    straight = run(whole, **options)
    saving = saver(parted / "c", None, train_time_interval=timedelta(0))
    do = {"asked": ask, "time": ask, "crash": crash}[ending]
    first = run(
        parted, At(hook, batch, do), saving=saving if ending != "asked" else None, **options
    )
    second = run(parted, last="last", **options)
    assert second.trainer.global_step == NUM_STEPS
    seen = first.seen + second.seen
    if ending == "crash":  # what was begun is done again
        seen = list(dict.fromkeys((step, tuple(samples)) for step, samples in seen))
        seen = [(step, list(samples)) for step, samples in seen]
    assert seen == straight.seen
    assert_same_end(whole, parted)


@pytest.mark.parametrize("limit", [9, 10])
def test_epochs_that_end_in_the_middle_of_a_step(tmp_path: Path, limit: int) -> None:
    """Of ten batches, the fourth step has one; every step can be resumed from."""
    options: dict[str, Any] = {"accumulate_grad_batches": 3, "limit_train_batches": limit}
    straight = run(tmp_path / "whole", saving=saver(tmp_path / "whole" / "c", 1), **options)
    lengths = [sum(s == step for s, _ in straight.seen) for step in range(NUM_STEPS)]
    assert lengths == ([3, 3, 3, 3, 3, 3] if limit == 9 else [3, 3, 3, 1, 3, 3])
    for step in range(1, NUM_STEPS):
        root = tmp_path / str(step)
        file = tmp_path / "whole" / "c" / f"step={step}.ckpt"
        resumed = run(root, last=str(file), **options)
        assert resumed.seen == [(s, samples) for s, samples in straight.seen if s >= step]
        assert_same_end(tmp_path / "whole", root)


def in_the_middle(root: Path, **options: Any) -> dict[str, Any]:
    """What was written before: the loops as they are in the second of three batches of step 2."""

    def keep(trainer: L.Trainer) -> None:
        trainer.save_checkpoint(root / "middle.ckpt")
        checkpoint = load(root / "middle.ckpt")
        checkpoint["loops"]["fit_loop"] = trainer.fit_loop.state_dict()
        checkpoint.pop("split")
        torch.save(checkpoint, root / "old.ckpt")
        crash(trainer)

    run(root, At("on_train_batch_end", 7, keep), **options)
    return load(root / "old.ckpt")


def test_files_written_in_the_middle_of_a_step_resume_to_the_bit(tmp_path: Path) -> None:
    old = in_the_middle(tmp_path, accumulate_grad_batches=3)
    assert old["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] == 8
    straight = run(tmp_path / "whole", accumulate_grad_batches=3)
    for name in ("old", "middle"):
        root = tmp_path / name
        resumed = run(root, last=str(tmp_path / f"{name}.ckpt"), accumulate_grad_batches=3)
        assert resumed.seen == [(step, samples) for step, samples in straight.seen if step >= 2]
        assert_same_end(tmp_path / "whole", root)


@pytest.mark.parametrize(("size", "accumulation"), [(2, 2), (4, 1), (1, 4)])
@pytest.mark.parametrize(("new_size", "new_accumulation"), [(1, 4), (2, 2), (4, 1)])
@pytest.mark.parametrize("is_old", [False, True])
def test_another_split_of_the_same_samples(
    tmp_path: Path, size: int, accumulation: int, new_size: int, new_accumulation: int, is_old: bool
) -> None:
    straight = run(tmp_path / "whole", size=size, accumulate_grad_batches=accumulation)
    parted = tmp_path / "parted"
    run(parted, steps=3, size=size, accumulate_grad_batches=accumulation)
    last = parted / "c" / "last.ckpt"
    if is_old:
        checkpoint = load(last)
        checkpoint.pop("split")
        torch.save(checkpoint, last)
    resumed = run(parted, size=new_size, accumulate_grad_batches=new_accumulation, last="last")
    assert resumed.seen == [
        (step, [str(i) for i in range(first, first + new_size)])
        for step in range(3, NUM_STEPS)
        for first in range(4 * step, 4 * step + 4, new_size)
    ]
    ours, theirs = (load(root / "c" / "last.ckpt") for root in (parted, tmp_path / "whole"))
    for name, weight in theirs["state_dict"].items():
        assert torch.allclose(ours["state_dict"][name], weight, rtol=0, atol=1e-6)
    progress = ours["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]
    assert progress["ready"] == NUM_STEPS * new_accumulation
    assert straight.trainer.global_step == resumed.trainer.global_step == NUM_STEPS


def test_another_number_of_samples_is_refused(tmp_path: Path) -> None:
    run(tmp_path, steps=2, accumulate_grad_batches=2)
    message = r"4 samples per optimizer step, this config has 6 .* their product is 4"
    with pytest.raises(CheckpointError, match=message):
        run(tmp_path, size=3, accumulate_grad_batches=2, last="last")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"steps": 4}, "last.ckpt is at step 4, and trainer.max_steps 4; raise it to train on."),
        ({"steps": 3}, "last.ckpt is at step 4, beyond trainer.max_steps 3; raise it"),
        ({"max_epochs": 2}, "last.ckpt is at step 4, and its limit of epochs or batches"),
        ({"max_epochs": 1}, "last.ckpt is at step 4, and its limit of epochs or batches"),
        ({"limit_train_batches": 0}, "last.ckpt is at step 4, and its limit of epochs or batches"),
        ({"is_out_of_time": True}, "last.ckpt is at step 4, and a callback stops it there"),
    ],
)
def test_nothing_left_to_train_is_said(
    tmp_path: Path, caplog, options: dict, expected: str
) -> None:
    options, epochs = dict(options), {"limit_train_batches": 2}
    run(tmp_path, steps=4, **epochs)
    assert "Nothing was trained" not in caplog.text
    before = (tmp_path / "c" / "last.ckpt").read_bytes()
    callbacks = [Timer(timedelta(0))] if options.pop("is_out_of_time", False) else []
    done = run(tmp_path, *callbacks, last="last", **(epochs | options))
    assert done.trainer.global_step == 4 and not done.seen
    assert caplog.text.count("Nothing was trained: ") == 1
    assert expected in caplog.text
    assert (tmp_path / "c" / "last.ckpt").read_bytes() == before


def test_the_best_is_not_written_over(tmp_path: Path) -> None:
    """Beside one that keeps the last; where it is alone, the end gets a name of its own."""
    best = {"filename": "best", "monitor": "level", "save_top_k": 1, "save_last": None}
    validated = {"val_check_interval": 2, "limit_val_batches": 1, "check_val_every_n_epoch": None}
    for root, callbacks in (
        (tmp_path / "two", [saver(tmp_path / "two" / "c", None, every_n_epochs=1, **best)]),
        (tmp_path / "one", []),
    ):
        alone = None if callbacks else saver(root / "c", None, every_n_epochs=1, **best)
        done = run(root, *callbacks, steps=5, saving=alone, **validated)
        assert last_checkpoint(done.trainer) == str(root / "c" / "last.ckpt")
        steps = {path.name: load(path)["global_step"] for path in (root / "c").iterdir()}
        assert steps == {"best.ckpt": 2, "last.ckpt": 5}


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"save_last": False}, {"step=3.ckpt": 3, "step=5.ckpt": 5}),
        ({"save_last": None, "save_top_k": 0}, {}),
        ({"save_last": False, "save_top_k": 0}, {}),
    ],
)
def test_the_end_has_a_name_where_nothing_is_called_last(
    tmp_path: Path, options: dict, steps: dict[str, int]
) -> None:
    """What `predict` then takes is what was exported; only who wants no file at all has none."""
    run(tmp_path, steps=5, saving=saver(tmp_path / "c", 3, **options))
    found = {path.name: load(path)["global_step"] for path in (tmp_path / "c").glob("*")}
    assert found == steps


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    twice = [At("on_train_batch_start", 4, interrupt), At("on_train_batch_start", 5, interrupt)]
    done = run(tmp_path, *twice, accumulate_grad_batches=3)
    assert done.code == 1
    assert done.trainer.global_step == 1
    assert not (tmp_path / "c").exists()
