"""ClipBatch: the one type of training batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ClipItem:
    """One encoded clip, as a dataset returns it: a row of `ClipBatch`, with its text unpadded."""

    sample_index: int
    clip_id: str
    latent_mean: Tensor
    latent_logvar: Tensor
    audio: Tensor
    other_audio: Tensor | None
    text: Tensor
    latents_mean: Tensor
    latents_std: Tensor
    caption: str = ""
    music_weight: float | None = None
    mask: Tensor | None = None
    music: str = ""


@dataclass(frozen=True, eq=False)
class ClipBatch:
    """Encoded clips, stacked; text right-padded with zeros."""

    sample_index: tuple[int, ...]
    """Global index of each sample in the run (training), the key of its random draws, or of each
    clip (validation)."""
    clip_ids: tuple[str, ...]
    text_lengths: tuple[int, ...]
    """Valid text tokens per sample, 0 if the caption was dropped; on the host, so that nothing
    waits for the device."""
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
    """``(C,)`` of the VAE."""
    latents_std: Tensor
    """``(C,)`` of the VAE."""
    captions: tuple[str, ...] = ()
    """What the texts say; empty where the caption was dropped."""
    music_weight: Tensor | None = None
    """``(B,)`` fp32, 0 where the music was dropped and else 1; None where no music ever is."""
    mask: Tensor | None = None
    """``(B, T, H, W)`` fp32 in [0, 1], where the dancers are; None where no masks are read."""
    music: tuple[str, ...] = ()
    """What tells the pieces of music apart: AIST's code, else the file that a clip is of."""

    def __len__(self) -> int:
        """Samples in the batch."""
        return len(self.sample_index)

    def to(self, device: torch.device, non_blocking: bool = False) -> "ClipBatch":
        """A copy on ``device``."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "ClipBatch":
        """A copy in pinned memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "ClipBatch":
        changed: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **changed)


def collate(items: Sequence[ClipItem]) -> ClipBatch:
    """Stack clips; everything but the text has one size within a bucket."""
    lengths = tuple(len(item.text) for item in items)
    text = items[0].text.new_zeros(len(items), max(lengths), items[0].text.shape[1])
    for row, item in enumerate(items):
        text[row, : lengths[row]] = item.text
    others = [item.other_audio for item in items if item.other_audio is not None]
    weights = [item.music_weight for item in items if item.music_weight is not None]
    masks = [item.mask for item in items if item.mask is not None]
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
        music_weight=torch.tensor(weights) if weights else None,
        mask=torch.stack(masks) if masks else None,
        music=tuple(item.music for item in items),
    )
