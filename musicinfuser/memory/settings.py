"""The group of options ``memory``: what the device holds, and what is copied or computed again."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from musicinfuser.errors import UserError

GradientCheckpointing = Literal["full", "self_attention", "attention", "none"]


@dataclass(frozen=True)
class MemorySettings:
    """Less memory on the device for more work or more copies; no number changes."""

    gradient_checkpointing: GradientCheckpointing = "none"
    """What backward computes again of each block and its ZICA: everything (``full``), all but the
    outputs of attention (``attention``) or of self-attention alone (``self_attention``), nothing
    (``none``)."""
    compile_blocks: bool = False
    """Let torch compile each kind of block, which takes minutes at the first step and makes every
    later one faster."""
    modulations_on_host: bool = False
    """Keep the weights that give the blocks' modulations, 27 % of Mochi's, in host memory and copy
    each for its one product per forward pass."""
    stream_blocks: bool = False
    """Keep the blocks' other frozen weights, 72 % of Mochi's, in host memory and copy each block's
    for its turn, in training and sampling; needs ``full``. The backbone must have its weights, in
    their final type."""
    offload_inputs: bool = False
    """In training, keep the blocks' inputs in host memory from their forward to their backward
    pass; needs ``full``."""

    def __post_init__(self) -> None:
        """Check the policy; what else than inputs a graph keeps would keep streamed weights too."""
        policy = self.gradient_checkpointing
        if policy not in get_args(GradientCheckpointing):
            raise UserError(
                f"memory.gradient_checkpointing is {policy!r}; set it to full (what true meant), "
                "self_attention, attention or none (what false meant)."
            )
        if (self.stream_blocks or self.offload_inputs) and policy != "full":
            raise UserError(
                "blocks with weights or inputs in host memory (memory.stream_blocks, "
                "memory.offload_inputs) are recomputed whole in training; "
                f"memory.gradient_checkpointing is {policy}, set it to full."
            )


# Every fused kernel that `scaled_dot_product_attention` may become, each with its outputs for
# backward. Where none of them serves, torch falls back on matrix products, which are not kept: the
# logits alone would be larger than a device.
_aten = torch.ops.aten
ATTENTION_OPERATIONS = [
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_fused_attention_overrideable.default,
]


def _is_self_attention(
    context: Any, operation: Any, query: Any = None, key: Any = None, *others: Any, **named: Any
) -> CheckpointPolicy:
    """As many keys as queries; audio has few keys, its attention costs little and holds as much."""
    if operation in ATTENTION_OPERATIONS and query.shape[-2] == key.shape[-2]:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


KEPT_BY_POLICY = {
    "attention": partial(create_selective_checkpoint_contexts, ATTENTION_OPERATIONS),
    "self_attention": partial(create_selective_checkpoint_contexts, _is_self_attention),
}
"""``context_fn`` of torch's checkpoints."""
