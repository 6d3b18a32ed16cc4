"""A block of Mochi with its audio; diffusers is loaded with it."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.transformers.transformer_mochi import MochiTransformerBlock
from torch import Tensor, nn

from musicinfuser.memory.settings import GradientCheckpointing
from musicinfuser.networks.adapted_block import BlockAudio, compiled, parts_of, recomputed
from musicinfuser.networks.attention import JointAttention
from musicinfuser.networks.modulation import (
    Modulations,
    PrecomputedModulation,
    compute_modulations,
)

# Under its own name: diffusers marks the class as opaque to torch's compiler.
_mochi_forward = MochiTransformerBlock.forward


class AdaptedBlock(MochiTransformerBlock):
    """One of Mochi's blocks with its own weights, given its modulation and its audio adapter.

    Recomputing and compiling happen inside of ``forward``: hooks on the block, such as those that
    gather weights, run around them, once in the forward pass.
    """

    def __init__(self, block: MochiTransformerBlock) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(block.__dict__)
        self.attn1.processor = JointAttention()
        self.norm1 = PrecomputedModulation(block.norm1, stream=0)
        self.norm1_context = PrecomputedModulation(block.norm1_context, stream=1)
        self.run: Callable[..., tuple[Tensor, Tensor]] = run_block
        """`run_block`, or what was compiled of it."""

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Modulations | Tensor,
        encoder_attention_mask: Tensor | None,
        image_rotary_emb: tuple[Tensor, Tensor],
        audio: BlockAudio | None = None,
        policy: GradientCheckpointing = "none",
    ) -> tuple[Tensor, Tensor]:
        """Run the block, then its audio adapter.

        Args:
            hidden_states: ``(B, N, D)`` visual tokens.
            encoder_hidden_states: ``(B, L, Dy)`` text tokens; L may be 0.
            temb: The block's modulations; or the condition ``(B, W)`` they come from, as diffusers'
                own ``forward`` gives it.
            encoder_attention_mask: ``(B, L)`` bool, True = valid; None = all are.
            image_rotary_emb: cos and sin, ``(N, H, d / 2)`` each.
            audio: Audio and its adapter; None for neither.
            policy: What is kept for backward.

        Returns:
            Visual and text tokens, of the shapes they came in.
        """
        mask = encoder_attention_mask
        if isinstance(temb, Tensor):
            text_dtype = encoder_hidden_states.dtype
            temb = compute_modulations([self], temb, text_dtype=text_dtype)[0]
            mask = None if mask is None else mask.bool()
        if self.run is not run_block:
            # One graph for all lengths of captions but 0 and 1, instead of one for the first.
            for tensor in (encoder_hidden_states, mask):
                if tensor is not None:
                    torch._dynamo.maybe_mark_dynamic(tensor, 1)
        zica, tokens, weight = parts_of(audio)
        return self.run(
            self, zica, policy, hidden_states, encoder_hidden_states, temb, mask, image_rotary_emb,
            tokens, weight,
        )  # fmt: skip


def run_block(
    block: AdaptedBlock,
    zica: nn.Module | None,
    policy: GradientCheckpointing,
    visual: Tensor,
    text: Tensor,
    modulations: Modulations,
    mask: Tensor | None,
    rotary: tuple[Tensor, Tensor],
    audio: Tensor | None,
    audio_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """A block and its adapter as one unit of recomputation, of which ``policy`` says what is kept.

    Every block comes through here as an argument, so that what is compiled for one serves all of
    its kind; nothing that tells blocks apart, such as an index, may be looked at.
    """

    def block_and_zica(visual: Tensor) -> tuple[Tensor, Tensor]:
        visual, new_text = _mochi_forward(block, visual, text, modulations, mask, rotary)
        return visual if zica is None else zica(visual, audio, audio_weight), new_text

    return recomputed(block_and_zica, visual, policy)


def compiled_run(backend: str | Callable[..., Any] = "inductor") -> Callable[..., Any]:
    """`run_block` compiled for all blocks of a model, one whole graph for each kind of block."""
    return compiled(run_block, backend)
