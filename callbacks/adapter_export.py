"""AdapterExport: what a run trained, as a folder that others can load."""

from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.utilities import rank_zero_info

from callbacks.ema import averaged_weights
from callbacks.run_folder import RunRecord
from musicinfuser.adapters.card import CardFacts
from musicinfuser.adapters.folder import write_folder
from musicinfuser.adapters.settings import Adapter, adapter_of_model, frozen_names
from musicinfuser.throw_away import throw_away_mode


class AdapterExport(L.Callback):
    """Writes the adapters at the end of a training, averaged where the run averages.

    Also where the checkpoint that was resumed is at the end already. The folder is written
    atomically; the one of an earlier run there is replaced. For a checkpoint that exists:
    ``python -m musicinfuser.convert checkpoint``.
    """

    def __init__(
        self,
        output_dir: str | None = None,
        base_model: str | None = None,
        license: str = "apache-2.0",  # noqa: A002 - the Hub's word
    ) -> None:
        """Choose the folder and what its model card says.

        Args:
            output_dir: The folder; ``<trainer.default_root_dir>/adapter`` if absent.
            base_model: Hub id of the frozen transformer; what the run read it from if absent.
            license: Of the adapter, as the Hub writes it.
        """
        super().__init__()
        self.output_dir, self.base_model, self.license = output_dir, base_model, license

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the folder, beside the checkpoint of the same step; not if nothing is kept."""
        if throw_away_mode(trainer):
            return
        if trainer.is_global_zero:
            self.export(trainer, pl_module)
        trainer.strategy.barrier("adapter exported")

    def export(self, trainer: L.Trainer, module: Any) -> None:
        """Write the weights of this moment."""
        with averaged_weights(trainer, module):
            adapter = adapter_of_model(module.adapted, module.model_settings(), module.origin)
        names = frozen_names(module.backbone_spec, module.encoders.spec)
        facts = CardFacts(
            **names if self.base_model is None else names | {"base_model": self.base_model},
            license=self.license,
            origin=f"Trained for {trainer.global_step} optimizer steps.",
        )
        folder = Path(self.output_dir or Path(trainer.default_root_dir, "adapter"))
        write_folder(folder, adapter, facts=facts, config=_config(trainer, adapter))
        rank_zero_info(f"The adapter is in {folder}.")


def _config(trainer: L.Trainer, adapter: Adapter) -> str:
    """What the run was trained with, or without the command line the adapter's settings."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RunRecord):
            return callback.text()
    return adapter.settings.as_yaml()
