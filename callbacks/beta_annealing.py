"""BetaAnnealing: the noise distribution from Beta(1, 3) to uniform (section 4.2)."""

from typing import Any, Literal, get_args

import lightning.pytorch as L

from callbacks.step_callback import StepCallback
from lightning_modules.logged_steps import log_numbers
from musicinfuser.errors import UserError
from musicinfuser.setting_checks import check_choice, check_number

BetaMode = Literal["exponential", "linear", "fixed"]


class BetaAnnealing(StepCallback):
    """Sets the module's beta before every batch.

    Stateless: beta is a pure function of the optimizer step, so a resumed run continues where it
    was.
    """

    def __init__(
        self,
        initial: float = 3.0,
        half_life_steps: int = 200,
        mode: BetaMode = "exponential",
        num_steps: int | None = None,
    ) -> None:
        """Choose the schedule.

        Args:
            initial: beta at step 0 (section 5.1: 3).
            half_life_steps: Steps in which the distance to 1 halves (authors' code: 200).
            mode: ``exponential`` (the paper): 1 + (initial - 1) * 2^(-step / half_life);
                ``linear``: falls evenly to 1 at ``num_steps``; ``fixed``: the ablation without the
                schedule is this with ``initial`` 1.
            num_steps: Only for ``linear``.
        """
        check_choice("beta_annealing.mode", mode, get_args(BetaMode))
        check_number("beta_annealing.initial", initial, at_least=1)
        check_number("beta_annealing.half_life_steps", half_life_steps, at_least=1)
        if (mode == "linear") != (num_steps is not None):
            raise UserError("beta_annealing.num_steps belongs to mode linear, and only to it.")
        check_number("beta_annealing.num_steps", num_steps, at_least=1)
        self.initial, self.half_life_steps = initial, half_life_steps
        self.mode, self.num_steps = mode, num_steps

    def beta(self, step: int) -> float:
        """Beta at an optimizer step."""
        if self.mode == "fixed":
            return self.initial
        if self.num_steps is not None:
            left = max(0.0, 1.0 - step / self.num_steps)
        else:
            left = 2.0 ** (-step / self.half_life_steps)
        return 1.0 + (self.initial - 1.0) * left

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set beta; modules without a noise level are left alone."""
        if hasattr(pl_module, "noise_beta"):
            pl_module.noise_beta = self.beta(trainer.global_step)  # type: ignore[assignment]

    def on_log_step(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any) -> None:
        """Log the beta of this batch."""
        if hasattr(pl_module, "noise_beta"):
            beta: Any = pl_module.noise_beta
            log_numbers(trainer, {"train/beta": beta})
