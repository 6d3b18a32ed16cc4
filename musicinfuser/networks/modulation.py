"""Scales and gates of Mochi's blocks, all computed before the first of them.

They depend on noise level and caption alone, yet the layers that give them are 27 % of Mochi's
weights. Computed at once they leave the blocks, so those layers may stay in the host's memory.

Shape legend: B batch, N tokens of a stream, D width of a stream, W width of the condition.
"""

from collections.abc import Iterable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicinfuser.memory.host_memory import kept_on_cpu, own_pages, page_lock

Modulations = tuple[Tensor, Tensor]
"""Of a block's visual and text stream: ``(B, 4 D)``; of the last block's text ``(B, D)``."""


class PrecomputedModulation(nn.Module):
    """A block's first norm, with scales and gates computed outside; names are diffusers'."""

    def __init__(self, replaced: nn.Module, *, stream: int) -> None:
        """Take over the parts of diffusers' norm.

        Args:
            replaced: `MochiRMSNormZero`, or of the last block's text `MochiLayerNormContinuous`.
            stream: Which of the block's `Modulations` is its own: 0 visual, 1 text.
        """
        from diffusers.models.transformers.transformer_mochi import MochiLayerNormContinuous

        super().__init__()
        self.stream, self.is_on_host = stream, False
        self.is_last_text = isinstance(replaced, MochiLayerNormContinuous)
        # As long as this tensor lives, its memory is page-locked.
        self._locked: Tensor | None = None
        self._layer_name = "linear_1" if self.is_last_text else "linear"
        self.norm = replaced.get_submodule("norm")
        self.add_module(self._layer_name, replaced.get_submodule(self._layer_name))

    def forward(self, x: Tensor, modulations: Modulations) -> Tensor | tuple[Tensor, ...]:
        """Normalise ``(B, N, D)``; but for the last text also gate, scale and gate ``(B, D)``."""
        modulation = modulations[self.stream]
        if self.is_last_text:
            return self.norm(x, (1 + modulation.unsqueeze(1).to(torch.float32)))
        scale, gate, mlp_scale, mlp_gate = modulation.chunk(4, dim=1)
        normed = self.norm(x.to(torch.float32)) * (1 + scale[:, None].to(torch.float32))
        return normed.to(x.dtype), gate, mlp_scale, mlp_gate

    @property
    def layer(self) -> nn.Linear:
        """The layer that gives the modulation."""
        layer = self.get_submodule(self._layer_name)
        assert isinstance(layer, nn.Linear)
        return layer

    def keep_on_host(self) -> None:
        """Hold the weight in the host's memory from now on, wherever the module is moved."""
        self.is_on_host = True
        if not self.layer.weight.is_meta:
            self.layer.weight.data = self.layer.weight.data.cpu()

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Move and cast as modules do, but for a weight that is kept on the host."""
        if not self.is_on_host:
            return super()._apply(fn, recurse)
        weight = self.layer.get_parameter("weight")
        with kept_on_cpu([] if weight.is_meta else [weight]):
            super()._apply(fn, recurse)
        if weight.is_meta:
            self.keep_on_host()  # it may have got memory just now
        else:
            self.layer.weight = weight
        return self

    def modulation(self, condition: Tensor) -> Tensor:
        """The modulation for a condition ``(B, W)``, on the condition's device."""
        if not self.is_on_host:
            return self.layer(condition)
        if condition.is_cuda and self._locked is None:
            self._locked = _in_own_pages(self.layer.weight.data)
            page_lock(self._locked)
            self.layer.weight.data = self._locked
        weight = self.layer.weight.to(condition.device, non_blocking=True)
        return F.linear(condition, weight, self.layer.bias)


def _in_own_pages(tensor: Tensor) -> Tensor:
    """A copy that shares its pages of memory with nothing else."""
    return own_pages(tensor.nbytes).view(tensor.dtype).view(tensor.shape).copy_(tensor)


def compute_modulations(
    blocks: Iterable[nn.Module], temb: Tensor, *, text_dtype: torch.dtype
) -> list[Modulations]:
    """The modulations of all blocks.

    Weights on the host are copied to the condition's device one layer at a time, and dropped there.

    Args:
        blocks: Whose first norms are `PrecomputedModulation`.
        temb: ``(B, W)`` embedded noise level and caption.
        text_dtype: Of the text stream; diffusers casts the last block's condition to it.
    """
    condition, found = F.silu(temb), []
    for visual, text in map(_norms, blocks):
        text_condition = condition.to(text_dtype) if text.is_last_text else condition
        found.append((visual.modulation(condition), text.modulation(text_condition)))
    return found


def modulation_layers(block: nn.Module) -> list[nn.Module]:
    """The two layers of a block that run before the blocks do."""
    return [norm.layer for norm in _norms(block)]


def _norms(block: nn.Module) -> tuple[PrecomputedModulation, PrecomputedModulation]:
    visual, text = block.norm1, block.norm1_context
    assert isinstance(visual, PrecomputedModulation) and isinstance(text, PrecomputedModulation)
    return visual, text
