"""TextEncoderModule: trains a small `T5EncoderModel` to read captions, for the small world."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, T5EncoderModel

from musicinfuser.networks.text_tokens import warn_of_cut
from small_world.parts.small_part import SmallPartModule

if TYPE_CHECKING:
    from small_world.data.caption_dataset import CaptionBatch


class TextEncoderModule(SmallPartModule):
    """From the encoder's features, one can tell every attribute that a caption names.

    For each attribute, one learned query pools the features of a caption and a linear head tells
    the class. Queries and heads are thrown away afterwards. A text encoder that learns with the
    base alone tells genres apart and hardly any colours: pictures depend too little on them.
    """

    part = "text encoder"
    text_encoder: T5EncoderModel

    def __init__(
        self, *args: Any, num_classes: dict[str, int], max_text_tokens: int = 256, **kwargs: Any
    ) -> None:
        """Set up; all other arguments are those of `SmallPartModule`. Tokens are bytes.

        Args:
            *args: See there.
            num_classes: Classes of each attribute, in the order of the batches' labels.
            max_text_tokens: Tokens after which captions are cut.
            **kwargs: See there.
        """
        self.validated = [f"{name}_read" for name in num_classes]
        super().__init__(*args, **kwargs)
        self.num_classes, self.max_text_tokens = num_classes, max_text_tokens
        self.tokenizer = ByT5Tokenizer()

    def build(self) -> None:
        """The encoder, its queries and heads."""
        self.text_encoder = self.read_or_build(T5EncoderModel)
        width = self.text_encoder.config.d_model
        self.queries = nn.Linear(width, len(self.num_classes))
        self.heads = nn.ModuleList(nn.Linear(width, n) for n in self.num_classes.values())

    def logits(self, captions: tuple[str, ...]) -> list[Tensor]:
        """Logits ``(B, num_classes)`` of every attribute."""
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
        loss = torch.stack(losses).sum() / len(batch.captions)
        self.step_means.log(self, {"train/loss": loss})
        return loss

    def validation_step(self, batch: "CaptionBatch", batch_idx: int) -> None:
        """The share of captions that are read right, among those that name the attribute."""
        logits = self.logits(batch.captions)
        for metric, found, named in zip(self.means, logits, batch.named.T, strict=True):
            metric((found.argmax(dim=1) == named)[named >= 0].float())

    def export(self) -> None:
        """Write the encoder without its heads, and its tokenizer."""
        folder = Path(self.export_dir)
        self.text_encoder.save_pretrained(folder / "text_encoder")
        self.tokenizer.save_pretrained(folder / "tokenizer")


def caption_features(
    captions: Sequence[str],
    *,
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: T5EncoderModel,
    max_tokens: int,
) -> tuple[Tensor, tuple[int, ...]]:
    """Captions to features, with gradients, where the encoder is.

    Features ``(B, L, width)`` and valid tokens per caption; an empty caption has none, longer ones
    than ``max_tokens`` are cut, with a warning.
    """
    tokens = tokenizer(
        [caption or "-" for caption in captions],
        max_length=max_tokens,
        truncation=True,
        padding=True,
        return_tensors="pt",
    )
    if tokens.input_ids.shape[1] == max_tokens:
        for caption in captions:
            warn_of_cut(caption, tokenizer, max_tokens=max_tokens)
    counted = tokens.attention_mask.sum(dim=1).tolist()
    lengths = tuple(n if c else 0 for n, c in zip(counted, captions, strict=True))
    device = text_encoder.device
    features = text_encoder(tokens.input_ids.to(device), tokens.attention_mask.to(device))[0]
    return features, lengths
