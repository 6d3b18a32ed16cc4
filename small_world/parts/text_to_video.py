"""TextToVideoModule: trains a small Mochi, or another, on silent dancers, with its text encoder."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers import MochiTransformer3DModel
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from transformers import AutoTokenizer, T5EncoderModel

from lightning_modules.settings import ValidationSpec
from lightning_modules.velocity import velocity_losses
from musicinfuser.diffusion.noise_levels import shifted
from musicinfuser.errors import UserError
from musicinfuser.keyed_random import uniform
from musicinfuser.memory.settings import MemorySettings
from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec
from musicinfuser.pretrained_sources import load_pretrained
from musicinfuser.setting_checks import check_number
from small_world.parts.random_parts import write_pipeline_rest
from small_world.parts.small_part import SmallPartModule
from small_world.parts.text_encoder import caption_features

if TYPE_CHECKING:
    from datamodules.batch import ClipBatch


class TextToVideoModule(SmallPartModule):
    """The base of the small world: no audio enters, captions are read by a T5 trained with it."""

    part = "transformer"
    model: MusicModel

    def __init__(
        self,
        pretrained: str,
        export_dir: str,
        optimizer: OptimizerCallable,
        validation: ValidationSpec = ValidationSpec(),  # noqa: B008 - frozen
        max_text_tokens: int = 256,
        train_text_encoder: bool = True,
        compile_blocks: bool = False,
        noise_shift: float = 1.0,
        backbone: BackboneSpec | None = None,
        schedule: LRSchedulerCallable | None = None,
        seed: int = 42,
    ) -> None:
        """Set up; weights are read in `configure_model`.

        Args:
            pretrained: A folder with ``transformer``, ``text_encoder`` and ``tokenizer``: random
                parts for a fresh start, trained ones to go on.
            export_dir: Where the trained parts go, in diffusers' layout.
            optimizer: A torch optimizer by class path, with its arguments.
            validation: Noise levels of validation.
            max_text_tokens: Tokens after which captions are cut.
            train_text_encoder: Off keeps it as it was read, so that clips encoded with it stay
                valid.
            compile_blocks: Let torch compile each kind of block, which takes a minute at the start
                and makes every step faster.
            noise_shift: Noise levels are drawn uniformly and moved towards 1 by so much (1: not at
                all; `shifted`). Colours of large areas show through almost all noise, so that only
                the last few per cent teach a model to take them from the text.
            backbone: A transformer of another family, in fp32, in the place of the Mochi in
                ``pretrained``; what is exported then is no folder of a pipeline.
            schedule: Of the learning rate, likewise; null keeps the optimizer's own rate.
            seed: Seed of noise levels and noise.

        Raises:
            ValueError: A shift that is not positive, or a transformer that is not in fp32.
        """
        self.validated = [f"loss_sigma_{name}" for name in validation.names]
        super().__init__(optimizer, export_dir, pretrained=pretrained, schedule=schedule, seed=seed)
        check_number("noise_shift", noise_shift, above=0, hint=" (1: uniform levels)")
        if backbone is not None and backbone.dtype != "float32":
            raise UserError(
                f"model.backbone.dtype is {backbone.dtype}, but all its weights are trained here; "
                "set it to float32."
            )
        self.backbone = backbone
        self.noise_shift, self.validation = noise_shift, validation
        self.max_text_tokens, self.train_text_encoder = max_text_tokens, train_text_encoder
        self.compile_blocks = compile_blocks

    def build(self) -> None:
        """Read transformer, text encoder and tokenizer."""
        backbone = (
            self.read_or_build(MochiTransformer3DModel)
            if self.backbone is None
            else build_backbone(self.backbone)
        )
        self.model = MusicModel(
            backbone,
            layers=[],
            zica=ZicaSpec(),
            lora=None,
            memory=MemorySettings(compile_blocks=self.compile_blocks),
        )
        self.model.requires_grad_(True)
        assert self.pretrained is not None
        text_encoder = load_pretrained(T5EncoderModel, self.pretrained, "text_encoder")
        self.text_encoder = text_encoder.requires_grad_(self.train_text_encoder)
        self.tokenizer = load_pretrained(AutoTokenizer, self.pretrained, "tokenizer")

    def training_step(self, batch: "ClipBatch", batch_idx: int) -> Tensor:
        """The loss at noise levels drawn from 0 to 1."""
        u = uniform(self.seed, batch.sample_index, "sigma")
        sigma = shifted(u, self.noise_shift).to(self.device, non_blocking=True)
        loss = self.velocity_losses(batch, sigma, purpose="training").mean()
        self.step_means.log(self, {"train/loss": loss})
        return loss

    def validation_step(self, batch: "ClipBatch", batch_idx: int) -> None:
        """Losses at fixed noise levels."""
        for level, metric in zip(self.validation.sigmas, self.means, strict=True):
            sigma = torch.full((len(batch),), level, device=self.device)
            metric(self.velocity_losses(batch, sigma, purpose=f"validation {level}"))

    def on_validation_epoch_end(self) -> None:
        """Log the losses and their mean."""
        self.log("val/loss", self.log_means().mean(), prog_bar=True, sync_dist=True)

    def velocity_losses(self, batch: "ClipBatch", sigma: Tensor, *, purpose: str) -> Tensor:
        """`velocity.velocity_losses` with the texts of the captions; stored features are not used.

        Args:
            batch: Encoded clips.
            sigma: ``(B,)`` noise levels.
            purpose: Separates the noise of training from that of validation.
        """
        text, lengths = caption_features(
            batch.captions,
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            max_tokens=self.max_text_tokens,
        )
        batch = replace(batch, text=text, text_lengths=lengths)
        return velocity_losses(self.model, batch, sigma, seed=self.seed, purpose=purpose)

    def export(self) -> None:
        """Write the trained parts, and what else a folder of Mochi's needs, if it is one."""
        folder = Path(self.export_dir)
        # Not where the start was read from.
        self.model.backbone.register_to_config(_name_or_path="")
        self.model.backbone.save_pretrained(folder / "transformer")
        self.text_encoder.save_pretrained(folder / "text_encoder")
        self.tokenizer.save_pretrained(folder / "tokenizer")
        if self.backbone is None:
            write_pipeline_rest(folder)
