"""What backward finds kept of a block, and what it computes again."""

from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import torch
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from musicinfuser.errors import UserError

GradientCheckpointing = Literal["full", "self_attention", "attention", "none"]

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


def checked_policy(policy: object) -> GradientCheckpointing:
    """The policy, if it is one.

    Raises:
        ValueError: Not one of the four words; says what stands for the on and off of old configs.
    """
    if policy not in get_args(GradientCheckpointing):
        raise UserError(
            f"gradient_checkpointing is {policy!r}; set it to full (what true meant), "
            "self_attention, attention or none (what false meant)."
        )
    return cast(GradientCheckpointing, policy)


def _keep_attention() -> Any:
    return create_selective_checkpoint_contexts(ATTENTION_OPERATIONS)


def _is_self_attention(
    context: Any, operation: Any, query: Any = None, key: Any = None, *others: Any, **named: Any
) -> CheckpointPolicy:
    if operation in ATTENTION_OPERATIONS and query.shape[-2] == key.shape[-2]:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def _keep_self_attention() -> Any:
    return create_selective_checkpoint_contexts(_is_self_attention)


def recomputed(
    function: Callable[[torch.Tensor], Any], visual: torch.Tensor, policy: GradientCheckpointing
) -> Any:
    """``function(visual)``, of which backward finds what the policy says.

    Args:
        function: Draws no random numbers; everything else it uses may come from its closure.
        visual: Its input, which is kept.
        policy: ``none`` keeps all, ``full`` only what goes in, ``attention`` also what fused
            attention gave, ``self_attention`` that only where as many keys as queries met: audio
            has few keys, so its attention costs little work and as much memory.
    """
    if policy == "none" or not torch.is_grad_enabled():
        return function(visual)
    if policy == "full":  # torch's compiler takes no default for `context_fn`
        return checkpoint(function, visual, use_reentrant=False, preserve_rng_state=False)
    return checkpoint(
        function,
        visual,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=_keep_attention if policy == "attention" else _keep_self_attention,
    )
