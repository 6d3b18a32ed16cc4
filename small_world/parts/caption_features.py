"""Captions to features with a text encoder that may be in training."""

from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from musicinfuser.networks.text_tokens import warn_of_cut


def caption_features(
    captions: Sequence[str],
    *,
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: T5EncoderModel,
    max_tokens: int,
) -> tuple[Tensor, tuple[int, ...]]:
    """Read captions, with gradients.

    Args:
        captions: The texts.
        tokenizer: Goes with the encoder.
        text_encoder: Decides where the work is done.
        max_tokens: Longer captions are cut, with a word.

    Returns:
        Features ``(B, L, width)`` and valid tokens per caption; an empty caption has none.
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
