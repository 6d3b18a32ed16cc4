"""TextEncoderModule: trains a small `T5EncoderModel` to read captions, for the small world."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

from lightning_modules.settings import OptimizerSpec
from musicinfuser import keyed_random
from small_world.parts.caption_features import caption_features
from small_world.parts.small_part import SmallPartModule

if TYPE_CHECKING:
    from small_world.data.caption_dataset import CaptionBatch


class TextEncoderModule(SmallPartModule):
    """From the encoder's features, one can tell every attribute that a caption names.

    For each attribute, one learned query pools the features of a caption and a linear head tells
    the class. Queries and heads are thrown away afterwards. A text encoder that learns with the
    base alone tells genres apart and hardly any colours, because pictures punish it too little.
    """

    def __init__(
        self,
        optimizer: OptimizerSpec,
        export_dir: str,
        num_classes: dict[str, int],
        config: str | None = None,
        pretrained: str | None = None,
        max_text_tokens: int = 256,
        seed: int = 42,
    ) -> None:
        """Set up; give ``config`` for a fresh start or ``pretrained`` to go on from weights.

        Args:
            optimizer: AdamW and its schedule.
            export_dir: Where ``text_encoder`` and ``tokenizer`` go.
            num_classes: Classes of each attribute, in the order of the batches' labels.
            config: A ``config.json`` of `T5EncoderModel`; tokens are bytes.
            pretrained: A folder with ``text_encoder`` in it.
            max_text_tokens: Tokens after which captions are cut.
            seed: Seed of the weights.
        """
        super().__init__(optimizer, export_dir, config=config, pretrained=pretrained, seed=seed)
        self.num_classes, self.max_text_tokens = num_classes, max_text_tokens
        self.text_encoder: T5EncoderModel | None = None
        self.tokenizer = ByT5Tokenizer()
        self.shares = nn.ModuleDict({name: MeanMetric() for name in num_classes})

    def configure_model(self) -> None:
        """Build the encoder, its queries and heads, once."""
        if self.text_encoder is not None:
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(keyed_random.key(self.seed, 0, "text encoder init"))
            encoder: T5EncoderModel = self.read_or_build(
                T5EncoderModel, "text_encoder", lambda config: T5EncoderModel(T5Config(**config))
            )
            width = encoder.config.d_model
            self.text_encoder = encoder
            self.queries = nn.Linear(width, len(self.num_classes))
            self.heads = nn.ModuleList(nn.Linear(width, n) for n in self.num_classes.values())

    def logits(self, captions: tuple[str, ...]) -> list[Tensor]:
        """Logits ``(B, num_classes)`` of every attribute."""
        assert self.text_encoder is not None
        features, lengths = caption_features(
            captions,
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            max_tokens=self.max_text_tokens,
        )
        positions = torch.arange(features.shape[1], device=features.device)
        padding = positions >= torch.tensor(lengths, device=features.device)[:, None]
        scores = self.queries(features).masked_fill(padding[..., None], -torch.inf)
        pooled = torch.einsum("bla,blw->abw", scores.softmax(dim=1), features)
        return [head(rows) for head, rows in zip(self.heads, pooled, strict=True)]

    def training_step(self, batch: "CaptionBatch", batch_idx: int) -> Tensor:
        """Cross-entropy of what each caption names, summed over attributes."""
        losses = [
            F.cross_entropy(logits, named, reduction="sum")
            for logits, named in zip(self.logits(batch.captions), batch.named.T, strict=True)
        ]
        loss = torch.stack(losses).sum() / len(batch)
        self.step_means.log(self, {"train/loss": loss})
        return loss

    def validation_step(self, batch: "CaptionBatch", batch_idx: int) -> None:
        """The share of captions that are read right, among those that name the attribute."""
        for name, logits, named in zip(
            self.num_classes, self.logits(batch.captions), batch.named.T, strict=True
        ):
            is_named = named >= 0
            self._share(name).update((logits.argmax(dim=1) == named)[is_named].float())

    def on_validation_epoch_end(self) -> None:
        """Log the shares."""
        for name in self.num_classes:
            self.log(f"val/{name}_read", self._share(name).compute(), prog_bar=True, sync_dist=True)
            self._share(name).reset()

    def export(self) -> None:
        """Write the encoder without its heads, and its tokenizer."""
        assert self.text_encoder is not None
        folder = Path(self.export_dir)
        self.text_encoder.save_pretrained(folder / "text_encoder")
        self.tokenizer.save_pretrained(folder / "tokenizer")

    def _share(self, name: str) -> MeanMetric:
        metric = self.shares[name]
        assert isinstance(metric, MeanMetric)
        return metric
