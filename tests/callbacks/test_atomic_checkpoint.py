import os
import signal
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as L
import pytest
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from callbacks import AdapterEMA, AtomicCheckpoint, SampleGeneration
from callbacks.atomic_checkpoint import last_checkpoint, split_of
from callbacks.checkpoint_files import AtomicCheckpointIO, CheckpointError
from callbacks.sigterm import NOTICE
from tests.small_training import Line, StepRecord, batches, trainer
from tests.test_resume import assert_equal

VALIDATED = {"val_check_interval": 2, "check_val_every_n_epoch": None, "limit_val_batches": 3}


def saver(folder: Path, every_n_steps: int = 100, **options) -> AtomicCheckpoint:
    defaults = {"filename": "{step}", "save_top_k": -1, "save_last": True}
    defaults["enable_version_counter"] = False
    return AtomicCheckpoint(folder, every_n_train_steps=every_n_steps, **(defaults | options))


class Terminate(L.Callback):
    """Sends this process a SIGTERM at the start of a batch."""

    def __init__(self, batch_idx: int, *, in_validation: int | None = None) -> None:
        self.batch_idx, self.in_validation = batch_idx, in_validation

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if batch_idx == self.batch_idx and self.in_validation is None:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, *_: object) -> None:
        if trainer.global_step == self.batch_idx and batch_idx == self.in_validation:
            os.kill(os.getpid(), signal.SIGTERM)


def stop(run: L.Trainer, *arguments, **options) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left:
        run.fit(*arguments, **options)
    assert left.value.code in (None, 0)
    assert signal.getsignal(signal.SIGTERM) is handler


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def test_files_are_written_by_us_unless_the_user_chose(tmp_path: Path) -> None:
    class Chosen(TorchCheckpointIO):
        pass

    for plugins, expected in (([], AtomicCheckpointIO), ([Chosen()], Chosen)):
        run = trainer(tmp_path, saver(tmp_path / "c", 1), num_steps=1, plugins=plugins)
        run.fit(Line(), batches(1))
        assert type(run.strategy.checkpoint_io) is expected
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["last.ckpt", "step=1.ckpt"]


def test_unfinished_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    unfinished = tmp_path / "c" / f".{'0a' * 16}.ckpt"
    unfinished.parent.mkdir()
    unfinished.touch()
    trainer(tmp_path, saver(tmp_path / "c", 1), num_steps=1).fit(Line(), batches(1))
    assert not unfinished.exists()


def test_last_falls_back_to_the_newest_that_loads(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    trainer(tmp_path, saver(folder, 1), num_steps=4).fit(Line(), batches(4))
    for name in ("last.ckpt", "step=4.ckpt"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-100])
    run = trainer(tmp_path, saver(folder, 1), num_steps=4)
    with pytest.warns(UserWarning, match=r"passed over .*last\.ckpt .*; taking .*step=3\.ckpt"):
        run.fit(Line(), batches(4), ckpt_path="last")
    assert run.ckpt_path == str(folder / "step=3.ckpt")
    assert load(folder / "last.ckpt")["global_step"] == 4
    for path in folder.iterdir():
        path.write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"only damaged ones are left: .*step=1\.ckpt"):
        trainer(tmp_path, saver(folder, 1), num_steps=4).fit(Line(), batches(4), ckpt_path="last")


@pytest.mark.parametrize("save_last", [True, False, "link"])
def test_sigterm_finishes_the_optimizer_step_and_saves_it(
    tmp_path: Path, save_last: bool | str
) -> None:
    folder, record = tmp_path / "c", StepRecord()
    run = trainer(
        tmp_path, record, Terminate(4), saver(folder, save_last=save_last),
        num_steps=9, accumulate_grad_batches=3,
    )  # fmt: skip
    stop(run, Line(), batches(27))
    # The signal came in the middle of the second step's three batches.
    assert run.global_step == 2
    saved = load(folder / ("step=2.ckpt" if save_last is False else "last.ckpt"))
    assert saved["global_step"] == 2
    assert_equal(saved["state_dict"]["layer.weight"], record.weights[2])
    states = saved["optimizer_states"][0]["state"]
    assert_equal([states[i] for i in range(2)], record.states[2])
    again = trainer(tmp_path, saver(folder), num_steps=3, accumulate_grad_batches=3)
    again.fit(Line(), batches(27), ckpt_path=str(next(folder.glob("*.ckpt"))))
    assert again.global_step == 3


def test_a_step_saved_anyway_is_saved_once(tmp_path: Path) -> None:
    stop(trainer(tmp_path, Terminate(1), saver(tmp_path / "c", 2), num_steps=9), Line(), batches(9))
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["last.ckpt", "step=2.ckpt"]


@pytest.mark.parametrize("in_validation", [0, 2])
def test_sigterm_in_validation_saves_the_step_before(tmp_path: Path, in_validation: int) -> None:
    folders = tmp_path / "validation", tmp_path / "training"
    module, record = Line(), StepRecord()
    ema = AdapterEMA(0.9)
    run = trainer(
        tmp_path, record, ema, Terminate(2, in_validation=in_validation), saver(folders[0]),
        num_steps=6, **VALIDATED,
    )  # fmt: skip
    stop(run, module, batches(6), batches(3))
    assert len(module.validated) == in_validation + 1
    stop(
        trainer(
            tmp_path, AdapterEMA(0.9), Terminate(1), saver(folders[1]), num_steps=6, **VALIDATED
        ),
        Line(), batches(6), batches(3),
    )  # fmt: skip
    in_validation_, in_training = (load(folder / "last.ckpt") for folder in folders)
    assert in_training["global_step"] == 2
    for key in ("state_dict", "optimizer_states", "loops", "global_step"):
        assert_equal(in_validation_[key], in_training[key])
    assert_equal(in_validation_["state_dict"]["layer.weight"], record.weights[2])


def test_sigterm_before_the_first_batch(tmp_path: Path) -> None:
    class Early(L.Callback):
        def on_train_start(self, trainer, pl_module) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    run = trainer(tmp_path, Early(), saver(tmp_path / "c"), num_steps=4, accumulate_grad_batches=2)
    stop(run, Line(), batches(8))
    assert load(tmp_path / "c" / "last.ckpt")["global_step"] == 1


def test_last_checkpoint(tmp_path: Path) -> None:
    run = trainer(tmp_path, saver(tmp_path / "c", 2), num_steps=3)
    assert last_checkpoint(run) is None
    run.fit(Line(), batches(3))
    assert last_checkpoint(run) == str(tmp_path / "c" / "last.ckpt")
    again = trainer(tmp_path, saver(tmp_path / "c", 9, save_last=False), num_steps=3)
    again.fit(Line(), batches(3), ckpt_path=str(tmp_path / "c" / "step=2.ckpt"))
    assert last_checkpoint(again) == str(tmp_path / "c" / "step=3.ckpt")


def test_a_sample_under_way_is_given_up(tmp_path: Path, monkeypatch) -> None:
    seen = []

    class Sampled(Line):
        adapted = encoders = sampling = None

    def generate(*arguments, progress, **options):
        for step in progress(range(9)):
            seen.append(step)
            NOTICE.received = step == 3

    run = trainer(tmp_path, num_steps=1)
    monkeypatch.setattr(NOTICE, "received", False)
    monkeypatch.setattr("callbacks.sample_generation.generate", generate)
    sampling = SampleGeneration()
    sampling.requests = [None, None]
    sampling.generate(run, Sampled(), 5)
    assert seen == [0, 1, 2, 3]
    assert not (tmp_path / "samples").exists()


def test_samples_of_a_step_are_those_of_all_processes() -> None:
    process = SimpleNamespace(accumulate_grad_batches=3, world_size=4)
    assert split_of(process) == {"accumulate_grad_batches": 3}
    process.datamodule = SimpleNamespace(batch_size=2)
    assert split_of(process) == {"accumulate_grad_batches": 3, "samples_per_step": 24}
