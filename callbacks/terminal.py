"""What a run shows in a terminal: optimizer steps, and a table of the model's parts."""

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback, ModelSummary, ProgressBar, TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_summary.model_summary import _format_summary_table

from lightning_modules.logged_steps import is_logged

# Advertisements, and a line on the summary that is chosen here.
_NO_USE = ("Tip: For seamless cloud", "Trainer already configured with model summary")
# Warnings of what is meant so: few workers on small machines, frozen parts in eval mode, nothing
# left to encode, batches that follow from the step (so that their loader has no state to keep), a
# first start with `ckpt_path: last`, a folder of checkpoints that a run goes on in, options that
# train.py hands on; and an API of torch that Lightning still calls.
_WARNINGS = (
    ".*does not have many workers.*",
    ".*dataloader is not resumable.*",
    ".*in eval mode at the start of training.*",
    ".*length of `DataLoader` across ranks is zero.*",
    ".*no last checkpoint available.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*LightningCLI's args parameter is intended.*",
    r".*isinstance\(treespec, LeafSpec\).*",
)
_ROOT = Path(__file__).resolve().parents[1]
_others: list[Callable[..., str]] = []


class StepProgressBar(TQDMProgressBar):
    """Counts optimizer steps towards ``trainer.max_steps``; what it shows of a metric is as logged.

    Metrics are read at the logging interval only: each time waits for the device. A training
    without ``max_steps`` is counted in batches, as Lightning does.
    """

    def on_train_epoch_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Start where the run is."""
        if trainer.max_steps <= 0:
            super().on_train_epoch_start(trainer, *args)
            return
        bar = self.train_progress_bar
        bar.reset(trainer.max_steps)
        bar.initial = bar.n = trainer.global_step
        bar.set_description("Steps")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        """Move on after an optimizer step."""
        if trainer.max_steps <= 0:
            super().on_train_batch_end(trainer, pl_module, *args)
            return
        bar, step = self.train_progress_bar, trainer.global_step
        if step > bar.n and self._should_update(step, trainer.max_steps):
            bar.update(step - bar.n)
        if is_logged(trainer):
            bar.set_postfix(self.get_metrics(trainer, pl_module))


class PartsSummary(ModelSummary):
    """Lightning's table of a model's parts without operations, which it counts only of some."""

    @staticmethod
    def summarize(  # type: ignore[override]
        summary_data: list[tuple[str, list[str]]], *totals: Any, total_flops: int
    ) -> None:
        """Print it."""
        columns = [column for column in summary_data if column[0] != "FLOPs"]
        table = _format_summary_table(*totals, total_flops, *columns)  # type: ignore[arg-type]
        lines = [line for line in table.splitlines() if not line.lower().endswith("total flops")]
        rank_zero_info("\n" + "\n".join(lines))


def shown_by_default(options: dict[str, Any]) -> Iterator[Callback]:
    """What a trainer shows, where its options name nothing else and do not switch it off.

    Args:
        options: Of the trainer; ``callbacks`` are built.
    """
    own = options.get("callbacks") or []
    own = own if isinstance(own, list) else [own]
    for name, kind, shown in (
        ("enable_progress_bar", ProgressBar, StepProgressBar),
        ("enable_model_summary", ModelSummary, PartsSummary),
    ):
        is_on = options.get(name) is not False and not options.get("barebones")
        if is_on and not any(isinstance(callback, kind) for callback in own):
            yield shown()


def quiet_lightning() -> None:
    """Leave out warnings that do not apply here; one line for each warning of this program."""
    for known in _WARNINGS:
        warnings.filterwarnings("ignore", message=known)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_of_use)
    if warnings.formatwarning is not _format_warning:
        _others.append(warnings.formatwarning)
        warnings.formatwarning = _format_warning  # type: ignore[assignment]


def _is_of_use(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    return not any(part in text for part in _NO_USE)


def _format_warning(
    message: Any, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    path = Path(filename).resolve()
    is_own = path.is_relative_to(_ROOT) and "site-packages" not in path.parts
    if is_own and category is UserWarning:
        return f"{message}\n"
    return _others[-1](message, category, filename, lineno, line)
