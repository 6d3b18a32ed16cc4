"""A block of Mochi's and the audio that enters after it, recomputed and compiled as one."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import MochiTransformer3DModel
from diffusers.models.transformers.transformer_mochi import MochiTransformerBlock
from torch import Tensor, nn

from musicinfuser.errors import UserError
from musicinfuser.memory.offload_hooks import is_hooked
from musicinfuser.memory.recompute import GradientCheckpointing, recomputed
from musicinfuser.networks.attention import JointAttention
from musicinfuser.networks.modulation import Modulations, compute_modulations, given_modulation

# Under its own name: diffusers marks the class as opaque to torch's compiler.
_mochi_forward = MochiTransformerBlock.forward
# Kinds of block, times lengths of text (0, 1 and others), sizes of clips, training or not.
MAX_GRAPHS = 128


class Heard:
    """What a block hears.

    No tuple or dataclass: FSDP's hooks look for tensors in those and put a mark on each, which
    would change the order in which the gradients of the audio are added up, hence their last bits.
    """

    def __init__(self, zica: nn.Module, audio: Tensor) -> None:
        """Put together the adapter after a block and ``(B, S, D)`` projected audio tokens."""
        self.zica, self.audio = zica, audio


class AdaptedBlock(MochiTransformerBlock):
    """One of Mochi's blocks with its own weights, told its modulation and its audio adapter.

    Recomputing and compiling happen inside of ``forward``: hooks on the block, such as those that
    gather weights, run around them, once in the forward pass.
    """

    def __init__(self, block: MochiTransformerBlock) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(block.__dict__)
        self.attn1.processor = JointAttention()
        self.norm1 = given_modulation(block.norm1, stream=0)
        self.norm1_context = given_modulation(block.norm1_context, stream=1)
        self.run: Callable[..., tuple[Tensor, Tensor]] = run_block
        """`run_block`, or what was compiled of it."""

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Modulations | Tensor,
        encoder_attention_mask: Tensor | None,
        image_rotary_emb: tuple[Tensor, Tensor],
        heard: Heard | None = None,
        policy: GradientCheckpointing = "none",
    ) -> tuple[Tensor, Tensor]:
        """Run the block, then let the audio in.

        Args:
            hidden_states: ``(B, N, D)`` visual tokens.
            encoder_hidden_states: ``(B, L, Dy)`` text tokens; L may be 0.
            temb: The block's modulations; or the condition ``(B, W)`` they come from, as diffusers'
                own ``forward`` gives it.
            encoder_attention_mask: ``(B, L)`` bool, True = valid; None = all are.
            image_rotary_emb: cos and sin, ``(N, H, d / 2)`` each.
            heard: Audio and its adapter; None for neither.
            policy: What is kept for backward.

        Returns:
            Visual and text tokens, of the shapes they came in.
        """
        if isinstance(temb, Tensor):
            text_dtype = encoder_hidden_states.dtype
            temb = compute_modulations([self], temb, text_dtype=text_dtype)[0]
            if encoder_attention_mask is not None:
                encoder_attention_mask = encoder_attention_mask.bool()
        return self.run(
            self,
            None if heard is None else heard.zica,
            policy,
            hidden_states,
            encoder_hidden_states,
            temb,
            encoder_attention_mask,
            image_rotary_emb,
            None if heard is None else heard.audio,
        )


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
) -> tuple[Tensor, Tensor]:
    """A block and its adapter, as one unit of recomputation.

    Every block comes through here as an argument, so that what is compiled for one serves all of
    its kind; nothing that tells blocks apart, such as an index, may be looked at.
    """

    def block_and_zica(visual: Tensor) -> tuple[Tensor, Tensor]:
        visual, new_text = _mochi_forward(block, visual, text, modulations, mask, rotary)
        return visual if zica is None else zica(visual, audio), new_text

    return recomputed(block_and_zica, visual, policy)


def run_adapted(
    block: AdaptedBlock,
    zica: nn.Module | None,
    modulations: Modulations | Tensor,
    mask: Tensor | None,
    rotary: tuple[Tensor, Tensor],
    visual: Tensor,
    text: Tensor,
    audio: Tensor | None,
    policy: GradientCheckpointing = "none",
) -> tuple[Tensor, Tensor]:
    """A block and its adapter; what may need a gradient comes last."""
    if block.run is not run_block:
        _let_length_vary(text, mask)
    # By a view, what arrives at the audio tokens is summed up within the block, however blocks are
    # run: the last bits of the projector's gradients depend on the order.
    heard = None if zica is None or audio is None else Heard(zica, audio.view_as(audio))
    return block(
        hidden_states=visual,
        encoder_hidden_states=text,
        temb=modulations,
        encoder_attention_mask=mask,
        image_rotary_emb=rotary,
        heard=heard,
        policy=policy,
    )


def trained_parameters(block: nn.Module, zica: nn.Module | None) -> list[nn.Parameter]:
    """Parameters of a block and its adapter that are trained."""
    modules = [block] if zica is None else [block, zica]
    return [p for module in modules for p in module.parameters() if p.requires_grad]


def _let_length_vary(text: Tensor, mask: Tensor | None) -> None:
    """Have one graph for all lengths of captions but 0 and 1, instead of one for the first."""
    for tensor in (text, mask):
        if tensor is not None:
            torch._dynamo.maybe_mark_dynamic(tensor, 1)


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
        ValueError: Blocks have hooks, which belong to the ones that would be replaced.
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
