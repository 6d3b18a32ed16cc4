"""Scales and gates of Mochi's blocks, all computed before the first of them.

They depend on noise level and caption alone, yet the layers that give them are 27 % of Mochi's
weights. Computed at once they leave the blocks, so those layers may stay in the host's memory.

Shape legend: B batch, N tokens of a stream, D width of a stream, W width of the condition.
"""

from collections.abc import Iterable
from typing import Any, Self

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_mochi import (
    MochiLayerNormContinuous,
    MochiRMSNormZero,
)
from torch import Tensor, nn

from musicinfuser.memory.host_memory import kept_on_cpu, own_pages, page_lock

Modulations = tuple[Tensor, Tensor]
"""Of a block's visual and text stream: ``(B, 4 D)``; of the last block's text ``(B, D)``."""


class PrecomputedModulation(nn.Module):
    """A block's first norm, with scale and gate computed outside the block; diffusers' names."""

    layer_name = ""

    def __init__(self, replaced: nn.Module, *, stream: int) -> None:
        """Take over the parts of diffusers' norm.

        Args:
            replaced: What stood in its place.
            stream: Which of the block's `Modulations` is its own: 0 visual, 1 text.
        """
        super().__init__()
        self.stream = stream
        self.is_on_host = False
        # As long as this tensor lives, its memory is page-locked.
        self._locked: Tensor | None = None
        self.norm = replaced.get_submodule("norm")
        self.add_module(self.layer_name, replaced.get_submodule(self.layer_name))

    @property
    def layer(self) -> nn.Linear:
        """The layer that gives the modulation."""
        layer = self.get_submodule(self.layer_name)
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


class PrecomputedRMSNormZero(PrecomputedModulation):
    """`MochiRMSNormZero` without its linear layer."""

    layer_name = "linear"

    def forward(
        self, hidden_states: Tensor, modulations: Modulations
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalise ``(B, N, D)``; also a gate, a scale and a gate ``(B, D)`` for later."""
        scale, gate, mlp_scale, mlp_gate = modulations[self.stream].chunk(4, dim=1)
        normed = self.norm(hidden_states.to(torch.float32))
        normed = normed * (1 + scale[:, None].to(torch.float32))
        return normed.to(hidden_states.dtype), gate, mlp_scale, mlp_gate


class PrecomputedLayerNorm(PrecomputedModulation):
    """`MochiLayerNormContinuous` without its linear layer: the last block's text."""

    layer_name = "linear_1"

    def forward(self, x: Tensor, modulations: Modulations) -> Tensor:
        """Normalise ``(B, N, D)``."""
        scale = modulations[self.stream]
        return self.norm(x, (1 + scale.unsqueeze(1).to(torch.float32)))


def precomputed(norm: nn.Module, *, stream: int) -> PrecomputedModulation:
    """A first norm of diffusers' whose modulation is computed outside."""
    if isinstance(norm, MochiLayerNormContinuous):
        return PrecomputedLayerNorm(norm, stream=stream)
    assert isinstance(norm, MochiRMSNormZero)
    return PrecomputedRMSNormZero(norm, stream=stream)


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
    condition = F.silu(temb)
    found = []
    for block in blocks:
        norms = (block.norm1, block.norm1_context)
        assert isinstance(norms[0], PrecomputedModulation) and isinstance(
            norms[1], PrecomputedModulation
        )
        is_last = isinstance(norms[1], PrecomputedLayerNorm)
        text_condition = condition.to(text_dtype) if is_last else condition
        found.append((norms[0].modulation(condition), norms[1].modulation(text_condition)))
    return found


def modulation_layers(block: nn.Module) -> list[nn.Module]:
    """The two layers of a block that run before the blocks do."""
    return [
        m.layer for m in (block.norm1, block.norm1_context) if isinstance(m, PrecomputedModulation)
    ]
