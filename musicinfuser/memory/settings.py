"""The group of options ``memory``: what the device holds, and what is copied or computed again."""

from dataclasses import dataclass
from typing import Literal, get_args

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
