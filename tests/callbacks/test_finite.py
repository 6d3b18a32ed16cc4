from pathlib import Path

import pytest
import torch

from callbacks import AtomicCheckpoint, FiniteTraining
from callbacks.finite import NonFiniteError
from tests.small_training import Line, StepRecord, batches, trainer
from tests.test_resume import assert_equal


def checkpoints(folder: Path) -> AtomicCheckpoint:
    return AtomicCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)


@pytest.mark.parametrize("kind", ["bad_loss", "bad_gradient"])
def test_stop_names_step_clip_and_last_good_checkpoint(tmp_path: Path, kind: str) -> None:
    run = trainer(tmp_path, FiniteTraining(), checkpoints(tmp_path / "c"), num_steps=6)
    expected = r"not finite at step 3 \(clips: clip 3\); the last good checkpoint is .*step=3\.ckpt"
    with pytest.raises(NonFiniteError, match=expected):
        run.fit(Line(), batches(6, **{kind: (3, 4)}))
    saved = sorted((tmp_path / "c").iterdir())
    assert [path.name for path in saved] == ["step=1.ckpt", "step=2.ckpt", "step=3.ckpt"]
    for path in saved:
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(torch.isfinite(tensor).all() for tensor in state.values())


@pytest.mark.parametrize(("interval", "num_steps"), [(2, 4), (5, 5), (100, 8)])
def test_stop_asks_at_its_interval_and_at_the_end(
    tmp_path: Path, interval: int, num_steps: int
) -> None:
    record = StepRecord()
    run = trainer(tmp_path, record, FiniteTraining(check_every_n_steps=interval), num_steps=8)
    with pytest.raises(NonFiniteError, match=r"step 3 \(clips: clip 3\); there is no checkpoint"):
        run.fit(Line(), batches(8, bad_loss=(3,)))
    assert len(record.weights) == num_steps + 1


def test_nothing_bad_is_validated(tmp_path: Path) -> None:
    module = Line()
    run = trainer(
        tmp_path, FiniteTraining(), num_steps=8,
        val_check_interval=2, check_val_every_n_epoch=None, limit_val_batches=1,
    )  # fmt: skip
    with pytest.raises(NonFiniteError, match="step 2"):
        run.fit(module, batches(8, bad_loss=(2,)), batches(1))
    assert len(module.validated) == 1


def test_skipped_steps_leave_weights_and_optimizer_untouched(tmp_path: Path) -> None:
    record, guard = StepRecord(), FiniteTraining("skip")
    run = trainer(tmp_path, record, guard, num_steps=8, log_every_n_steps=4)
    with pytest.warns(UserWarning, match=r"step 5 \(clips: clip 5\); step skipped \(3 so far\)"):
        run.fit(Line(), batches(8, bad_loss=(0, 2), bad_gradient=(5,)))
    for step in range(8):
        is_bad = step in (0, 2, 5)
        assert torch.equal(record.weights[step], record.weights[step + 1]) == is_bad
        if is_bad:
            assert_equal(record.states[step], record.states[step + 1])
    assert [int(state["step"]) for state in record.states[-1]] == [5, 5]
    assert run.global_step == 8
    assert run.callback_metrics["train/skipped_steps"] == guard.num_skipped == 3


@pytest.mark.parametrize("on_bad", ["stop", "skip"])
def test_without_bad_steps_a_run_is_what_it_would_be(tmp_path: Path, on_bad: str) -> None:
    records = StepRecord(), StepRecord()
    for record, guards in zip(records, ([], [FiniteTraining(on_bad)]), strict=True):
        trainer(tmp_path, record, *guards, num_steps=5).fit(Line(), batches(5))
    assert_equal(records[0].weights, records[1].weights)
    assert_equal(records[0].states, records[1].states)


class Steep(Line):
    def training_step(self, batch, batch_idx):
        return 1e25 * super().training_step(batch, batch_idx)


@pytest.mark.parametrize("on_bad", ["stop", "skip"])
def test_gradients_whose_squares_overflow_are_numbers(tmp_path: Path, on_bad: str) -> None:
    guard = FiniteTraining(on_bad, max_skipped=0)
    run = trainer(tmp_path, guard, num_steps=2)
    run.fit(Steep(), batches(2))
    assert run.global_step == 2 and guard.num_skipped == 0


def test_accumulated_batches_are_one_step(tmp_path: Path) -> None:
    record = StepRecord()
    run = trainer(tmp_path, record, FiniteTraining("skip"), num_steps=4, accumulate_grad_batches=2)
    with pytest.warns(UserWarning, match=r"at step 1 \(clips: clip 2, clip 3\); step skipped"):
        run.fit(Line(), batches(8, bad_loss=(2,)))
    same = [torch.equal(*pair) for pair in zip(record.weights, record.weights[1:], strict=False)]
    assert same == [False, True, False, False]


def test_too_many_skipped_steps_stop(tmp_path: Path) -> None:
    guard = FiniteTraining("skip", max_skipped=2)
    guard.load_state_dict({"num_skipped": 1})  # of the part of the run before it was resumed
    record = StepRecord()
    with pytest.raises(NonFiniteError, match="3 steps were skipped, more than .*max_skipped: 2"):
        trainer(tmp_path, record, guard, num_steps=8).fit(Line(), batches(8, bad_loss=(2, 4)))
    assert len(record.weights) == 5
    assert guard.state_dict() == {"num_skipped": 3}


class OneRankBad(Line):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * float("nan") if self.global_rank == 1 and batch_idx == 2 else loss


@pytest.mark.slow
@pytest.mark.parametrize("on_bad", ["stop", "skip"])
def test_all_processes_agree(tmp_path: Path, on_bad: str) -> None:
    run = trainer(
        tmp_path, FiniteTraining(on_bad), checkpoints(tmp_path / "c"), num_steps=5,
        devices=2, strategy="ddp_spawn", use_distributed_sampler=False,
    )  # fmt: skip
    if on_bad == "stop":
        with pytest.raises(Exception, match=r"step 2 \(clips: clip 2\)"):
            run.fit(OneRankBad(), batches(5))
    else:
        run.fit(OneRankBad(), batches(5))
    saved = {p.stem: torch.load(p, weights_only=True) for p in (tmp_path / "c").iterdir()}
    assert set(saved) == {f"step={n}" for n in range(1, 3 if on_bad == "stop" else 6)}
    if on_bad == "skip":
        assert_equal(saved["step=2"]["state_dict"], saved["step=3"]["state_dict"])
        assert saved["step=5"]["callbacks"]["FiniteTraining"] == {"num_skipped": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_skipped": -1}, "max_skipped is -1; it must be at least 0"),
        ({"check_every_n_steps": 0}, "check_every_n_steps is 0; it must be at least 1"),
        ({"on_bad": "ignore"}, "on_bad must be 'stop' or 'skip', not 'ignore'"),
    ],
)
def test_bad_settings(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FiniteTraining(**options)
