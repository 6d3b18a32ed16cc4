"""WarmUp: the paper's learning rate as a function of the step."""

import math
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from musicinfuser.setting_checks import check_choice, check_number

_OWN = ("warmup_steps", "decay", "num_steps")


class WarmUp(LambdaLR):
    """A linear warm-up from 0, then a cosine to 0 at the run's last step, or a level line.

    The cosine needs to know where the run ends: set ``num_steps`` before the first step.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int,
        decay: Literal["cosine", "constant"] = "cosine",
    ) -> None:
        """Choose the curve.

        Args:
            optimizer: Whose rate follows it; the rate it was made with is the peak.
            warmup_steps: Optimizer steps from 0 to the peak (authors' code: 200).
            decay: After the warm-up: ``cosine`` (authors' code), or ``constant`` (the paper names a
                single rate).
        """
        check_number("schedule.warmup_steps", warmup_steps, at_least=0)
        check_choice("schedule.decay", decay, ("cosine", "constant"))
        self.warmup_steps, self.decay = warmup_steps, decay
        self.num_steps: int | None = None
        """Optimizer steps of the whole run."""
        super().__init__(optimizer, lambda step: self.factor(step))

    def factor(self, step: int) -> float:
        """Times the peak rate; step 0 has rate 0 if there is a warm-up (authors' code)."""
        if step < self.warmup_steps:
            return step / self.warmup_steps
        if self.decay == "constant" or step == self.warmup_steps:
            return 1.0
        assert self.num_steps is not None
        done = (step - self.warmup_steps) / max(self.num_steps - self.warmup_steps, 1)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    def state_dict(self) -> dict[str, Any]:
        """Where the curve is; its form is the config's."""
        return {key: value for key, value in super().state_dict().items() if key not in _OWN}


def follow_schedule(checkpoint: dict[str, Any], schedule: WarmUp) -> tuple[float, float] | None:
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
        factor = schedule.factor(state["last_epoch"])
        before, rates = state["_last_lr"], [rate * factor for rate in state["base_lrs"]]
        if all(math.isclose(a, b, abs_tol=1e-30) for a, b in zip(before, rates, strict=True)):
            continue
        changed = changed or (float(before[0]), float(rates[0]))
        state["_last_lr"] = rates
        for group, rate in zip(optimizer["param_groups"], rates, strict=True):
            # Some optimizers keep their rate in a tensor.
            is_tensor = isinstance(group["lr"], Tensor)
            group["lr"] = group["lr"].new_tensor(float(rate)) if is_tensor else rate
    return changed
