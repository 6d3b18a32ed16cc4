"""The optimizer, and the learning rate as a function of the step."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn

from lightning_modules.settings import OptimizerSpec


def learning_rate_factor(step: int, spec: OptimizerSpec, num_steps: int) -> float:
    """Factor on the peak rate: linear warm-up from 0, then a cosine to 0 or a level line.

    Args:
        step: Optimizer steps done; step 0 has rate 0 if there is a warm-up (authors' code).
        spec: Warm-up and what follows it.
        num_steps: Steps of the whole run.
    """
    if step < spec.warmup_steps:
        return step / spec.warmup_steps
    if spec.schedule == "constant":
        return 1.0
    done = (step - spec.warmup_steps) / max(num_steps - spec.warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def follow_schedule(
    checkpoint: dict[str, Any], spec: OptimizerSpec, num_steps: int
) -> tuple[float, float] | None:
    """Give Lightning's checkpoint, in place, the learning rate of the run that goes on from it.

    A schedule that ends at another step has another rate at the checkpoint's; torch would make the
    first step with the stored one and then leap.

    Returns:
        The stored rate and the new one of the first group; None where they agree.
    """
    changed = None
    for state, optimizer in zip(
        checkpoint["lr_schedulers"], checkpoint["optimizer_states"], strict=True
    ):
        factor = learning_rate_factor(state["last_epoch"], spec, num_steps)
        before, rates = state["_last_lr"], [rate * factor for rate in state["base_lrs"]]
        if all(math.isclose(a, b, abs_tol=1e-30) for a, b in zip(before, rates, strict=True)):
            continue
        changed = changed or (before[0], rates[0])
        state["_last_lr"] = rates
        for group, rate in zip(optimizer["param_groups"], rates, strict=True):
            group["lr"] = rate
    return changed


def build_optimizer(
    parameters: Iterable[nn.Parameter], spec: OptimizerSpec, num_steps: int
) -> OptimizerLRSchedulerConfig:
    """AdamW over what has a gradient, with its schedule for a run of so many optimizer steps."""
    optimizer = torch.optim.AdamW(
        [p for p in parameters if p.requires_grad],
        lr=spec.lr,
        betas=spec.betas,
        eps=spec.eps,
        weight_decay=spec.weight_decay,
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, spec, num_steps)
    )
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"},
    }
