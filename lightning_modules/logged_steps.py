"""Which steps go to the loggers, and how: `LightningModule.log` takes 0.2 ms for each value."""

from collections.abc import Mapping

import lightning.pytorch as L
import torch
from torch import Tensor


def ends_step(trainer: L.Trainer) -> bool:
    """Whether the current batch is the last of its optimizer step.

    The last step of an epoch may have fewer batches than the others.
    """
    done = trainer.fit_loop.batch_idx + 1
    is_full = done % trainer.accumulate_grad_batches == 0
    return is_full or done >= trainer.num_training_batches or trainer.is_last_batch


def is_logged(trainer: L.Trainer) -> bool:
    """Whether the current batch ended an optimizer step at the logging interval.

    Args:
        trainer: In `on_train_batch_end`, where its step counts the batch's.
    """
    interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return interval > 0 and trainer.global_step % interval == 0 and ends_step(trainer)


def is_logged_step(module: L.LightningModule) -> bool:
    """Whether the optimizer step that a batch is part of will be the last of a logging interval.

    Args:
        module: In its `training_step`, where the trainer's step is still the one before. Without a
            trainer nothing is logged.
    """
    trainer = module._trainer
    if trainer is None:
        return False
    interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return interval > 0 and (trainer.global_step + 1) % interval == 0


def log_numbers(trainer: L.Trainer, numbers: Mapping[str, float]) -> None:
    """Log numbers beside the values of the current step, as Lightning's LearningRateMonitor does.

    A number takes a tenth of the time that `LightningModule.log` takes. Those of the first process
    go to the loggers.

    Args:
        trainer: In `on_train_batch_end` of a logged step.
        numbers: By name; also found in ``trainer.callback_metrics``, as tensors on the CPU.
    """
    found = {name: torch.tensor(float(number)) for name, number in numbers.items()}
    trainer.callback_metrics.update(found)
    for logger in trainer.loggers:
        logger.log_metrics(dict(numbers), trainer.fit_loop.epoch_loop._batches_that_stepped)


class StepMeans:
    """Logs values of `training_step` as means over all batches and processes of an optimizer step.

    Between logged steps nothing is kept and no process waits for another.
    """

    def __init__(self) -> None:
        self._step = -1
        self._noted: list[Tensor] = []

    def log(
        self, module: L.LightningModule, values: Mapping[str, Tensor], *, prog_bar: bool = False
    ) -> None:
        """Note a batch's values; log their means with the last batch of a logged step.

        Args:
            module: In its `training_step`. Without a trainer its `log` gets the values as they are.
            values: Scalars by name, the same names in every batch.
            prog_bar: Whether the progress bar shows them.
        """
        if module._trainer is None:
            module.log_dict(dict(values))
        if not is_logged_step(module):
            return
        trainer = module.trainer
        if trainer.global_step != self._step:
            self._step, self._noted = trainer.global_step, []
        self._noted.append(torch.stack([value.detach() for value in values.values()]))
        if not ends_step(trainer):
            return
        means = trainer.strategy.reduce(torch.stack(self._noted).mean(dim=0), reduce_op="mean")
        self._noted = []
        module.log_dict(dict(zip(values, means.unbind(), strict=True)), prog_bar=prog_bar)
