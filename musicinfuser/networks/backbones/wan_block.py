"""A block of Wan with its audio; diffusers is loaded with it."""

from collections.abc import Callable

from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch import Tensor, nn

from musicinfuser.memory.settings import GradientCheckpointing
from musicinfuser.networks.adapted_block import BlockAudio, parts_of, recomputed

_wan_forward = WanTransformerBlock.forward


class AdaptedWanBlock(WanTransformerBlock):
    """One of Wan's blocks with its own weights, given its audio adapter.

    Recomputing and compiling happen inside of ``forward``, as in Mochi's.
    """

    def __init__(self, block: WanTransformerBlock) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(block.__dict__)
        self.run: Callable[..., Tensor] = run_block
        """`run_block`, or what was compiled of it."""

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        rotary_emb: tuple[Tensor, Tensor],
        audio: BlockAudio | None = None,
        policy: GradientCheckpointing = "none",
    ) -> Tensor:
        """Run the block, then its audio adapter.

        Args:
            hidden_states: ``(B, N, D)`` visual tokens.
            encoder_hidden_states: ``(B, 512, D)`` text.
            temb: ``(B, 6, D)``, what the noise level makes of scales, shifts and gates; where
                tokens differ in it ``(B, N, 6, D)``.
            rotary_emb: cos and sin, ``(1, N, 1, d)`` each.
            audio: Audio and its adapter; None for neither.
            policy: What is kept for backward.

        Returns:
            ``(B, N, D)``.
        """
        zica, tokens, weight = parts_of(audio)
        return self.run(
            self, zica, policy, hidden_states, encoder_hidden_states, temb, rotary_emb, tokens,
            weight,
        )  # fmt: skip


def run_block(
    block: AdaptedWanBlock,
    zica: nn.Module | None,
    policy: GradientCheckpointing,
    visual: Tensor,
    text: Tensor,
    modulation: Tensor,
    rotary: tuple[Tensor, Tensor],
    audio: Tensor | None,
    audio_weight: Tensor | None = None,
) -> Tensor:
    """A block and its adapter as one unit of recomputation; nothing here tells blocks apart."""

    def block_and_zica(visual: Tensor) -> Tensor:
        visual = _wan_forward(block, visual, text, modulation, rotary)
        return visual if zica is None else zica(visual, audio, audio_weight)

    return recomputed(block_and_zica, visual, policy)
