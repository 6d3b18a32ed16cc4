"""What the terminal shows of a run, and what it is spared."""

import logging
import warnings
from pathlib import Path

import lightning.pytorch as L
import pytest
from lightning.pytorch.callbacks import ModelSummary, TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_info

from callbacks.terminal import PartsSummary, StepProgressBar, quiet_lightning, shown_by_default
from tests.small_training import Line, batches, trainer


class Watched(StepProgressBar):
    """Notes what is shown after each batch, and how often metrics are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple[int, int]] = []
        self.asked = 0

    def on_train_batch_end(self, *args) -> None:
        super().on_train_batch_end(*args)
        self.shown.append((self.train_progress_bar.n, self.train_progress_bar.total))

    def get_metrics(self, *args) -> dict:
        self.asked += 1
        return super().get_metrics(*args)


@pytest.fixture
def said(caplog):
    """What Lightning says, which it keeps from the root logger."""
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    log.addHandler(caplog.handler)
    yield caplog
    log.removeHandler(caplog.handler)


def run(root: Path, bar: L.Callback, *, num: int, start: str | None = None, **options) -> L.Trainer:
    steps = options.pop("num_steps", num)
    done = trainer(root, bar, num_steps=steps, **{"enable_progress_bar": True} | options)
    done.fit(Line(), batches(num), ckpt_path=start)
    return done


def test_the_bar_counts_optimizer_steps_towards_the_last(tmp_path: Path, capsys) -> None:
    bar = Watched()
    done = run(
        tmp_path, bar, num=8, num_steps=4, accumulate_grad_batches=2, max_epochs=-1,
        log_every_n_steps=2,
    )  # fmt: skip
    assert bar.shown == [(n // 2, 4) for n in range(1, 9)]
    # At the two logged steps and at the end: each time waits for the device.
    assert bar.asked == 3
    out = capsys.readouterr().out
    assert "Steps: 100%" in out and "4/4" in out and "Epoch" not in out
    done.save_checkpoint(tmp_path / "four.ckpt")
    resumed = Watched()
    run(tmp_path, resumed, num=6, start=str(tmp_path / "four.ckpt"), max_epochs=-1)
    assert resumed.shown == [(5, 6), (6, 6)]


def test_without_max_steps_the_bar_is_lightnings(tmp_path: Path, capsys) -> None:
    bar = Watched()
    run(tmp_path, bar, num=3, num_steps=-1, max_epochs=1)
    assert bar.shown == [(1, 3), (2, 3), (3, 3)]
    assert "Epoch 0" in capsys.readouterr().out


def test_the_summary_counts_no_operations(tmp_path: Path, said) -> None:
    options = {"enable_progress_bar": False, "enable_model_summary": True}
    run(tmp_path, PartsSummary(), num=1, **options)
    assert "Trainable params" in said.text and "frozen" in said.text
    assert "flop" not in said.text.lower()


def test_what_is_named_or_switched_off_is_left_alone() -> None:
    def kinds(**options) -> list[type]:
        return [type(callback) for callback in shown_by_default(options)]

    assert kinds() == kinds(enable_progress_bar=True) == [StepProgressBar, PartsSummary]
    assert kinds(enable_progress_bar=False) == [PartsSummary]
    assert kinds(callbacks=TQDMProgressBar(), enable_model_summary=False) == []
    assert kinds(callbacks=[ModelSummary()]) == [StepProgressBar]
    assert kinds(barebones=True) == []


def test_no_advertisement_and_one_line_for_a_warning(tmp_path: Path, said) -> None:
    quiet_lightning()
    quiet_lightning()
    rank_zero_info("what is of use")
    trainer(tmp_path, num_steps=1, logger=True, enable_checkpointing=True).fit(Line(), batches(1))
    assert "what is of use" in said.text
    assert "Tip:" not in said.text and "litlogger" not in said.text
    ours = str(Path(__file__).parents[2] / "callbacks" / "ema.py")
    assert warnings.formatwarning("said once", UserWarning, ours, 3) == "said once\n"
    other = warnings.formatwarning("said once", UserWarning, "/lib/other.py", 3)
    assert other.startswith("/lib/other.py:3: UserWarning: said once")
