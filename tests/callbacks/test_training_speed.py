import importlib
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as L
import pytest

from callbacks import monitors

CALLBACKS = (
    "[{class_path: callbacks.TrainingSpeed},"
    "{class_path: tests.callbacks.test_training_speed.Slow, init_args: {"
)


clock = SimpleNamespace(seconds=0.0)
"""Time that passes where a test says so, and not with the load of the machine."""


@pytest.fixture(autouse=True)
def own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    # The module that configs name is another one than that which pytest runs.
    named = importlib.import_module("tests.callbacks.test_training_speed").clock
    named.seconds = 0.0
    monkeypatch.setattr(monitors, "time", SimpleNamespace(perf_counter=lambda: named.seconds))


class Slow(L.Callback):
    """Takes time where it is told to."""

    def __init__(self, step_seconds: float = 0.0, validation_seconds: float = 0.0) -> None:
        self.step_seconds = step_seconds
        self.validation_seconds = validation_seconds

    def on_before_optimizer_step(self, *arguments) -> None:
        clock.seconds += self.step_seconds

    def on_validation_start(self, *arguments) -> None:
        clock.seconds += self.validation_seconds


@pytest.mark.parametrize("accumulation", [1, 2])
def test_samples_of_all_batches_of_a_step_are_counted(
    run_cli, small_cache: Path, tmp_path: Path, scalars, accumulation: int
) -> None:
    run_cli(
        "fit",
        f"--trainer.callbacks={CALLBACKS}step_seconds: 0.2}}}}]",
        "--trainer.max_steps=6",
        "--trainer.log_every_n_steps=2",
        f"--trainer.accumulate_grad_batches={accumulation}",
        "--data.init_args.batch_size=3",
        cache=small_cache,
    )
    seconds = scalars(tmp_path, "train/seconds_per_step")
    speed = scalars(tmp_path, "train/samples_per_second")
    assert len(seconds) == len(speed) == 3
    assert list(seconds.values()) == pytest.approx([0.2] * 3)
    for step in seconds:
        assert seconds[step] * speed[step] == pytest.approx(3 * accumulation, rel=1e-4)


def test_validation_is_left_out(run_cli, small_cache: Path, tmp_path: Path, scalars) -> None:
    run_cli(
        "fit",
        f"--trainer.callbacks={CALLBACKS}step_seconds: 0.2, validation_seconds: 1.6}}}}]",
        "--trainer.max_steps=2",
        "--trainer.log_every_n_steps=2",
        "--trainer.limit_val_batches=1",
        "--trainer.val_check_interval=1",
        cache=small_cache,
    )
    seconds = scalars(tmp_path, "train/seconds_per_step")
    assert len(seconds) == 1
    assert list(seconds.values()) == pytest.approx([0.2])
