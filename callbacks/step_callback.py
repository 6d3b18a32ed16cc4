"""StepCallback: hooks after an optimizer step, which Lightning has for batches only."""

from typing import Any

import lightning.pytorch as L

from lightning_modules.logged_steps import ends_step, is_logged


class StepCallback(L.Callback):
    """Calls `on_step_end` after each optimizer step and `on_log_step` at the logging interval.

    A step may have several batches. Only at a logged step may a callback wait for the device.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Call the hooks."""
        if ends_step(trainer):
            self.on_step_end(trainer, pl_module, trainer.global_step)
        if is_logged(trainer):
            self.on_log_step(trainer, pl_module, outputs)

    def on_step_end(self, trainer: L.Trainer, pl_module: L.LightningModule, step: int) -> None:
        """Act after an optimizer step; ``step`` counts it."""

    def on_log_step(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any) -> None:
        """Act after an optimizer step that is logged; ``outputs`` are those of its last batch."""
