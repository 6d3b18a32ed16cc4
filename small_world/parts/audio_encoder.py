"""AudioEncoderModule: trains a small audio encoder to find beats, for the small world."""

import copy
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    Wav2Vec2BertForAudioFrameClassification,
    Wav2Vec2BertModel,
    Wav2Vec2ForAudioFrameClassification,
    Wav2Vec2Model,
)

from musicinfuser.errors import UserError
from musicinfuser.label_files import read_json
from musicinfuser.networks.weights_fingerprint import mapped_weights
from small_world.parts.small_part import SmallPartModule

if TYPE_CHECKING:
    from small_world.data.music_dataset import MusicBatch

CYCLES = ("beat", "two_beats", "bar")
KINDS = {
    "wav2vec2": (Wav2Vec2Model, Wav2Vec2ForAudioFrameClassification),
    "wav2vec2-bert": (Wav2Vec2BertModel, Wav2Vec2BertForAudioFrameClassification),
}
"""Classes of an encoder without and with its head."""


class AudioEncoderModule(SmallPartModule):
    """Every token of the encoder tells where in the beat, the pair of beats and the bar it lies.

    A linear head reads the three positions as points on circles. Both are exported, as one of
    transformers' audio frame classifiers: ``encoders.audio_layer: beats`` takes what the head says.
    Runs in fp32 only: features of this encoder change with precision. ``config.json`` names its
    kind in ``model_type``; the feature extractor's ``preprocessor_config.json`` lies beside it.
    """

    part = "audio encoder"
    validated = tuple(f"{name}_error" for name in CYCLES)
    encoder: PreTrainedModel

    def __init__(self, *arguments: Any, train_encoder: bool = True, **options: Any) -> None:
        """Set up as every part; arguments and errors of `SmallPartModule`.

        Args:
            *arguments: Its own.
            train_encoder: False trains the head alone.
            **options: Its own.
        """
        super().__init__(*arguments, **options)
        self.train_encoder = train_encoder

    def build(self) -> None:
        """The encoder and its head."""
        config = self.config or f"{self.pretrained}/audio_encoder/config.json"
        self.folder = Path(str(config)).parent
        kind = read_json(self.folder / "config.json").get("model_type", "wav2vec2")
        encoder, self.with_head = KINDS[kind]
        self.encoder = self.read_or_build(encoder).requires_grad_(self.train_encoder)
        self.head = nn.Linear(self.encoder.config.hidden_size, 2 * len(CYCLES))
        if self.pretrained is not None:
            known = mapped_weights(self.folder)
            if "classifier.weight" in known:
                names = self.head.state_dict()
                self.head.load_state_dict({name: known[f"classifier.{name}"] for name in names})

    def points(self, features: Tensor | None) -> Tensor:
        """Where the head places each token: ``(B, num_tokens, 3, 2)``, cosine and sine.

        ``features`` are what the encoder's feature extractor makes of a batch.
        """
        if features is None:
            raise UserError("the audio encoder's training needs data.extractor.")
        hidden = self.encoder(features).last_hidden_state
        return self.head(hidden).unflatten(-1, (len(CYCLES), 2))

    def training_step(self, batch: "MusicBatch", batch_idx: int) -> Tensor:
        """Squared distance to the points on the three circles, where the music has them."""
        known = ~batch.meter.isnan()
        points = on_circle(batch.meter.nan_to_num())
        loss = (self.points(batch.features) - points)[known].square().mean()
        self.step_means.log(self, {"train/loss": loss})
        return loss

    def validation_step(self, batch: "MusicBatch", batch_idx: int) -> None:
        """How far off the tokens are, in shares of each cycle; 0.25 is chance."""
        distance = cycle_distance(self.points(batch.features), batch.meter)
        for metric, of_cycle in zip(self.means, distance.unbind(-1), strict=True):
            metric(of_cycle[~of_cycle.isnan()])

    def export(self) -> None:
        """Write the encoder with its head, and the feature extractor that goes with it."""
        folder = Path(self.export_dir, "audio_encoder")
        config = copy.deepcopy(self.encoder.config)
        config.num_labels = self.head.out_features
        whole = self.with_head(config)
        getattr(whole, whole.base_model_prefix).load_state_dict(self.encoder.state_dict())
        whole.classifier.load_state_dict(self.head.state_dict())
        whole.save_pretrained(folder)
        name = "preprocessor_config.json"
        if (self.folder / name).resolve() != (folder / name).resolve():
            shutil.copy(self.folder / name, folder / name)


def on_circle(meter: Tensor) -> Tensor:
    """Positions in [0, 1) ``(...)`` as points ``(..., 2)``: cosine and sine."""
    angle = 2 * math.pi * meter
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def cycle_distance(points: Tensor, meter: Tensor) -> Tensor:
    """Distance along the circle in turns, 0 to 0.5, of points ``(..., 2)`` to positions."""
    angle = torch.atan2(points[..., 1], points[..., 0]) / (2 * math.pi)
    turns = (angle - meter).abs() % 1.0
    return torch.minimum(turns, 1 - turns)
