"""The optimizer, and the learning rate as a function of the step."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn

from lightning_modules.settings import OptimizerSpec


def learning_rate_factor(
    step: int, *, warmup_steps: int, num_steps: int, schedule: Literal["cosine", "constant"]
) -> float:
    """Factor on the peak rate: linear warm-up from 0, then a cosine to 0 or a level line.

    Args:
        step: Optimizer steps done; step 0 has rate 0 if there is a warm-up (authors' code).
        warmup_steps: Steps until the peak.
        num_steps: Steps of the whole run.
        schedule: What follows the warm-up.
    """
    if step < warmup_steps:
        return step / warmup_steps
    if schedule == "constant":
        return 1.0
    done = (step - warmup_steps) / max(num_steps - warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def build_optimizer(
    parameters: Iterable[nn.Parameter], spec: OptimizerSpec, num_steps: int
) -> OptimizerLRSchedulerConfig:
    """AdamW with its schedule, counted in optimizer steps.

    Args:
        parameters: Those without gradient are left out.
        spec: Peak rate, warm-up, decay.
        num_steps: Steps of the whole run.
    """
    optimizer = torch.optim.AdamW(
        [p for p in parameters if p.requires_grad],
        lr=spec.lr,
        betas=spec.betas,
        eps=spec.eps,
        weight_decay=spec.weight_decay,
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: learning_rate_factor(
            step,
            warmup_steps=spec.warmup_steps,
            num_steps=num_steps,
            schedule=spec.schedule,
        ),
    )
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"},
    }
