"""What the training modules of all parts of the small Mochi have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import lightning.pytorch as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics import MeanMetric
from transformers import PreTrainedModel

from lightning_modules.logged_steps import StepMeans
from lightning_modules.optimization import Optimization
from musicinfuser import keyed_random
from musicinfuser.errors import UserError
from musicinfuser.label_files import read_json
from musicinfuser.pretrained_sources import load_pretrained
from musicinfuser.throw_away import throw_away_mode


class SmallPartModule(L.LightningModule, ABC):
    """Trains one network, made from a config or read from weights, and exports it.

    A subclass names its `part`, builds it in `build` and writes it in `export`. Its validation
    steps update `means`, one per name in `validated`.
    """

    part: ClassVar[str]
    validated: Sequence[str]

    def __init__(
        self,
        optimizer: OptimizerCallable,
        export_dir: str,
        config: str | None = None,
        pretrained: str | None = None,
        schedule: LRSchedulerCallable | None = None,
        seed: int = 42,
    ) -> None:
        """Set up; give ``config`` for a fresh start or ``pretrained`` to go on from weights.

        Args:
            optimizer: A torch optimizer by class path, with its arguments.
            export_dir: Where the trained part goes.
            config: A ``config.json`` of the part's class.
            pretrained: A folder in diffusers' layout with the part in it.
            schedule: Of the learning rate, likewise; null keeps the optimizer's own rate.
            seed: Seed of the weights and of all draws.

        Raises:
            ValueError: Not exactly one of ``config`` and ``pretrained`` is given.
        """
        super().__init__()
        if (config is None) == (pretrained is None):
            raise UserError("model needs exactly one of `config` and `pretrained`.")
        self.optimization, self.export_dir = Optimization(optimizer, schedule), export_dir
        self.step_means = StepMeans()
        self.config, self.pretrained, self.seed = config, pretrained, seed
        self.means = nn.ModuleList(MeanMetric() for _ in self.validated)
        self._is_built = False

    def configure_model(self) -> None:
        """Build the network and what is trained with it, once."""
        if self._is_built:
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(keyed_random.key(self.seed, 0, f"{self.part} init"))
            self.build()
        self._is_built = True

    @abstractmethod
    def build(self) -> None:
        """Set the networks as attributes; random weights follow from the seed."""

    def read_or_build(self, kind: Any) -> Any:
        """The network of a class of diffusers or transformers.

        Raises:
            MissingWeightsError: ``pretrained`` holds no such part.
        """
        if self.pretrained is not None:
            return load_pretrained(kind, self.pretrained, self.part.replace(" ", "_"))
        assert self.config is not None
        config = read_json(self.config)
        if issubclass(kind, PreTrainedModel):
            return kind(kind.config_class(**config))
        return kind.from_config(config)

    def on_validation_epoch_end(self) -> None:
        """Log the means."""
        self.log_means()

    def log_means(self) -> Tensor:
        """Log every mean as ``val/<name>`` and start anew; returns all, in order."""
        values = []
        for name, metric in zip(self.validated, self.means, strict=True):
            assert isinstance(metric, MeanMetric)
            values.append(metric.compute())
            self.log(f"val/{name}", values[-1], prog_bar=True, sync_dist=True)
            metric.reset()
        return torch.stack(values)

    def on_fit_end(self) -> None:
        """Export what was trained; not of a training to throw away."""
        if self.trainer.is_global_zero and not throw_away_mode(self.trainer):
            self.export()

    @abstractmethod
    def export(self) -> None:
        """Write the trained part to its folder."""

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimizer, its schedule counted in optimizer steps."""
        return self.optimization.build(self.parameters(), self.trainer.max_steps)
