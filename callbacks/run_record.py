"""RunRecord: what a run worked with, kept beside what it made."""

from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.cli import SaveConfigCallback

from musicinfuser.atomic_files import write_text
from musicinfuser.throw_away import throw_away_mode


class RunRecord(SaveConfigCallback):
    """Saves a run's full config as ``config_<verb>.yaml`` with the first batch of its work.

    Verbs do not overwrite each other's, and a command that is refused before it does anything, or
    a training to throw away, leaves the record of the run as it is.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Note where the file goes; every process is asked."""
        assert trainer.state.fn is not None
        # Without a logger Lightning's answer is the run's folder, where nothing looks for it.
        log_dir = trainer.log_dir if trainer.loggers else Path(trainer.default_root_dir, "logs")
        self._path = Path(str(log_dir), f"config_{trainer.state.fn.value}.yaml")

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Save the record of a training, once it has really started."""
        if not self.already_saved and not throw_away_mode(trainer):
            self._save(trainer)

    def on_validation_batch_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Save the record of a validation by itself."""
        if not self.already_saved and trainer.state.fn != "fit":
            self._save(trainer)

    on_test_batch_start = on_predict_batch_start = on_validation_batch_start

    def _save(self, trainer: L.Trainer) -> None:
        self.already_saved = True
        if trainer.is_global_zero:
            write_text(self._path, self.text())

    def text(self) -> str:
        """What a training works with; where it trained no step, what the one before did."""
        if not self.already_saved and self._path.is_file():
            return self._path.read_text(encoding="utf-8")
        return self.parser.dump(self.config, skip_none=False)
