"""Features of prompts as the sampler takes them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from musicinfuser.generation import Conditions


def zeroed_and_repeated(
    features: Tensor, mask: Tensor, zeroed: Sequence[bool], num_videos: int
) -> tuple[Tensor, Tensor]:
    """Features ``(B, L, width)`` and mask without the zeroed prompts, for every video of each.

    Args:
        features: Of T5.
        mask: ``(B, L)``, True = valid.
        zeroed: Which prompts have no valid token.
        num_videos: Of each prompt; they follow each other.
    """
    kept = ~torch.tensor(zeroed).to(features.device)
    features, mask = features * kept[:, None, None], mask & kept[:, None]
    # diffusers would repeat masks in another order than features.
    return (
        features.repeat_interleave(num_videos, dim=0),
        mask.repeat_interleave(num_videos, dim=0),
    )


def text_conditions(
    text: Tensor, mask: Tensor, negative: Tensor | None, negative_mask: Tensor | None
) -> Conditions:
    """Features and lengths without the padding that no prompt of the batch needs.

    Args:
        text: ``(B, L, width)`` right-padded.
        mask: ``(B, L)``, nonzero = valid.
        negative: As ``text``; None where the negative prompts are not used.
        negative_mask: As ``mask``.
    """
    if negative is None or negative_mask is None:
        negative, negative_mask = text[:, :0], mask[:, :0]
    (text, lengths), (negative, negative_lengths) = (
        _cut(features, valid.bool())
        for features, valid in ((text, mask), (negative, negative_mask))
    )
    return Conditions(text, negative, None, lengths, negative_lengths)


def _cut(features: Tensor, mask: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    lengths = tuple(mask.sum(dim=1).tolist())
    return features[:, : max(lengths)], lengths
