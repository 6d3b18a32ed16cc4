"""What the Trainer's loop of the recipe costs per step, beside a loop written by hand.

    python -m benchmarks.loop --out benchmarks/results/loop.json

A linear layer is trained with everything of ``configs/base.yaml`` around it: callbacks, logger,
schedule, progress bar. Then each part is left out in turn, which tells what it costs. Runs take
turns and are counted in the process's own CPU time, so other jobs on the machine disturb little.
"""

import argparse
import contextlib
import gc
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import lightning.pytorch as L

from benchmarks.report import Figure, command_of, parser, silence_lightning
from benchmarks.small_run import OneLinear, StepClock, recipe_with, seconds_by_hand, small_batch
from lightning_modules.cli import MusicInfuserCLI

RAW, BARE, WHOLE = "a loop by hand", "the Trainer with nothing", "the recipe's Trainer"
LOGGERS = ("loggers", "LearningRateMonitor")
# ms per step: pass for the whole recipe's loop over the one by hand.
GOAL_MS = 2.0
# ms per step by hand on the machine the goal was set on.
GOAL_RAW_MS = 0.21


def recipe(root: Path, settings: argparse.Namespace) -> MusicInfuserCLI:
    """``base.yaml`` around the linear layer; ``instantiate_classes`` makes a new Trainer of it."""
    parts = {
        "model": ("OneLinear", {}),
        "data": ("SameBatches", {"num_steps": settings.steps}),
    }
    changes: dict[str, Any] = {
        key: {"class_path": f"benchmarks.small_run.{name}", "init_args": arguments}
        for key, (name, arguments) in parts.items()
    }
    # Sizes are otherwise those of the data, which has none here.
    size = {"num_frames": 7, "height": 32, "width": 32}
    changes["sample_generation"] = {"every_n_steps": 0, "requests": [], **size}
    return recipe_with(root, changes, max_steps=settings.steps)


def by_hand(settings: argparse.Namespace) -> float:
    """Seconds per step of the same training without a Trainer."""
    module, batch = OneLinear(), small_batch()
    module.is_logging = False
    optimizer = module.configure_optimizers()["optimizer"]
    times = seconds_by_hand(
        lambda: module.training_step(batch, 0)["loss"], optimizer, settings.steps
    )  # fmt: skip
    return mean(times[settings.drop :])


def by_trainer(cli: MusicInfuserCLI, settings: argparse.Namespace, *, without: str) -> float:
    """Seconds per step of the recipe's Trainer with a part left out."""
    cli.instantiate_classes()
    trainer, module = cli.trainer, cli.model
    assert isinstance(module, OneLinear)
    if without == BARE:
        module.is_logging = False
        trainer = L.Trainer(
            max_steps=settings.steps, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", devices=1,
            limit_val_batches=0,
        )  # fmt: skip
    left_out = LOGGERS if without == LOGGERS[0] else (without,)
    if LOGGERS[0] in left_out:
        trainer.loggers = []
    trainer.callbacks = [c for c in trainer.callbacks if type(c).__name__ not in left_out]  # type: ignore[attr-defined]
    clock = StepClock()
    trainer.callbacks.append(clock)  # type: ignore[attr-defined]
    gc.collect()
    # Bars are drawn, into nothing.
    with (
        open(os.devnull, "w") as nothing,
        contextlib.redirect_stdout(nothing),
        contextlib.redirect_stderr(nothing),
    ):
        trainer.fit(module, cli.datamodule)
    return mean(clock.steps()[settings.drop :])


def measure(settings: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    """Every run as often as asked, one after the other."""
    silence_lightning()
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        cli = recipe(Path(folder), settings)
        callbacks: list[L.Callback] = cli.trainer.callbacks  # type: ignore[attr-defined]
        parts = [type(c).__name__ for c in callbacks if _has_a_part_in_steps(c)]
        for _ in range(settings.repeats):
            for name in (RAW, BARE, WHOLE, LOGGERS[0], *parts):
                seconds = (
                    by_hand(settings) if name == RAW else by_trainer(cli, settings, without=name)
                )
                times.setdefault(name, []).append(1e3 * seconds)
    raw, bare, whole = (times[name] for name in (RAW, BARE, WHOLE))
    over = _apart(whole, raw)
    figures = [
        Figure(f"{RAW}: forward, backward, step", median(raw), "ms per step"),
        Figure(f"{BARE}, over it", _apart(bare, raw), "ms per step"),
        Figure(f"{WHOLE}, over it", over, "ms per step", GOAL_MS,
               "limit: the goal; with all parts below"),
        Figure(f"{WHOLE}, over it", over / median(raw), "steps by hand", GOAL_MS / GOAL_RAW_MS,
               "the same whatever the machine's speed"),
        Figure("share of a step of 100 ms", over / 100, "of it", 0.03),
    ]  # fmt: skip
    costs = {name: _apart(whole, times[name]) for name in (LOGGERS[0], *parts)}
    for name in sorted(costs, key=lambda name: -costs[name]):
        what = "logger and LearningRateMonitor" if name == LOGGERS[0] else name
        figures.append(
            Figure(f"of this {what}", costs[name], "ms per step", None, "whole less the rest")
        )
    return figures, {"ms_per_step": times}


def _apart(one: Sequence[float], other: Sequence[float]) -> float:
    """The median difference of runs of the same turn: the machine's speed drifts between turns."""
    return median(a - b for a, b in zip(one, other, strict=True))


def _has_a_part_in_steps(callback: L.Callback) -> bool:
    hooks = [name for name in dir(L.Callback) if "train_batch" in name or "_before_" in name]
    return any(getattr(type(callback), name) is not getattr(L.Callback, name) for name in hooks)


OPTIONS = parser(
    __doc__, steps=300, repeats=3,
    drop={"type": int, "default": 50, "help": "steps before the clock starts"},
)  # fmt: skip
main = command_of("loop", OPTIONS, measure)

if __name__ == "__main__":
    main()
