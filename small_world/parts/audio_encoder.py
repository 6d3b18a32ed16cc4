"""AudioEncoderModule: trains a small `Wav2Vec2Model` to hear beats, for the small world."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from lightning_modules.settings import OptimizerSpec
from musicinfuser import keyed_random
from small_world.parts.small_part import SmallPartModule

if TYPE_CHECKING:
    from small_world.data.music_dataset import MusicBatch

CYCLES = ("beat", "two_beats", "bar")


class AudioEncoderModule(SmallPartModule):
    """Every token of the encoder tells where in the beat, the pair of beats and the bar it lies.

    A linear head reads the three positions as points on circles; it is thrown away afterwards.
    Runs in fp32 only: features of this encoder change with precision.
    """

    def __init__(
        self,
        optimizer: OptimizerSpec,
        export_dir: str,
        config: str | None = None,
        pretrained: str | None = None,
        seed: int = 42,
    ) -> None:
        """Set up; give ``config`` for a fresh start or ``pretrained`` to go on from weights.

        Args:
            optimizer: AdamW and its schedule.
            export_dir: Where the trained encoder goes, as ``audio_encoder``.
            config: A ``config.json`` of `Wav2Vec2Model`.
            pretrained: A folder with ``audio_encoder`` in it.
            seed: Seed of the weights.
        """
        super().__init__(optimizer, export_dir, config=config, pretrained=pretrained, seed=seed)
        self.encoder: Wav2Vec2Model | None = None
        self.errors = nn.ModuleDict({name: MeanMetric() for name in CYCLES})

    def configure_model(self) -> None:
        """Build the encoder and its head, once."""
        if self.encoder is not None:
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(keyed_random.key(self.seed, 0, "audio encoder init"))
            encoder: Wav2Vec2Model = self.read_or_build(
                Wav2Vec2Model,
                "audio_encoder",
                lambda config: Wav2Vec2Model(Wav2Vec2Config(**config)),
            )
            self.encoder = encoder
            self.head = nn.Linear(encoder.config.hidden_size, 2 * len(CYCLES))

    def points(self, waveforms: Tensor) -> Tensor:
        """Where the head places each token: ``(B, num_tokens, 3, 2)``, cosine and sine.

        Args:
            waveforms: ``(B, num_samples)`` at 16 kHz.
        """
        assert self.encoder is not None
        features = self.encoder(normalise_loudness(waveforms)).last_hidden_state
        return self.head(features).unflatten(-1, (len(CYCLES), 2))

    def training_step(self, batch: "MusicBatch", batch_idx: int) -> Tensor:
        """Squared distance to the points on the three circles."""
        loss = (self.points(batch.waveforms) - on_circle(batch.meter)).square().mean()
        self.step_means.log(self, {"train/loss": loss})
        return loss

    def validation_step(self, batch: "MusicBatch", batch_idx: int) -> None:
        """How far off the tokens are, in shares of each cycle; 0.25 is chance."""
        distance = cycle_distance(self.points(batch.waveforms), batch.meter)
        for i, name in enumerate(CYCLES):
            self._error(name).update(distance[..., i])

    def on_validation_epoch_end(self) -> None:
        """Log the mean errors."""
        for name in CYCLES:
            self.log(
                f"val/{name}_error", self._error(name).compute(), prog_bar=True, sync_dist=True
            )
            self._error(name).reset()

    def export(self) -> None:
        """Write the encoder without its head, with the feature extractor that goes with it."""
        assert self.encoder is not None
        folder = Path(self.export_dir, "audio_encoder")
        self.encoder.save_pretrained(folder)
        Wav2Vec2FeatureExtractor().save_pretrained(folder)

    def _error(self, name: str) -> MeanMetric:
        metric = self.errors[name]
        assert isinstance(metric, MeanMetric)
        return metric


def normalise_loudness(waveforms: Tensor) -> Tensor:
    """Zero mean and unit variance per waveform, as wav2vec 2.0's feature extractor does."""
    mean = waveforms.mean(dim=-1, keepdim=True)
    variance = waveforms.var(dim=-1, keepdim=True, correction=0)
    return (waveforms - mean) / (variance + 1e-7).sqrt()


def on_circle(meter: Tensor) -> Tensor:
    """Positions in [0, 1) ``(...)`` as points ``(..., 2)``: cosine and sine."""
    angle = 2 * math.pi * meter
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def cycle_distance(points: Tensor, meter: Tensor) -> Tensor:
    """Distance along the circle in turns, 0 to 0.5, of points ``(..., 2)`` to positions."""
    angle = torch.atan2(points[..., 1], points[..., 0]) / (2 * math.pi)
    turns = (angle - meter).abs() % 1.0
    return torch.minimum(turns, 1 - turns)
