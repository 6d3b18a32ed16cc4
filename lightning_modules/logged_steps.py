"""Which steps go to the loggers: a value logged at every step costs about a millisecond of host."""

import lightning.pytorch as L


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
