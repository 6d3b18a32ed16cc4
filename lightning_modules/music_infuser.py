"""MusicInfuserModule: the training, validation and generation steps of the paper."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.cli import LightningCLI, LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from datamodules.batch import ClipBatch
from datamodules.dance import DanceDataModule
from lightning_modules.checkpointing import (
    SETTINGS_KEY,
    architecture,
    check_agreement,
    check_checkpoint_origin,
    keep_adapters,
)
from lightning_modules.counterfactual import check_batch, counterfactual_term
from lightning_modules.encoding import check_encoders
from lightning_modules.given_weights import TRAINED_KEY, GivenWeights
from lightning_modules.logged_steps import StepMeans
from lightning_modules.long_clips import latent_checkpoint, window_bars
from lightning_modules.masked_loss import ask_for_masks, pixel_weights
from lightning_modules.optimization import (
    Optimization,
    comparable,
    own_states,
    plain_states,
    stored_optimization,
)
from lightning_modules.settings import PRECISIONS, ObjectiveSpec, ValidationSpec, check_same_family
from lightning_modules.sharding import (
    check_equal_validation,
    check_shardable,
    leave_frozen_to_each_process,
    shard_backbone,
)
from lightning_modules.validation import GAP_KEY, Validation
from lightning_modules.velocity import velocity_losses
from musicinfuser.adapters.initial import load_adapter
from musicinfuser.adapters.settings import FROZEN_KEY, frozen_names
from musicinfuser.clip_size import check_takes_image, geometry_of
from musicinfuser.diffusion.noise_levels import beta_quantile, shifted
from musicinfuser.errors import UserError
from musicinfuser.generation import GeneratedClip, SamplingSpec, generate
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.keyed_random import uniform
from musicinfuser.memory.settings import MemorySettings
from musicinfuser.networks.audio_encoder import mixed_layers
from musicinfuser.networks.audio_projector import AudioResampling
from musicinfuser.networks.backbone import BackboneSpec, backbone_config, build_backbone
from musicinfuser.networks.backbones import family_named
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.networks.layer_selection import LayerStrategy, select_layers
from musicinfuser.networks.lora import LoraSpec, is_lora_name
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.origin import Origin
from musicinfuser.networks.zica import ZicaSpec
from musicinfuser.pretrained_sources import MissingWeightsError


class MusicInfuserModule(L.LightningModule):
    """A frozen base, Mochi or another, conditioned on music by trained ZICA and LoRA."""

    def __init__(
        self,
        backbone: BackboneSpec,
        encoders: EncodersSpec,
        layers: list[int] | LayerStrategy,
        zica: ZicaSpec,
        lora: LoraSpec | None,
        optimizer: OptimizerCallable,
        sampling: SamplingSpec,
        schedule: LRSchedulerCallable | None = None,
        objective: ObjectiveSpec = ObjectiveSpec(),  # noqa: B008 - frozen
        validation: ValidationSpec = ValidationSpec(),  # noqa: B008 - frozen
        audio_width: int = 768,
        audio_resampling: AudioResampling = "nearest",
        memory: MemorySettings = MemorySettings("attention"),  # noqa: B008 - frozen
        seed: int = 42,
        init_adapter: str | None = None,
        shard_backbone: bool = False,
    ) -> None:
        """Set up; weights are read in `configure_model`.

        Args:
            backbone: The frozen transformer.
            encoders: VAE, T5 and wav2vec 2.0, for generation.
            layers: Blocks followed by ZICA: indices or a strategy.
            zica: Form of the audio adapters.
            lora: LoRA settings; null for none.
            optimizer: A torch optimizer by class path, with its arguments.
            sampling: Steps and guidance of generated clips.
            schedule: Of the learning rate, likewise; null keeps the optimizer's own rate.
            objective: What the loss compares.
            validation: Noise levels of validation.
            audio_width: Channels of the audio features (wav2vec 2.0 base: 768).
            audio_resampling: How audio features become one token per latent frame.
            memory: What is kept on the device, recomputed and compiled; no number changes.
            seed: Seed of adapters, noise levels and noise.
            init_adapter: Trained adapters that a fresh run starts from, at step 0 with a new
                optimizer; what `read_adapter` reads. A checkpoint that is resumed replaces them.
            shard_backbone: In a training on several devices, keep only a share of the backbone on
                each; for the DDP strategy. Every other job has it whole.
        """
        super().__init__()
        # Frozen weights are dropped from checkpoints; `check_agreement` asserts the rest.
        self.strict_loading = False
        self.backbone_spec, self.layers = backbone, layers
        self.zica_spec, self.lora_spec = zica, lora
        self.optimization = Optimization(optimizer, schedule)
        self.given_weights = GivenWeights()
        self.sampling, self.objective = sampling, objective
        self.step_means = StepMeans()
        self.audio_width, self.audio_resampling = audio_width, audio_resampling
        self.memory = memory
        if shard_backbone:
            check_shardable(backbone, memory)
        check_same_family(backbone, encoders=encoders, sampling=sampling)
        self.family = family_named(backbone.family)
        if share := objective.first_frame_probability:
            what = f"model.objective.first_frame_probability is {share:g}"
            check_takes_image(geometry_of(backbone.family), what)
        self.seed, self.init_adapter, self.shard_backbone = seed, init_adapter, shard_backbone
        self.encoders = Encoders(encoders)
        self.noise_beta = 1.0
        """beta of Beta(1, beta); uniform unless a callback anneals it."""
        self.model: MusicModel | None = None
        self.validation = Validation(validation, gives_first=objective.first_frame_probability > 0)

    def disagreements(self, data: Any, precision: Any) -> Iterator[str]:
        """What of a run's settings cannot go together, a sentence each; no weights are read.

        Args:
            data: The data module; where it has clips, they are to be the backbone's.
            precision: ``trainer.precision``.
        """
        if precision is not None and str(precision) not in PRECISIONS:
            kept = self.family.model_class._keep_in_fp32_modules
            whose = f"parts of {self.family.family}" if kept else "the trained weights"
            yield (
                f"trainer.precision is {precision}, but {whose} must stay in fp32; set bf16-mixed."
            )
        if self.objective.counterfactual.weight and self.layers == []:
            yield (
                "model.objective.counterfactual compares other music, but model.layers is empty, "
                "so there is no music; set its weight to 0."
            )
        geometry = getattr(data, "geometry", self.encoders.geometry)
        if geometry != self.encoders.geometry:
            yield (
                f"model.backbone.family is {self.family.family}, but data.family has clips of "
                f"{geometry.title}; give both the same."
            )
        shortest = min((frames for frames, *_ in getattr(data, "shapes", ())), default=None)
        if self.objective.first_frame_probability and shortest == 1:
            yield (
                "model.objective.first_frame_probability gives the first frame, but "
                "data.num_frames or a bucket's is 1, so nothing is left to learn; set one of them "
                "higher or to 0."
            )
        fps, asked = getattr(data, "fps", self.sampling.fps), self.sampling.fps
        if fps != asked:
            yield f"data.fps is {fps:g}, but model.sampling.fps is {asked:g}; give both the same."

    def before_run(self, cli: LightningCLI) -> None:
        """Refuse what cannot be before any weights are read.

        A precision or clips that do not suit the backbone, missing encoders, a cache that others
        made.
        """
        data = cli.datamodule
        for sentence in self.disagreements(data, cli.trainer.precision):
            raise UserError(sentence)
        if cli.subcommand == "fit":
            device, num_steps = cli.trainer.strategy.root_device, cli.trainer.max_steps
            self.optimization.check(device, num_steps=num_steps)
            self.optimization.check_accumulation(cli.trainer.accumulate_grad_batches)
        if cli.subcommand == "predict":
            self.encoders.fingerprints()
        elif isinstance(data, DanceDataModule):
            data.setup("validate")
            assert data.recipe is not None
            check_batch(self.objective.counterfactual, data.batch_size, data.training_pieces)
            check_encoders(data.cache_dir, data.recipe, self.encoders)
            if cli.subcommand == "fit" and (note := ask_for_masks(self.objective.mask, data)):
                rank_zero_info(note)

    def configure_model(self) -> None:
        """Read the backbone and add the adapters, once."""
        if self.model is None:
            # Unknown without its config: weights on the Hub. The model looks again.
            with suppress(MissingWeightsError):
                select_layers(self.layers, backbone_config(self.backbone_spec)["num_layers"])
            self.model = MusicModel(
                build_backbone(self.backbone_spec),
                layers=self.layers,
                zica=self.zica_spec,
                lora=self.lora_spec,
                audio_width=self.audio_width,
                audio_resampling=self.audio_resampling,
                audio_layers=mixed_layers(self.encoders.audio),
                audio_times=self.encoders.audio.times,
                fps=self.sampling.fps,
                memory=self.memory,
                seed=self.seed,
            )
            if self.init_adapter is not None:
                settings = self.model_settings()
                for note in load_adapter(self.init_adapter, self.model, settings, self.origin):
                    rank_zero_warn(note)
            if self.is_sharded:
                shard_backbone(self.trainer, self.model)
            leave_frozen_to_each_process(self)

    @property
    def is_sharded(self) -> bool:
        """Whether the processes share one backbone."""
        if self._trainer is None or not self.shard_backbone:
            return False
        return self._trainer.state.fn == "fit" and self._trainer.world_size > 1

    def on_train_start(self) -> None:
        """Check what a sharded backbone needs; note what the run trains with."""
        assert self.origin  # now, not when a first checkpoint is due within seconds
        if self.is_sharded:
            check_equal_validation(self.trainer)
        self.given_weights.put_back(self.trainer.optimizers)

    def on_validation_start(self) -> None:
        """Validate the weights that the optimizer gives."""
        self.given_weights.put_in(self.trainer.optimizers)

    def on_validation_end(self) -> None:
        """Go on from those that it trains."""
        self.given_weights.put_back(self.trainer.optimizers)

    @property
    def adapted(self) -> MusicModel:
        """The model; only after `configure_model`."""
        assert self.model is not None
        return self.model

    def trainable_names(self) -> set[str]:
        """Names of the adapters' parameters in this module's state dict."""
        return {f"model.{name}" for name in self.adapted.trainable_names()}

    def trained_parts(self) -> dict[str, list[torch.nn.Parameter]]:
        """The adapters' parameters by kind: those of ``zica``, ``audio_projector`` and ``lora``."""
        parts: dict[str, list[torch.nn.Parameter]] = {}
        for name, parameter in self.adapted.named_parameters():
            if parameter.requires_grad:
                part = "lora" if is_lora_name(name) else name.split(".")[0]
                parts.setdefault(part, []).append(parameter)
        return parts

    def training_step(self, batch: ClipBatch, batch_idx: int) -> dict[str, Tensor]:
        """The loss at noise levels drawn from Beta(1, beta) (section 4.2), moved as asked.

        Returns:
            ``loss``; for who watches also ``losses`` and ``sigma`` of each sample, ``(B,)``.
        """
        u = uniform(self.seed, batch.sample_index, "sigma")
        sigma = beta_quantile(u, self.noise_beta)
        if self.objective.noise_levels == "family":
            sigma = shifted(sigma, self.family.training_shift(self.sampling.shift))
        sigma = sigma.to(self.device, non_blocking=True)
        losses_of = partial(
            self.velocity_losses, batch, sigma, purpose="training",
            first_given=self._first_given(batch), weights=pixel_weights(self.objective.mask, batch),
        )  # fmt: skip
        losses = losses_of(audio=batch.audio)
        loss = losses.mean()
        values = {"train/loss": loss}
        if self.objective.counterfactual.weight:
            term, of_term = counterfactual_term(
                self.objective.counterfactual, batch, losses, losses_of, seed=self.seed,
                hop_seconds=self.encoders.audio.times.hop_seconds,
            )  # fmt: skip
            loss, values = loss + term, values | of_term
        self.step_means.log(self, values, prog_bar=True)
        return {"loss": loss, "losses": losses.detach(), "sigma": sigma}

    def on_validation_epoch_start(self) -> None:
        """Begin with no clip."""
        self.validation.start()

    def validation_step(self, batch: ClipBatch, batch_idx: int) -> None:
        """Losses at fixed noise levels; see `Validation`."""
        self.validation.update(batch, self.velocity_losses)

    def on_validation_epoch_end(self) -> None:
        """Log what the validation found; the progress bar shows the loss and the gap."""
        for name, value in self.validation.compute(self.trainer, seed=self.seed).items():
            is_shown = name in ("val/loss", "val/music_gap")
            self.log(name, value, prog_bar=is_shown, sync_dist=True)

    def predict_step(self, batch: list[GenerationRequest], batch_idx: int) -> list[GeneratedClip]:
        """Generate the clips of a batch of requests; songs in windows show how far each is."""
        with window_bars(self.trainer) as on_window:
            make = partial(
                generate, self.adapted, self.encoders, sampling=self.sampling, device=self.device,
                on_window=on_window,
            )  # fmt: skip
            return [make(r, checkpoint=latent_checkpoint(self, r)) for r in batch]

    def velocity_losses(
        self, batch: ClipBatch, sigma: Tensor, *, audio: Tensor | None, purpose: str,
        first_given: Tensor | None = None, weights: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """`velocity.velocity_losses` of the model, ``(B,)``, with the run's seed and objective.

        Args:
            batch: Encoded clips.
            sigma: ``(B,)`` noise levels.
            audio: ``(B, S, audio width)``; None for no music.
            purpose: Separates the noise of training from that of validation.
            first_given: ``(B,)`` bool, samples whose first latent frame is given.
            weights: ``(B, T, H, W)`` of each latent pixel's error.
        """
        return velocity_losses(
            self.adapted, batch, sigma, seed=self.seed, purpose=purpose, audio=audio,
            latent_space=self.objective.latent_space, first_given=first_given, weights=weights,
        )  # fmt: skip

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimizer over the adapters, its schedule counted in optimizer steps."""
        if not self.trainable_names():
            raise UserError("nothing to train: no ZICA layers and no LoRA; set model.layers.")
        return self.optimization.build(self.parameters(), self.trainer.max_steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the adapters; note which model they belong to."""
        keep_adapters(checkpoint, self.trainable_names())
        if "optimizer_states" in checkpoint:
            adapters = {name: p for name, p in self.named_parameters() if p.requires_grad}
            self.given_weights.keep_both(checkpoint, self.trainer.optimizers, adapters)
            checkpoint["optimizer_states"] = plain_states(checkpoint["optimizer_states"])
        checkpoint[SETTINGS_KEY] = {
            "model": self.model_settings(),
            **self.optimization.settings,
            **self.origin.stored(),
            FROZEN_KEY: frozen_names(self.backbone_spec, self.encoders.spec),
        }
        if self.validation.last_gap is not None:
            checkpoint[GAP_KEY] = self.validation.last_gap

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another model; to train on, also one of another optimizer.

        The optimizer's state brings its old rate along, so a new one would be ignored.
        """
        settings = {"model": self.model_settings()}
        stored = checkpoint.get(SETTINGS_KEY)
        if self.trainer.training and stored is not None:
            theirs = stored_optimization(stored)
            mine = comparable(self.optimization.settings, theirs)
            checkpoint[SETTINGS_KEY] = stored | comparable(theirs, mine)
            settings |= mine
        check_agreement(checkpoint, settings, self.trainable_names())
        check_checkpoint_origin(checkpoint, self.origin, trainer=self.trainer)
        if self.trainer.training:
            checkpoint["state_dict"] = checkpoint.pop(TRAINED_KEY, checkpoint["state_dict"])
            name = self.optimization.settings["optimizer"]["class_path"]
            checkpoint["optimizer_states"] = own_states(checkpoint["optimizer_states"], name)
        self.validation.last_gap = checkpoint.get(GAP_KEY)

    @cached_property
    def origin(self) -> Origin:
        """The encoders and the backbone that the adapters are trained with."""
        return Origin.of_parts(self.encoders.spec, self.backbone_spec)

    def model_settings(self) -> dict[str, Any]:
        """What a checkpoint must agree with: everything that decides shapes or their meaning."""
        return {
            "backbone": architecture(self.adapted),
            "layers": list(self.adapted.layers),
            "zica": asdict(self.zica_spec),
            "lora": self.lora_spec.stored() if self.lora_spec else None,
            "audio_width": self.audio_width,
            "audio_resampling": self.audio_resampling,
            **({"audio_layers": layers} if (layers := mixed_layers(self.encoders.audio)) else {}),
            **({"fps": fps} if (fps := self.sampling.fps) != self.encoders.geometry.fps else {}),
        }

    def _first_given(self, batch: ClipBatch) -> Tensor | None:
        """Samples whose first frame was drawn to be given, ``(B,)`` bool; None where no one's."""
        share = self.objective.first_frame_probability
        if not share:
            return None
        u = uniform(self.seed, batch.sample_index, "first frame")
        drawn = [number < share for number in u.tolist()]
        return torch.tensor(drawn).to(self.device, non_blocking=True) if any(drawn) else None
