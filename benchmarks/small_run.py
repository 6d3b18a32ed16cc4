"""The recipe around small models, with batches of noise, for measurements on a CPU.

`OneLinear` is as little training as there can be, with what the loop and its callbacks look at.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
import yaml
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.profiles import SMALL_AUDIO_WIDTH, SMALL_CONFIG, read_profile
from benchmarks.random_model import random_clip
from datamodules.batch import ClipBatch, ClipItem, collate
from lightning_modules import MusicInfuserModule, WarmUp
from lightning_modules.cli import MusicInfuserCLI
from lightning_modules.logged_steps import is_logged_step
from lightning_modules.optimization import Optimization
from musicinfuser.setting_differences import laid_over

TEXT_TOKENS, NUM_LAYERS, WIDTH = 32, 4, 8


def recipe_optimization() -> Optimization:
    """The recipe's optimizer and schedule."""
    adam = partial(torch.optim.AdamW, lr=1e-4, weight_decay=0.0)
    return Optimization(adam, partial(WarmUp, warmup_steps=200, decay="cosine"))


def recipe_with(root: Path, changes: dict[str, Any], *, max_steps: int) -> MusicInfuserCLI:
    """``base.yaml`` on a CPU in fp32, run in the folder ``root``; nothing is run yet.

    Changes are laid over the recipe; what has a ``class_path`` replaces it.
    """
    config = laid_over(read_profile(), {"ckpt_path": None, "trainer": {
        "default_root_dir": str(root), "max_steps": max_steps, "precision": "32-true",
        "accelerator": "cpu", "devices": 1, "val_check_interval": None, "limit_val_batches": 0,
        "enable_model_summary": False,
    }})  # fmt: skip
    for name, change in changes.items():
        config[name] = change if "class_path" in change else laid_over(config[name], change)
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump(config))
    return MusicInfuserCLI([f"--config={path}"], run=False)


def small_recipe(root: Path, *, max_steps: int) -> MusicInfuserCLI:
    """The recipe with a model of four small blocks in fp32; arguments as of `recipe_with`."""
    architecture = root / "architecture.json"
    architecture.write_text(json.dumps(SMALL_CONFIG | {"num_layers": NUM_LAYERS}))
    model = {
        "backbone": {"pretrained": None, "config": str(architecture), "dtype": "float32"},
        "audio_width": SMALL_AUDIO_WIDTH, "layers": [0, 2],
        "memory": {"gradient_checkpointing": "none", "compile_blocks": False},
    }  # fmt: skip
    return recipe_with(root, {"model": {"init_args": model}}, max_steps=max_steps)


def recipe_module(cli: MusicInfuserCLI) -> MusicInfuserModule:
    """The module of a recipe, with its weights."""
    module = cli.model
    assert isinstance(module, MusicInfuserModule)
    module.configure_model()
    return module


def noise_batch(num_frames: int, height: int, width: int) -> ClipBatch:
    """A batch of one clip of noise; 6k + 1 frames, sides in pixels."""
    clip = random_clip(
        num_frames, height, width, text_tokens=TEXT_TOKENS,
        text_width=SMALL_CONFIG["text_embed_dim"], audio_width=SMALL_AUDIO_WIDTH,
    )  # fmt: skip
    mean, logvar, text = (t[0].float() for t in (clip.latent_mean, clip.latent_logvar, clip.text))
    item = ClipItem(
        sample_index=0, clip_id="noise", latent_mean=mean, latent_logvar=logvar,
        audio=clip.audio[0], other_audio=None, text=text,
        latents_mean=torch.zeros(len(mean)), latents_std=torch.ones(len(mean)),
    )  # fmt: skip
    return collate([item])


def seconds_by_hand(
    loss_of: Callable[[], Tensor], optimizer: torch.optim.Optimizer, num_steps: int
) -> list[float]:
    """CPU seconds of every step of a training without a Trainer."""
    times = []
    for _ in range(num_steps):
        began = time.process_time()
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.process_time() - began)
    return times


class StepClock(L.Callback):
    """CPU seconds from the start of each step to the start of the next."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        self.times.append(time.process_time())

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """The last step's end."""
        self.times.append(time.process_time())

    def steps(self) -> list[float]:
        """Seconds of every step."""
        return [later - earlier for earlier, later in pairwise(self.times)]


@dataclass(frozen=True)
class Sample:
    """Where a sample comes from."""

    source: str


@dataclass(frozen=True)
class SmallBatch:
    """Rows of numbers in place of clips."""

    inputs: Tensor
    """``(B, WIDTH)``."""
    sample_index: tuple[int, ...]
    clip_ids: tuple[str, ...]

    def __len__(self) -> int:
        """Samples in the batch."""
        return len(self.inputs)

    def to(self, device: torch.device, **_: object) -> "SmallBatch":
        """Itself: it stays on the CPU."""
        return self


class OneLinear(L.LightningModule):
    """A linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.noise_beta, self.is_logging = nn.Linear(WIDTH, WIDTH), 1.0, True

    def training_step(self, batch: SmallBatch, batch_idx: int) -> dict[str, Tensor]:
        """The loss of a batch, logged as the real module does."""
        losses = self.layer(batch.inputs).square().mean(dim=1)
        loss = losses.mean()
        if self.is_logging and is_logged_step(self):
            self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch))
        return {"loss": loss, "losses": losses.detach(), "sigma": batch.inputs[:, 0].detach()}

    def configure_optimizers(self) -> Any:
        """The recipe's."""
        return recipe_optimization().build(self.parameters(), 10_000)


class SameBatches(L.LightningDataModule):
    """The same batch again and again."""

    def __init__(self, num_steps: int = 0) -> None:
        super().__init__()
        self.num_steps, self.ratio = num_steps, {"aist": 1, "youtube": 1}
        self.mixture = [Sample("aist"), Sample("youtube")]

    def train_dataloader(self) -> DataLoader:
        """As many batches as steps."""
        batches: Any = [small_batch()] * self.num_steps
        return DataLoader(batches, batch_size=None)


def small_batch() -> SmallBatch:
    """Two samples."""
    return SmallBatch(torch.linspace(0, 0.9, 2 * WIDTH).view(2, WIDTH), (0, 1), ("a", "b"))
