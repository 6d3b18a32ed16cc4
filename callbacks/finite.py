"""FiniteTraining: a loss or gradient that is no longer a number stops the run or is skipped."""

from collections import deque
from typing import Any, Literal

import lightning.pytorch as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.utils import get_total_norm

from callbacks.atomic_checkpoint import last_checkpoint
from callbacks.step_callback import StepCallback
from lightning_modules.logged_steps import log_numbers
from musicinfuser.errors import UserError
from musicinfuser.setting_checks import check_choice, check_number

_NEVER = 2**62


class NonFiniteError(UserError):
    """A loss or gradient was infinite or not a number."""


class FiniteTraining(StepCallback):
    """Watches losses and gradients of every optimizer step, over all processes of a run.

    ``stop``: losses and lengths of gradients stay on the device. They are read every few steps,
    and before anything is validated or saved, so no checkpoint holds a bad step.
    ``skip``: a bad step changes neither weights nor the optimizer's state; schedule, step counter
    and data go on. The device is waited for once per optimizer step, since whether to step is
    decided here. With no bad step, both leave a run as it would be without, to the bit.

    Under a gradient scaler (fp16) only losses are watched: the scaler itself meets infinite
    gradients on purpose and skips them.
    """

    def __init__(
        self,
        on_bad: Literal["stop", "skip"] = "stop",
        max_skipped: int = 10,
        check_every_n_steps: int = 10,
    ) -> None:
        """Choose what happens.

        Args:
            on_bad: ``stop`` or ``skip``.
            max_skipped: Skipped steps of the whole run after which ``skip`` stops too.
            check_every_n_steps: Optimizer steps between looks at the device's answer, for ``stop``.
        """
        check_number("FiniteTraining.max_skipped", max_skipped, at_least=0)
        check_number("FiniteTraining.check_every_n_steps", check_every_n_steps, at_least=1)
        check_choice("FiniteTraining.on_bad", on_bad, ("stop", "skip"))
        self.on_bad, self.max_skipped = on_bad, max_skipped
        self.check_every_n_steps = check_every_n_steps
        self.num_skipped = 0
        """Optimizer steps skipped since the run began, resumed parts included."""
        # On the device: what must be finite in this optimizer step, and in each not yet checked.
        self._values: list[Tensor] = []
        self._unchecked: list[tuple[int, list[Tensor]]] = []
        self._clips: deque[tuple[int, list[str]]] = deque(maxlen=check_every_n_steps + 1)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget what an earlier run saw."""
        self._values, self._unchecked = [], []
        self._clips.clear()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the clips of this optimizer step."""
        if not self._clips or self._clips[-1][0] != trainer.global_step:
            self._clips.append((trainer.global_step, []))
        self._clips[-1][1].extend(getattr(batch, "clip_ids", ()))

    def on_before_backward(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor
    ) -> None:
        """Note the loss."""
        self._values.append(loss.detach().reshape(()))

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look at the gradients; to skip, take them away: no optimizer touches what has none."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        grads = [p.grad for p in parameters if p.grad is not None]
        if grads and getattr(trainer.precision_plugin, "scaler", None) is None:
            # The largest magnitude; unlike a sum of squares it cannot overflow by itself.
            self._values.append(get_total_norm(grads, norm_type=float("inf")))
        values, self._values = self._values, []
        if self.on_bad == "skip":
            is_good = torch.isfinite(torch.stack(values)).all()
            if trainer.strategy.reduce((~is_good).long(), reduce_op="max").item():
                optimizer.zero_grad()
                self.num_skipped += 1
                self._report_skipped(trainer)
        else:
            self._unchecked.append((trainer.global_step, values))

    def on_step_end(self, trainer: L.Trainer, pl_module: L.LightningModule, step: int) -> None:
        """Wait for the device when it is time."""
        if self.on_bad == "stop" and step % self.check_every_n_steps == 0:
            self.check(trainer)

    def on_log_step(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any) -> None:
        """Log how many steps were skipped."""
        if self.on_bad == "skip":
            log_numbers(trainer, {"train/skipped_steps": self.num_skipped})

    def check(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Read from the device whether a step was bad; every process must call this.

        Raises:
            NonFiniteError: Names step, clips and the last good checkpoint.
        """
        if not self._unchecked:
            return
        values = torch.stack([value for _, own in self._unchecked for value in own])
        steps = torch.tensor([step for step, own in self._unchecked for _ in own])
        bad = torch.where(values.isfinite(), _NEVER, steps.to(values.device))
        step = int(trainer.strategy.reduce(bad.min(), reduce_op="min").item())
        if step == _NEVER:
            self._unchecked = []
            return
        raise NonFiniteError(
            f"{self._what(trainer, step)}; {_where_to_go_on(trainer)} Set FiniteTraining's on_bad "
            "to skip to leave such steps out, or look at the clips."
        )

    # Weights that are no numbers are neither validated nor saved.
    on_validation_start = on_save_checkpoint = on_train_end = check

    def state_dict(self) -> dict[str, Any]:
        """The count goes on when a run does."""
        return {"num_skipped": self.num_skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the count up."""
        self.num_skipped = state_dict["num_skipped"]

    def _report_skipped(self, trainer: L.Trainer) -> None:
        what = self._what(trainer, trainer.global_step)
        if self.num_skipped > self.max_skipped:
            raise NonFiniteError(
                f"{what}; {self.num_skipped} steps were skipped, more than "
                f"FiniteTraining.max_skipped: {self.max_skipped}; {_where_to_go_on(trainer)}"
            )
        rank_zero_warn(f"{what}; step skipped ({self.num_skipped} so far).")

    def _what(self, trainer: L.Trainer, step: int) -> str:
        mine = dict(self._clips).get(step, [])
        clips: list[Any] = [mine]
        if trainer.world_size > 1:
            clips = [None] * trainer.world_size
            torch.distributed.all_gather_object(clips, mine)
        named = ", ".join(dict.fromkeys(clip for part in clips for clip in part)) or "unknown"
        return f"the loss or its gradient is not finite at step {step} (clips: {named})"


def _where_to_go_on(trainer: L.Trainer) -> str:
    path = last_checkpoint(trainer)
    return f"the last good checkpoint is {path}." if path else "there is no checkpoint yet."
