"""Joint attention of a Mochi block without a look at the mask on the host.

diffusers' processor gathers the valid text tokens of each sample with ``nonzero``, which waits for
the device once per block and sample. Here padding is cut before the blocks, so one attention call
serves the batch; a mask is passed only where captions of one batch differ in length.
"""

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import MochiAttention
from torch import Tensor


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs of channels, in fp32.

    Args:
        x: ``(B, N, H, d)`` queries or keys.
        cos: ``(N, H, d / 2)``, or with a head dimension of 1.
        sin: As ``cos``.
    """
    even, odd = x[..., 0::2].float(), x[..., 1::2].float()
    rotated = (even * cos - odd * sin).to(x.dtype), (even * sin + odd * cos).to(x.dtype)
    return torch.stack(rotated, dim=-1).flatten(-2)


class JointAttention:
    """Processor for ``MochiAttention``; equals diffusers' on every valid token."""

    def __call__(
        self,
        attn: MochiAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None,
        image_rotary_emb: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Attend over visual and text tokens together.

        Args:
            attn: The module whose projections and norms are used.
            hidden_states: ``(B, N, D)`` visual tokens.
            encoder_hidden_states: ``(B, L, Dy)`` text tokens; L may be 0.
            attention_mask: ``(B, L)`` bool, True = valid; None = all are.
            image_rotary_emb: cos and sin, ``(N, H, d / 2)`` each.
        """
        num_visual, num_text = hidden_states.shape[1], encoder_hidden_states.shape[1]
        heads = (attn.heads, -1)
        query = attn.norm_q(attn.to_q(hidden_states).unflatten(2, heads))
        key = attn.norm_k(attn.to_k(hidden_states).unflatten(2, heads))
        value = attn.to_v(hidden_states).unflatten(2, heads)
        text_query = attn.norm_added_q(attn.add_q_proj(encoder_hidden_states).unflatten(2, heads))
        text_key = attn.norm_added_k(attn.add_k_proj(encoder_hidden_states).unflatten(2, heads))
        text_value = attn.add_v_proj(encoder_hidden_states).unflatten(2, heads)

        query = torch.cat([apply_rotary(query, *image_rotary_emb), text_query], dim=1)
        key = torch.cat([apply_rotary(key, *image_rotary_emb), text_key], dim=1)
        value = torch.cat([value, text_value], dim=1)
        mask = None
        if attention_mask is not None:
            mask = F.pad(attention_mask, (num_visual, 0), value=True)[:, None, None]
        attended = F.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask
        )
        visual, text = attended.transpose(1, 2).flatten(2).split([num_visual, num_text], dim=1)
        visual = attn.to_out[1](attn.to_out[0](visual))
        if hasattr(attn, "to_add_out"):
            text = attn.to_add_out(text)
        return visual, text
