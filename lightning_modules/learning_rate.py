"""The learning rate as a function of the step."""

import math
from typing import Literal


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
