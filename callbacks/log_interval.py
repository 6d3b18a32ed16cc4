"""When values go to the loggers: only then may a callback wait for the device."""

import lightning.pytorch as L


def is_logged(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether a batch ended an optimizer step at the logging interval.

    Args:
        trainer: In `on_train_batch_end`, where its step counts the batch's.
        batch_idx: The batch's.
    """
    interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    has_stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
    return interval > 0 and has_stepped and trainer.global_step % interval == 0
