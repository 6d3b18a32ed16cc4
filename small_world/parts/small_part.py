"""What the parts of the small Mochi that are trained alone have in common."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig

from lightning_modules.learning_rate import build_optimizer
from lightning_modules.logged_steps import StepMeans
from lightning_modules.settings import OptimizerSpec
from musicinfuser.errors import UserError
from musicinfuser.pretrained_sources import load_pretrained
from musicinfuser.throw_away import throw_away_mode


class SmallPartModule(L.LightningModule):
    """Trains one network, made from a config or read from weights, and exports it."""

    def __init__(
        self,
        optimizer: OptimizerSpec,
        export_dir: str,
        *,
        config: str | None,
        pretrained: str | None,
        seed: int,
    ) -> None:
        """Set up.

        Args:
            optimizer: AdamW and its schedule.
            export_dir: Where the trained part goes.
            config: A ``config.json`` for a fresh start.
            pretrained: A folder in diffusers' layout to go on from.
            seed: Seed of all draws.

        Raises:
            ValueError: Not exactly one of ``config`` and ``pretrained`` is given.
        """
        super().__init__()
        if (config is None) == (pretrained is None):
            raise UserError("model needs exactly one of `config` and `pretrained`.")
        self.optimizer_spec, self.export_dir = optimizer, export_dir
        self.step_means = StepMeans()
        self.config, self.pretrained, self.seed = config, pretrained, seed

    def read_or_build(
        self, part: Any, subfolder: str, build: Callable[[dict[str, Any]], Any]
    ) -> Any:
        """The network of a class of diffusers or transformers.

        Args:
            part: The class.
            subfolder: Where it lies in ``pretrained``.
            build: Makes it of what ``config`` says, with random weights.

        Raises:
            MissingWeightsError: ``pretrained`` holds no such part.
        """
        if self.pretrained is not None:
            return load_pretrained(part, self.pretrained, subfolder)
        assert self.config is not None
        return build(json.loads(Path(self.config).read_text()))

    def on_fit_end(self) -> None:
        """Export what was trained; not of a training to throw away."""
        if self.trainer.is_global_zero and not throw_away_mode(self.trainer):
            self.export()

    def export(self) -> None:
        """Write the trained part to its folder."""
        raise NotImplementedError

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW, warm-up and decay counted in optimizer steps."""
        return build_optimizer(self.parameters(), self.optimizer_spec, self.trainer.max_steps)
