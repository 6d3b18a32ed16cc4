"""A block of Mochi's and the audio that enters after it, recomputed and compiled as one."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import MochiTransformer3DModel
from diffusers.models.transformers.transformer_mochi import MochiTransformerBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from musicinfuser.errors import UserError
from musicinfuser.memory.offload_hooks import is_hooked
from musicinfuser.memory.settings import KEPT_BY_POLICY, GradientCheckpointing
from musicinfuser.networks.attention import JointAttention
from musicinfuser.networks.modulation import (
    Modulations,
    PrecomputedModulation,
    compute_modulations,
)

# Under its own name: diffusers marks the class as opaque to torch's compiler.
_mochi_forward = MochiTransformerBlock.forward
# Kinds of block, times lengths of text (0, 1 and others), sizes of clips, training or not.
MAX_GRAPHS = 128


class BlockAudio:
    """The adapter after a block, its audio tokens ``(B, S, D)`` and their weights ``(B,)``.

    No tuple or dataclass: FSDP's hooks look for tensors in those and put a mark on each, which
    would change the order in which the gradients of the audio are added up, hence their last bits.
    By a view, what arrives at the audio tokens is summed up within the block, however blocks are
    run: the last bits of the projector's gradients depend on the order.
    """

    def __init__(self, zica: nn.Module, tokens: Tensor, weight: Tensor | None = None) -> None:
        self.zica, self.tokens, self.weight = zica, tokens.view_as(tokens), weight


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
        zica, tokens, weight = (
            (None, None, None) if audio is None else (audio.zica, audio.tokens, audio.weight)
        )
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

    if policy == "none" or not torch.is_grad_enabled():
        return block_and_zica(visual)
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if policy != "full":  # torch's compiler takes no default for `context_fn`
        options["context_fn"] = KEPT_BY_POLICY[policy]
    return checkpoint(block_and_zica, visual, **options)


def compiled_run(backend: str | Callable[..., Any] = "inductor") -> Callable[..., Any]:
    """`run_block` compiled for all blocks of a model, one whole graph for each kind of block."""
    # Torch's stubs leave the last two out.
    return torch.compile(  # type: ignore[call-overload]
        run_block,
        fullgraph=True,
        backend=backend,
        recompile_limit=MAX_GRAPHS,
        isolate_recompiles=True,
    )


def adapt_blocks(backbone: MochiTransformer3DModel) -> None:
    """Replace the blocks of a backbone by ones with the same weights under the same names.

    The backbone's own ``forward`` keeps its meaning. Blocks that are adapted already stay.

    Raises:
        UserError: Blocks have hooks, which belong to the ones that would be replaced.
    """
    for i, block in enumerate(backbone.transformer_blocks):
        if isinstance(block, AdaptedBlock):
            continue
        if is_hooked(block):
            raise UserError(
                "the transformer's blocks are offloaded already; put the model together first, "
                "then switch offloading on."
            )
        backbone.transformer_blocks[i] = AdaptedBlock(block)
