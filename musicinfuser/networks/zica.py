"""Zero-initialised cross-attention (section 4.3, eq. 6) and its baseline, feature addition.

Shape legend: B batch, T latent frames, N visual tokens (T * height * width after patching,
frame-major), S audio tokens, D width.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicinfuser.errors import UserError
from musicinfuser.networks.attention import apply_rotary


@dataclass(frozen=True)
class ZicaSpec:
    """How audio enters the visual stream.

    The defaults are the authors' code; eq. 6 as printed is ``num_heads=1, bias=False,
    scale="width"``.
    """

    form: Literal["cross_attention", "feature_addition"] = "cross_attention"
    """``feature_addition`` is the baseline of Table 1: the audio token of a latent frame is
    projected and added to every visual token of that frame."""
    num_heads: int = 8
    """Attention heads (authors: 8; eq. 6: 1). Must divide the width."""
    bias: bool = True
    """Biases on the four projections (authors: yes; eq. 6: no)."""
    scale: Literal["head", "width"] = "head"
    """Logit scale: 1/sqrt(D / num_heads) (authors) or 1/sqrt(D) (eq. 6)."""
    init: Literal["zero", "random"] = "zero"
    """Initialisation of the output projection; ``random`` is the Table 1 ablation."""
    positions: Literal["none", "rotary", "aligned"] = "none"
    """Whether attention depends on time: ``none`` is the paper and the authors; our additions
    rotate queries and keys by their latent frame (``rotary``), and start with equal biases on both
    so that each frame attends most to its own moment (``aligned``)."""

    def __post_init__(self) -> None:
        """Check what can be checked without a width."""
        if self.num_heads < 1:
            raise UserError(f"zica.num_heads is {self.num_heads}; it must be at least 1.")
        if self.positions != "none" and self.form != "cross_attention":
            raise UserError("zica.positions belongs to form cross_attention.")
        if self.positions == "aligned" and not self.bias:
            raise UserError("zica.positions aligned works through biases; set zica.bias to true.")

    def stored(self) -> dict[str, Any]:
        """What an adapter's files keep; how ZICA began is over by then."""
        return {name: value for name, value in asdict(self).items() if name != "init"}

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """From settings that hold `stored`; an option younger than they are has its default."""
        return cls(**{name: stored[name] for name in cls().stored() if name in stored})


# Logit of a query for its own latent frame at the start, with aligned positions: of 13 frames the
# own one then gets most of the attention, its neighbours the rest.
PEAK_LOGIT = 5.8
# Slowest rotation: one turn in about 2 pi * 100 latent frames; the fastest turns by a radian each.
ROTARY_BASE = 100.0


def rotary_tables(frames: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Cos and sin ``(len(frames), 1, width / 2)`` of the angles of latent frames, fp32."""
    exponents = torch.arange(0, width, 2, device=frames.device) / width
    angles = frames[:, None, None].float() * ROTARY_BASE**-exponents
    return angles.cos(), angles.sin()


def zero_init(layer: nn.Linear) -> nn.Linear:
    """Set weight and bias to zero, visibly, where the layer is built."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class ZeroInitCrossAttention(nn.Module):
    """Z = V + W_O softmax(V W_Q (A W_K)^T / scale) A W_V (eq. 6), W_O zero at the start.

    Queries come from the visual residual stream without a norm; every visual token sees every
    audio token, without mask or positions (authors' code).
    """

    def __init__(self, width: int, spec: ZicaSpec) -> None:
        super().__init__()
        if width % spec.num_heads:
            raise UserError(
                f"zica.num_heads is {spec.num_heads}, which does not divide the width {width}; "
                "choose a divisor."
            )
        self.num_heads = spec.num_heads
        self.logit_scale = (
            (width // spec.num_heads) ** -0.5 if spec.scale == "head" else width**-0.5
        )
        self.positions = spec.positions
        head_width = width // spec.num_heads
        if spec.positions != "none" and head_width % 2:
            raise UserError(f"zica.positions needs heads of even width, not {head_width}.")
        self.to_q = nn.Linear(width, width, bias=spec.bias)
        self.to_k = nn.Linear(width, width, bias=spec.bias)
        self.to_v = nn.Linear(width, width, bias=spec.bias)
        to_out = nn.Linear(width, width, bias=spec.bias)
        self.to_out = zero_init(to_out) if spec.init == "zero" else to_out
        if spec.positions == "aligned":
            # The kernel of two equal biases peaks at equal times with a logit of bias^2 d * scale.
            bias = (PEAK_LOGIT / (head_width * self.logit_scale)) ** 0.5
            nn.init.constant_(self.to_q.bias, bias)
            nn.init.constant_(self.to_k.bias, bias)

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        """Add the attended audio to the visual stream.

        Args:
            visual: ``(B, N, D)`` residual stream after a block, frame-major.
            audio: ``(B, S, D)`` projected audio tokens; with positions one per latent frame.

        Returns:
            ``(B, N, D)`` in the dtype of ``visual``.
        """
        q_BNHd = self.to_q(visual).unflatten(2, (self.num_heads, -1))
        k_BSHd = self.to_k(audio).unflatten(2, (self.num_heads, -1))
        if self.positions != "none":
            frames = torch.arange(audio.shape[1], device=audio.device)
            cos, sin = rotary_tables(frames, q_BNHd.shape[-1])
            k_BSHd = apply_rotary(k_BSHd, cos, sin)
            tokens_per_frame = visual.shape[1] // audio.shape[1]
            cos, sin = (t.repeat_interleave(tokens_per_frame, dim=0) for t in (cos, sin))
            q_BNHd = apply_rotary(q_BNHd, cos, sin)
        q_BHNd, k_BHSd = q_BNHd.transpose(1, 2), k_BSHd.transpose(1, 2)
        v_BHSd = self.to_v(audio).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        attended = F.scaled_dot_product_attention(q_BHNd, k_BHSd, v_BHSd, scale=self.logit_scale)
        return visual + self.to_out(attended.transpose(1, 2).flatten(2)).to(visual.dtype)


class FeatureAddition(nn.Module):
    """Z = V + W_O A_t for every token of latent frame t (the baseline of Tables 1 and 6)."""

    def __init__(self, width: int, spec: ZicaSpec) -> None:
        super().__init__()
        to_out = nn.Linear(width, width, bias=spec.bias)
        self.to_out = zero_init(to_out) if spec.init == "zero" else to_out

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        """Add each latent frame's audio token to the frame's visual tokens.

        Args:
            visual: ``(B, N, D)``, frame-major.
            audio: ``(B, T, D)``, one token per latent frame; T divides N.
        """
        added = self.to_out(audio).to(visual.dtype)
        return visual + added.repeat_interleave(visual.shape[1] // audio.shape[1], dim=1)


def build_zica(width: int, spec: ZicaSpec, layers: tuple[int, ...]) -> nn.ModuleDict:
    """One adapter per chosen block, keyed by the block's index."""
    form = ZeroInitCrossAttention if spec.form == "cross_attention" else FeatureAddition
    return nn.ModuleDict({str(layer): form(width, spec) for layer in layers})
