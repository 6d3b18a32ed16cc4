"""Captions of different lengths in one batch, and captions that are too long."""

import warnings
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor

MAX_TEXT_TOKENS = 256
"""Tokens of a text that Mochi reads."""


def cut_note(text: str, tokenizer: Any, *, max_tokens: int = MAX_TEXT_TOKENS) -> str | None:
    """How much of a text is not read, and where it ends, in one sentence; None if it is read whole.

    Args:
        text: A caption or prompt.
        tokenizer: Of the text encoder.
        max_tokens: What is read of it.
    """
    num_tokens = len(tokenizer(text, verbose=False).input_ids)
    if num_tokens <= max_tokens:
        return None
    read = tokenizer(text, max_length=max_tokens, truncation=True, verbose=False).input_ids
    end = tokenizer.decode(read, skip_special_tokens=True)[-30:]
    return (
        f"{shorten(text, 60)!r} has {num_tokens} tokens, of which the text encoder reads "
        f"{max_tokens}: the last {num_tokens - max_tokens} are cut, after {end!r}."
    )


def warn_of_cut(text: str, tokenizer: Any, *, max_tokens: int = MAX_TEXT_TOKENS) -> None:
    """Say what `cut_note` says as a warning, which Python shows once for each text."""
    if sentence := cut_note(text, tokenizer, max_tokens=max_tokens):
        warnings.warn(sentence, stacklevel=2)


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
