"""SampleGeneration: a look and a listen while training goes on."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn

from callbacks.ema import averaged_weights
from callbacks.sigterm import NOTICE
from callbacks.throw_away import throw_away_mode
from callbacks.video_writer import write_clip
from musicinfuser.cells import Cell
from musicinfuser.clip_size import check_clip_size
from musicinfuser.errors import UserError
from musicinfuser.generation import OUTPUT_RATE_HZ, GeneratedClip
from musicinfuser.media.errors import MediaError
from musicinfuser.media.generated import write_manifest

if TYPE_CHECKING:
    from lightning_modules.music_infuser import MusicInfuserModule


@dataclass(frozen=True)
class SampleCell:
    """A clip to watch over the course of training."""

    track: str
    """An audio file, or a video whose sound is used."""
    prompt: str
    seed: int = 0
    track_offset_seconds: float = 0.0
    heard: str | None = None
    """Another file that the model hears in place of the track, or ``nothing``."""
    heard_offset_seconds: float | None = None
    """Where in it; null is the offset in the track."""


class SampleGeneration(L.Callback):
    """Generates the same cells every so many steps, through the code that `predict` uses.

    Runs on the trainer's device in its precision, without gradient. Random streams, train and eval
    modes, gradients and cached memory are left as they were found, so a run with samples equals a
    run without. With AdapterEMA the averaged weights are watched. On SIGTERM a clip under way is
    given up.
    """

    def __init__(
        self,
        every_n_steps: int = 0,
        cells: list[SampleCell] | None = None,
        num_frames: int = 73,
        height: int = 480,
        width: int = 848,
        num_logged_frames: int = 8,
    ) -> None:
        """Choose what to watch.

        Args:
            every_n_steps: Optimizer steps between samples; 0 switches sampling off.
            cells: Tracks, prompts and seeds.
            num_frames: Frames per clip, 6k + 1.
            height: Pixels.
            width: Pixels.
            num_logged_frames: Frames of a clip in the logged picture.
        """
        if every_n_steps < 0:
            raise UserError(f"sample_generation.every_n_steps is {every_n_steps}; use 0 or more.")
        if every_n_steps and not cells:
            raise UserError(
                "sample_generation.every_n_steps is set but sample_generation.cells is empty; name "
                "at least one track and prompt, or set every_n_steps to 0."
            )
        check_clip_size(num_frames, height, width)
        self.every_n_steps = every_n_steps
        self.num_logged_frames = num_logged_frames
        self.cells = [
            Cell(
                track=c.track,
                prompt=c.prompt,
                seed=c.seed,
                num_frames=num_frames,
                height=height,
                width=width,
                track_offset_seconds=c.track_offset_seconds,
                heard=c.heard,
                heard_offset_seconds=c.heard_offset_seconds,
            )
            for c in cells or []
        ]

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse missing tracks before training starts."""
        if stage == "fit" and self.every_n_steps:
            files = [f for c in self.cells for f in (c.track, c.heard_file) if f is not None]
            missing = [file for file in files if not Path(file).is_file()]
            if missing:
                raise UserError(
                    f"sample_generation.cells names {missing[0]}, which does not exist."
                )

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Generate when an optimizer step at the interval has just been done."""
        step = trainer.global_step
        has_stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self.every_n_steps and has_stepped and step and step % self.every_n_steps == 0:
            self.generate(trainer, pl_module, step)

    def generate(self, trainer: L.Trainer, pl_module: L.LightningModule, step: int) -> None:
        """Generate, write and log this rank's share of the cells."""
        module: MusicInfuserModule = pl_module  # type: ignore[assignment]
        # The folder's manifest lists all that lies in it.
        name = "_".join(filter(None, (throw_away_mode(trainer), f"step_{step:06d}")))
        folder = Path(trainer.default_root_dir, "samples", name)
        mine = self.cells[trainer.global_rank :: trainer.world_size]
        with (
            averaged_weights(trainer, module),
            _untouched(module),
            trainer.precision_plugin.forward_context(),
            torch.no_grad(),
        ):
            for cell in mine:
                try:
                    clip = module.generate(cell, progress=_until_sigterm)
                except _GivenUpError:
                    break
                except MediaError as error:
                    rank_zero_warn(f"no sample for {cell.track}: {error}")
                    continue
                write_clip(folder, clip, sampling=module.sampling, system=f"step {step}")
                self._log(trainer, clip, step)
        trainer.strategy.barrier("samples written")
        if trainer.is_global_zero and folder.is_dir():
            write_manifest(folder)

    def _log(self, trainer: L.Trainer, clip: GeneratedClip, step: int) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                tag = f"samples/{clip.cell.file_stem()}"
                chosen = torch.linspace(0, len(clip.frames) - 1, self.num_logged_frames).long()
                strip = clip.frames[chosen].permute(1, 0, 2, 3).flatten(1, 2)
                logger.experiment.add_image(tag, strip.numpy(), step, dataformats="HWC")
                logger.experiment.add_audio(tag, clip.waveform[None], step, OUTPUT_RATE_HZ)


class _GivenUpError(Exception):
    """There are only seconds left, which are for the checkpoint."""


def _until_sigterm(steps: range) -> Iterator[int]:
    for step in steps:
        if NOTICE.received:
            raise _GivenUpError
        yield step


@contextmanager
def _untouched(module: L.LightningModule) -> Iterator[None]:
    """Put random states and module modes back, and free what sampling cached."""
    modes = {name: part.training for name, part in module.named_modules()}
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = [module.device] if module.device.type == "cuda" else []
    module.eval()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for name, part in module.named_modules():
            part.training = modes[name]
        if devices:
            torch.cuda.empty_cache()
