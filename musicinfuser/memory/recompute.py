"""What backward finds kept of a block that is computed again but for its attention."""

from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

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
