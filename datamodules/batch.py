"""ClipBatch: the one type of training batch."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ClipItem:
    """One encoded clip, as a dataset returns it."""

    sample_index: int
    """Global index of the sample in the run (training) or of the clip (validation)."""
    clip_id: str
    latent_mean: Tensor
    """``(C, T, H, W)``, VAE units."""
    latent_logvar: Tensor
    """``(C, T, H, W)``."""
    audio: Tensor
    """``(S, audio width)``."""
    other_audio: Tensor | None
    """``(S, audio width)`` of a clip with other music; validation only."""
    text: Tensor
    """``(L, text width)``; no rows if the caption was dropped."""
    latents_mean: Tensor
    """``(C,)`` of the VAE."""
    latents_std: Tensor
    """``(C,)`` of the VAE."""
    caption: str = ""
    """What ``text`` says; empty if the caption was dropped."""


@dataclass(frozen=True, eq=False)
class ClipBatch:
    """Encoded clips, stacked; text right-padded with zeros."""

    sample_index: tuple[int, ...]
    """Keys of every random draw for the samples."""
    clip_ids: tuple[str, ...]
    text_lengths: tuple[int, ...]
    """Valid text tokens per sample; on the host, so that nothing waits for the device."""
    latent_mean: Tensor
    """``(B, C, T, H, W)``, VAE units."""
    latent_logvar: Tensor
    """``(B, C, T, H, W)``."""
    audio: Tensor
    """``(B, S, audio width)`` fp32."""
    other_audio: Tensor | None
    """``(B, S, audio width)`` of clips with other music; validation only."""
    text: Tensor
    """``(B, max(text_lengths), text width)``."""
    latents_mean: Tensor
    """``(C,)``."""
    latents_std: Tensor
    """``(C,)``."""
    captions: tuple[str, ...] = ()
    """What the texts say; empty where the caption was dropped."""

    def __len__(self) -> int:
        """Samples in the batch."""
        return len(self.sample_index)

    def to(self, device: torch.device, non_blocking: bool = False) -> "ClipBatch":
        """A copy on ``device``."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "ClipBatch":
        """A copy in pinned memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change) -> "ClipBatch":  # noqa: ANN001 - Tensor -> Tensor
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors = {name: change(v) for name, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **tensors)


def collate(items: Sequence[ClipItem]) -> ClipBatch:
    """Stack clips; everything but the text has one size within a bucket."""
    lengths = tuple(len(item.text) for item in items)
    text = items[0].text.new_zeros(len(items), max(lengths), items[0].text.shape[1])
    for row, item in enumerate(items):
        text[row, : lengths[row]] = item.text
    others = [item.other_audio for item in items if item.other_audio is not None]
    return ClipBatch(
        sample_index=tuple(item.sample_index for item in items),
        clip_ids=tuple(item.clip_id for item in items),
        text_lengths=lengths,
        latent_mean=torch.stack([item.latent_mean for item in items]),
        latent_logvar=torch.stack([item.latent_logvar for item in items]),
        audio=torch.stack([item.audio for item in items]),
        other_audio=torch.stack(others) if others else None,
        text=text,
        latents_mean=items[0].latents_mean,
        latents_std=items[0].latents_std,
        captions=tuple(item.caption for item in items),
    )
