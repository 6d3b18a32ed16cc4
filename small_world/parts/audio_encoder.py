"""AudioEncoderModule: trains a small `Wav2Vec2Model` to find beats, for the small world."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Model

from small_world.parts.small_part import SmallPartModule

if TYPE_CHECKING:
    from small_world.data.music_dataset import MusicBatch

CYCLES = ("beat", "two_beats", "bar")


class AudioEncoderModule(SmallPartModule):
    """Every token of the encoder tells where in the beat, the pair of beats and the bar it lies.

    A linear head reads the three positions as points on circles; it is thrown away afterwards.
    Runs in fp32 only: features of this encoder change with precision.
    """

    part = "audio encoder"
    validated = tuple(f"{name}_error" for name in CYCLES)
    encoder: Wav2Vec2Model

    def build(self) -> None:
        """The encoder and its head."""
        self.encoder = self.read_or_build(Wav2Vec2Model)
        self.head = nn.Linear(self.encoder.config.hidden_size, 2 * len(CYCLES))

    def points(self, waveforms: Tensor) -> Tensor:
        """Where the head places each token: ``(B, num_tokens, 3, 2)``, cosine and sine.

        Takes waveforms, ``(B, num_samples)`` at 16 kHz.
        """
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
        for metric, of_cycle in zip(self.means, distance.unbind(-1), strict=True):
            metric(of_cycle)

    def export(self) -> None:
        """Write the encoder without its head, with the feature extractor that goes with it."""
        folder = Path(self.export_dir, "audio_encoder")
        self.encoder.save_pretrained(folder)
        Wav2Vec2FeatureExtractor().save_pretrained(folder)


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
