"""Joint attention of a Mochi block without a look at the mask on the host, and its rotations.

diffusers' processor gathers the valid text tokens of each sample with ``nonzero``, which waits for
the device once per block and sample. Here padding is cut before the blocks, so one attention call
serves the batch; a mask is passed only where captions of one batch differ in length.
"""

import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import MochiTransformer3DModel
    from diffusers.models.attention_processor import MochiAttention


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
        attn: "MochiAttention",
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


class RotaryTables:
    """Builds tables as diffusers does, and keeps those of the last size; in no state dict.

    73 frames of 480x848 take 254 MB, which training holds between the passes anyway.
    """

    def __init__(self, backbone: "MochiTransformer3DModel") -> None:
        """Take a backbone for its frequencies; while these are trained nothing is kept."""
        self._backbone = backbone
        self._last: tuple[Any, tuple[Tensor, Tensor]] | None = None

    def __call__(
        self, num_frames: int, height: int, width: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Cos and sin, ``(num_frames * height * width, heads, head width / 2)`` fp32.

        Frames are latent ones, height and width in patches.
        """
        frequencies = self._backbone.pos_frequencies
        size = (num_frames, height, width)
        if frequencies.requires_grad:
            return self._build(*size, device)
        key = (*size, device, id(frequencies), frequencies._version, frequencies.dtype)
        if self._last is None or self._last[0] != key:
            self._last = None  # not both at once
            # A training may come after a sampling, whose tensors backward could not use.
            with torch.inference_mode(mode=False), torch.no_grad():
                self._last = key, self._build(*size, device)
        return self._last[1]

    def _build(self, *size: Any) -> tuple[Tensor, Tensor]:
        # diffusers wraps this in an fp32 autocast region, which torch has on CUDA only; elsewhere
        # it warns at every call. The tables are fp32 either way.
        frequencies, device = self._backbone.pos_frequencies, size[-1]
        quiet = warnings.catch_warnings(action="ignore") if device.type == "cpu" else nullcontext()
        with quiet:
            return self._backbone.rope(frequencies, *size[:-1], device=device, dtype=torch.float32)
