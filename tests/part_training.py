"""A few steps of training a part of the small world, through train.py."""

from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from train import main


def train_part(name: str, root: Path, *arguments: str, steps: int = 2) -> Any:
    """The config of that name in ``configs/parts``; what is trained goes to ``root/export``."""
    return main(
        [
            "fit",
            f"--config={ROOT}/configs/parts/{name}.yaml",
            f"--trainer.default_root_dir={root}",
            "--trainer.accelerator=cpu",
            f"--trainer.max_steps={steps}",
            f"--trainer.val_check_interval={steps}",
            "--trainer.enable_progress_bar=false",
            f"--model.init_args.export_dir={root}/export",
            *arguments,
        ]
    )
