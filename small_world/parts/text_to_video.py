"""TextToVideoModule: trains a small Mochi on silent dancers, with its text encoder."""

from pathlib import Path
from typing import TYPE_CHECKING

import lightning.pytorch as L
import torch
from diffusers import MochiTransformer3DModel
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics import MeanMetric
from transformers import AutoTokenizer, T5EncoderModel

from lightning_modules.learning_rate import build_optimizer
from lightning_modules.logged_steps import StepMeans
from lightning_modules.settings import OptimizerSpec, ValidationSpec
from musicinfuser.diffusion.flow import interpolate, velocity_loss, velocity_target
from musicinfuser.diffusion.noise_levels import shifted
from musicinfuser.errors import UserError
from musicinfuser.keyed_random import generator, normal
from musicinfuser.latent_space import normalise, posterior_sample
from musicinfuser.memory.settings import MemorySettings
from musicinfuser.networks.music_mochi import MusicMochi
from musicinfuser.networks.zica import ZicaSpec
from musicinfuser.pretrained_sources import load_pretrained
from musicinfuser.throw_away import throw_away_mode
from small_world.parts.caption_features import caption_features
from small_world.parts.random_parts import write_pipeline_rest

if TYPE_CHECKING:
    from datamodules.batch import ClipBatch


class TextToVideoModule(L.LightningModule):
    """The base of the small world: no audio enters, captions are read by a T5 trained with it."""

    def __init__(
        self,
        pretrained: str,
        export_dir: str,
        optimizer: OptimizerSpec,
        validation: ValidationSpec = ValidationSpec(),  # noqa: B008 - frozen
        max_text_tokens: int = 256,
        train_text_encoder: bool = True,
        compile_blocks: bool = False,
        noise_shift: float = 1.0,
        seed: int = 42,
    ) -> None:
        """Set up; weights are read in `configure_model`.

        Args:
            pretrained: A folder with ``transformer``, ``text_encoder`` and ``tokenizer``: random
                parts for a fresh start, trained ones to go on.
            export_dir: Where the trained parts go, in diffusers' layout.
            optimizer: AdamW and its schedule.
            validation: Noise levels of validation.
            max_text_tokens: Tokens after which captions are cut.
            train_text_encoder: Off keeps it as it was read, so that clips encoded with it stay
                valid.
            compile_blocks: Let torch compile each kind of block, which takes a minute at the start
                and makes every step faster.
            noise_shift: Noise levels are drawn uniformly and moved towards 1 by so much (1: not at
                all; `shifted`). Colours of large areas show through almost all noise, so that only
                the last few per cent teach a model to take them from the text.
            seed: Seed of noise levels and noise.

        Raises:
            ValueError: A shift that is not positive.
        """
        super().__init__()
        if not noise_shift > 0:
            raise UserError(f"noise_shift is {noise_shift}; give 1 for uniform levels, or more.")
        self.noise_shift = noise_shift
        self.pretrained, self.export_dir = pretrained, export_dir
        self.optimizer_spec, self.validation = optimizer, validation
        self.max_text_tokens, self.seed = max_text_tokens, seed
        self.train_text_encoder, self.compile_blocks = train_text_encoder, compile_blocks
        self.model: MusicMochi | None = None
        self.step_means = StepMeans()
        self.losses = nn.ModuleList(MeanMetric() for _ in validation.sigmas)

    def configure_model(self) -> None:
        """Read transformer, text encoder and tokenizer, once."""
        if self.model is not None:
            return
        backbone = load_pretrained(MochiTransformer3DModel, self.pretrained, "transformer")
        self.model = MusicMochi(
            backbone,
            layers=[],
            zica=ZicaSpec(),
            lora=None,
            memory=MemorySettings(compile_blocks=self.compile_blocks),
        )
        self.model.requires_grad_(True)
        text_encoder = load_pretrained(T5EncoderModel, self.pretrained, "text_encoder")
        self.text_encoder = text_encoder.requires_grad_(self.train_text_encoder)
        self.tokenizer = load_pretrained(AutoTokenizer, self.pretrained, "tokenizer")

    def training_step(self, batch: "ClipBatch", batch_idx: int) -> Tensor:
        """The loss at noise levels drawn from 0 to 1."""
        u = [torch.rand((), generator=generator(self.seed, i, "sigma")) for i in batch.sample_index]
        sigma = shifted(torch.stack(u), self.noise_shift).to(self.device, non_blocking=True)
        loss = self.velocity_losses(batch, sigma, purpose="training").mean()
        self.step_means.log(self, {"train/loss": loss})
        return loss

    def validation_step(self, batch: "ClipBatch", batch_idx: int) -> None:
        """Losses at fixed noise levels."""
        for level, metric in zip(self.validation.sigmas, self.losses, strict=True):
            sigma = torch.full((len(batch),), level, device=self.device)
            metric(self.velocity_losses(batch, sigma, purpose=f"validation {level}"))

    def on_validation_epoch_end(self) -> None:
        """Log the losses."""
        values = []
        for name, metric in zip(self.validation.names, self.losses, strict=True):
            assert isinstance(metric, MeanMetric)
            values.append(metric.compute())
            self.log(f"val/loss_sigma_{name}", values[-1], sync_dist=True)
            metric.reset()
        self.log("val/loss", torch.stack(values).mean(), prog_bar=True, sync_dist=True)

    def velocity_losses(self, batch: "ClipBatch", sigma: Tensor, *, purpose: str) -> Tensor:
        """The squared error of the velocity per sample, ``(B,)``.

        Args:
            batch: Encoded clips; their stored text features are not used.
            sigma: ``(B,)`` noise levels.
            purpose: Separates the noise of training from that of validation.
        """
        assert self.model is not None
        noise = self._noise(batch, f"{purpose} noise")
        latents = posterior_sample(
            batch.latent_mean.float(),
            batch.latent_logvar.float(),
            self._noise(batch, f"{purpose} posterior"),
        )
        latents = normalise(latents, batch.latents_mean, batch.latents_std)
        text, lengths = caption_features(
            batch.captions,
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            max_tokens=self.max_text_tokens,
        )
        predicted = self.model(
            interpolate(latents, noise, sigma), text, (1 - sigma) * 1000, text_lengths=lengths
        )
        return velocity_loss(predicted, velocity_target(latents, noise))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW, warm-up and decay counted in optimizer steps."""
        return build_optimizer(self.parameters(), self.optimizer_spec, self.trainer.max_steps)

    def on_fit_end(self) -> None:
        """Write the trained parts, and what else a folder of Mochi's needs, if they are kept."""
        if not self.trainer.is_global_zero or throw_away_mode(self.trainer):
            return
        assert self.model is not None
        folder = Path(self.export_dir)
        # Where the start was read from is nobody's business later.
        self.model.backbone.register_to_config(_name_or_path="")
        self.model.backbone.save_pretrained(folder / "transformer")
        self.text_encoder.save_pretrained(folder / "text_encoder")
        self.tokenizer.save_pretrained(folder / "tokenizer")
        write_pipeline_rest(folder)

    def _noise(self, batch: "ClipBatch", purpose: str) -> Tensor:
        shape = batch.latent_mean.shape[1:]
        return normal(self.seed, batch.sample_index, purpose, shape, device=self.device)
