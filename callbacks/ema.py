"""AdapterEMA: a running average of the trained weights, for everything but training."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from callbacks.step_callback import StepCallback
from musicinfuser.errors import UserError
from musicinfuser.setting_checks import check_number

if TYPE_CHECKING:
    from diffusers.training_utils import EMAModel


class AdapterEMA(StepCallback):
    """Averages the trainable weights with diffusers' `EMAModel`.

    The average starts as a copy of the weights after ``start_step`` and then follows them with
    EMAModel's own warm-up, min(decay, (1 + n) / (10 + n)) at update n. Validation, samples and
    `predict` run on the average; training goes on from exactly the weights it had. It is kept on
    the weights' device and saved with the checkpoint, in fp32: as much again as the adapters.
    """

    def __init__(self, decay: float = 0.999, start_step: int = 0, every_n_steps: int = 1) -> None:
        """Choose the average.

        Args:
            decay: How much of the average stays at an update, at most; above 0, below 1.
            start_step: Optimizer steps before there is an average; until then the weights are
                used as they are.
            every_n_steps: Optimizer steps between updates.
        """
        check_number("AdapterEMA.decay", decay, above=0, below=1)
        check_number("AdapterEMA.start_step", start_step, at_least=0)
        check_number("AdapterEMA.every_n_steps", every_n_steps, at_least=1)
        self.decay, self.start_step, self.every_n_steps = decay, start_step, every_n_steps
        self._ema: EMAModel | None = None
        self._loaded: dict[str, Any] | None = None
        self._names: list[str] = []

    @property
    def is_in_use(self) -> bool:
        """Whether the module holds the average at this moment."""
        return self._ema is not None and self._ema.temp_stored_params is not None

    def before_run(self, cli: LightningCLI) -> None:
        """Refuse to average what the optimizer averages."""
        if cli.subcommand == "fit":
            self.check(cli.model)

    @staticmethod
    def check(module: L.LightningModule) -> None:
        """Refuse a module whose optimizer averages the weights itself (`UserError`)."""
        optimization = getattr(module, "optimization", None)
        if optimization is not None and optimization.averages:
            name = optimization.settings["optimizer"]["class_path"]
            raise UserError(f"{name} averages the weights itself; take callbacks.AdapterEMA out.")

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take up the average of a resumed run; drop that of an earlier one."""
        if self._loaded is None:
            self._ema = None
        self._take_up(pl_module)

    def on_step_end(self, trainer: L.Trainer, pl_module: L.LightningModule, step: int) -> None:
        """Follow the weights."""
        if step < self.start_step:
            return
        parameters = self._parameters(pl_module)
        if self._ema is None:
            self._ema = self._average(parameters)
            self._names = list(parameters)
        elif (step - max(self.start_step, 1)) % self.every_n_steps == 0:
            self._ema.step(parameters.values())

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the average in."""
        self._take_up(pl_module)
        if self._ema is not None and not self.is_in_use:
            parameters = list(self._parameters(pl_module).values())
            self._ema.store(parameters)
            self._ema.copy_to(parameters)

    def on_validation_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Put the trained weights back; after an error before anyone saves them."""
        if self._ema is not None and self.is_in_use:
            self._ema.restore(self._parameters(pl_module).values())

    on_predict_end = on_exception = on_validation_end

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the average in."""
        self.on_validation_start(trainer, pl_module)
        if self._ema is None and trainer.ckpt_path:
            rank_zero_info("AdapterEMA: the checkpoint holds no average; its weights are used.")

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the trained weights as such also while the average is in their place."""
        if self._ema is not None and self.is_in_use:
            stored = zip(self._names, self._ema.temp_stored_params, strict=True)
            checkpoint["state_dict"] |= dict(stored)

    def state_dict(self) -> dict[str, Any]:
        """The average by the weights' names, and how often it was updated."""
        if self._ema is None:
            # A checkpoint may be saved before the loaded state is taken up.
            return self._loaded or {}
        average = zip(self._names, self._ema.shadow_params, strict=True)
        return {"average": dict(average), "num_updates": self._ema.optimization_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the module is on its device."""
        self._loaded, self._ema = state_dict or None, None

    def _take_up(self, pl_module: L.LightningModule) -> None:
        if self._loaded is None:
            return
        parameters = self._parameters(pl_module)
        average: dict[str, Tensor] = self._loaded["average"]
        if average.keys() != parameters.keys():
            raise UserError(
                "AdapterEMA: the checkpoint's average is of other weights; first difference: "
                f"{min(average.keys() ^ parameters.keys())}."
            )
        self._names = list(parameters)
        self._ema = self._average(parameters)
        for shadow, name in zip(self._ema.shadow_params, self._names, strict=True):
            shadow.copy_(average[name])
        self._ema.optimization_step = self._loaded["num_updates"]
        self._loaded = None

    def _average(self, parameters: dict[str, nn.Parameter]) -> "EMAModel":
        """One that starts from the weights as they are."""
        from diffusers.training_utils import EMAModel

        return EMAModel(parameters.values(), decay=self.decay)

    @staticmethod
    def _parameters(pl_module: L.LightningModule) -> dict[str, nn.Parameter]:
        return {name: p for name, p in pl_module.named_parameters() if p.requires_grad}


@contextmanager
def averaged_weights(trainer: L.Trainer, pl_module: L.LightningModule) -> Iterator[None]:
    """The module as it is to be sampled or exported: averaged where run or optimizer average."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    averages = [c for c in callbacks if isinstance(c, AdapterEMA) and not c.is_in_use]
    for average in averages:
        average.on_validation_start(trainer, pl_module)
    try:
        with ExitStack() as stack:
            if (given := getattr(pl_module, "given_weights", None)) is not None:
                stack.enter_context(given.swapped(trainer.optimizers, given=True))
            yield
    finally:
        for average in averages:
            average.on_validation_end(trainer, pl_module)
