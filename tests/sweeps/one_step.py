"""One step of training on what `train.py` would build, without its start-up."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor

from callbacks import BetaAnnealing
from datamodules import DanceDataModule
from lightning_modules import MusicInfuserModule
from lightning_modules.masked_loss import ask_for_masks
from tests.conftest import ROOT

M, D = "model.init_args", "data.init_args"
UNADAPTED = [
    f"--{M}.layers=[1, 4]",
    f"--{M}.lora.rank=4",
    f"--{M}.lora.alpha=4",
    f"--{D}.ratio={{aist: 1, youtube: 1}}",
    f"--{D}.batch_size=2",
    f"--{D}.caption_dropout=0",
    f"--{M}.schedule.warmup_steps=0",
]


@dataclass(frozen=True)
class Trained:
    """A model after one step of training.

    Attributes:
        module, data, annealing: What the config built.
        start: The trained parameters before the step, by name.
        moved: Names of those that the step changed.
        sources: Of the clips that the step saw.
    """

    module: MusicInfuserModule
    data: DanceDataModule
    annealing: BetaAnnealing
    start: dict[str, Tensor]
    moved: set[str]
    sources: set[str]

    @property
    def zica(self) -> list[Any]:
        return list(self.module.adapted.zica.values())


class Watch(L.Callback):
    """Keeps what a step starts from and sees."""

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        named = pl_module.adapted.named_parameters()
        self.start = {name: p.detach().clone() for name, p in named if p.requires_grad}

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        clips = trainer.datamodule.training_clips.clips
        ids = {source: {h.clip_id for h in own} for source, own in clips.items()}
        self.sources = {s for s, own in ids.items() if own & set(batch.clip_ids)}


def one_step(parser: Any, parts: Path, cache: Path, arguments: tuple[str, ...]) -> Trained:
    config = parser.parse_args(
        [
            f"--config={ROOT}/configs/base.yaml",
            f"--config={ROOT}/tests/tiny.yaml",
            f"--{M}.backbone.pretrained={parts}",
            f"--{M}.encoders.mochi={parts}",
            f"--{M}.encoders.audio={parts}",
            f"--{D}.cache_dir={cache}",
            "--trainer.callbacks=null",
            "--trainer.logger=false",
            *UNADAPTED,
            *arguments,
        ]
    )
    built = parser.instantiate_classes(config)
    ask_for_masks(built.model.objective.mask, built.data)
    watch = Watch()
    trainer = L.Trainer(
        max_steps=1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_model_summary=False, enable_progress_bar=False, use_distributed_sampler=False,
        limit_val_batches=0, callbacks=[built.beta_annealing, watch],
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(built.model, datamodule=built.data)
    assert trainer.global_step == 1
    now = dict(built.model.adapted.named_parameters())
    moved = {name for name, before in watch.start.items() if not torch.equal(before, now[name])}
    return Trained(built.model, built.data, built.beta_annealing, watch.start, moved, watch.sources)
