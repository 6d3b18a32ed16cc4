"""Captions of different lengths in one batch."""

import torch
from torch import Tensor


def trim_text(
    text: Tensor, mask: Tensor | None, lengths: tuple[int, ...] | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Text ``(B, L, ...)``, its mask ``(B, L)`` for the pooler, and the mask blocks still need."""
    if (mask is None) == (lengths is None):
        raise ValueError("give exactly one of `encoder_attention_mask` and `text_lengths`.")
    if mask is not None:
        return text, mask.bool(), mask.bool()
    assert lengths is not None
    if len(lengths) != len(text) or not all(0 <= n <= text.shape[1] for n in lengths):
        raise ValueError(f"text_lengths {lengths} do not fit text of shape {tuple(text.shape)}.")
    longest = max(lengths)
    host_mask = torch.arange(longest, device="cpu") < torch.tensor(lengths, device="cpu")[:, None]
    device_mask = host_mask.to(text.device, non_blocking=True)
    is_ragged = min(lengths) != longest
    return text[:, :longest], device_mask, device_mask if is_ragged else None
