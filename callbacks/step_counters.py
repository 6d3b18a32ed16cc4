"""The counters of Lightning's loops in a checkpoint, as they are right after an optimizer step.

A checkpoint holds the weights after a whole number of optimizer steps, whenever it is written. Its
counters of batches may be further on: in the middle of accumulated gradients, of a validation, or
at the end of a run. Resumed from there, the batches would no longer fit the steps. Batches are
chosen by the step (`datamodules.mixing`), so the counters can be set to any split of its samples.
"""

from typing import Any

import lightning.pytorch as L

from callbacks.checkpoint_files import CheckpointError

SPLIT_KEY = "split"


def set_after_step(fit_loop: dict[str, Any], accumulation: int, *, is_same_split: bool) -> None:
    """Change the state of a fit loop into that of `on_train_batch_end` after its last step.

    Args:
        fit_loop: `trainer.fit_loop.state_dict()`, or what a checkpoint holds of it.
        accumulation: Batches per optimizer step from now on.
        is_same_split: Whether the batches counted so far were those of the same accumulation.
    """
    optimizer = fit_loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    steps, zeroed = optimizer["step"], optimizer["zero_grad"]
    num_steps = steps["total"]["completed"]
    if not num_steps:
        return
    batches = fit_loop["epoch_loop.batch_progress"]
    total, current = batches["total"], batches["current"]
    in_epoch = steps["current"]["completed"] * accumulation
    if is_same_split:
        in_epoch = min(in_epoch, current["ready"])  # the last step of an epoch may have fewer
        in_run = total["ready"] - current["ready"] + in_epoch
    else:
        in_run = num_steps * accumulation
    # What comes after the step is not done: the end of the batch, and a validation.
    for progress, number in ((total, in_run), (current, in_epoch)):
        progress |= {"ready": number, "started": number, "processed": number}
        progress["completed"] = number - 1
    for since, progress in zeroed.items():
        progress |= dict.fromkeys(progress, steps[since]["completed"])
    is_over = batches["is_last_batch"]
    for progress in fit_loop["epoch_progress"].values():
        progress["ready"] = progress["started"]
        progress["processed"] = progress["completed"] = progress["started"] - (not is_over)
    validation = fit_loop["epoch_loop.val_loop.batch_progress"]
    for progress in (validation["total"], validation["current"]):
        progress |= dict.fromkeys(progress, 0)
    validation["is_last_batch"] = is_over  # else Lightning counts an epoch that is over twice
    fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] = num_steps - 1


def split_of(trainer: L.Trainer) -> dict[str, int]:
    """How the samples of an optimizer step are shared out.

    Returns:
        ``accumulate_grad_batches``; with a data module that has a batch size also
        ``samples_per_step``, over accumulation and processes.
    """
    accumulation = trainer.accumulate_grad_batches
    split = {"accumulate_grad_batches": accumulation}
    batch_size = getattr(getattr(trainer, "datamodule", None), "batch_size", None)
    if batch_size is not None:
        split["samples_per_step"] = batch_size * accumulation * trainer.world_size
    return split


def check_samples(stored: dict[str, int], num_samples: int | None) -> None:
    """Refuse to go on with more or fewer samples per optimizer step.

    Which samples a step has follows from its number and theirs, so some would be left out or come
    twice.

    Args:
        stored: What a checkpoint says; one of before this was noted says nothing.
        num_samples: Of an optimizer step of this run; None where it is not known.

    Raises:
        CheckpointError: They differ.
    """
    theirs = stored.get("samples_per_step")
    if theirs is not None and num_samples is not None and theirs != num_samples:
        raise CheckpointError(
            f"the checkpoint was trained with {theirs} samples per optimizer step, this config has "
            f"{num_samples} (data.batch_size x trainer.accumulate_grad_batches x processes); "
            f"choose them so that their product is {theirs}, or start another run in another "
            "trainer.default_root_dir."
        )
