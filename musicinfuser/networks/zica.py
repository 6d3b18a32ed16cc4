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
    frame_window: int | None = None
    """A latent frame attends only to audio at most so many latent frames away, 0 being its own
    alone; null is all of it (authors). Ours, after Wan-S2V, Wan-Dancer and MultiTalk, which bind a
    frame to its own sound."""
    query_norm: bool = False
    """Queries come from the visual stream through a LayerNorm without weights, as in all but one
    audio injectors on Wan; false is the authors' code."""
    width: int | None = None
    """Channels of queries, keys, values and audio tokens; null is the backbone's width (authors).
    A narrower adapter has fewer weights: of Mochi's 3,072 channels, 1,024 leave 22 % of them."""

    def __post_init__(self) -> None:
        """Check what can be checked without the backbone's width."""
        if self.num_heads < 1:
            raise UserError(f"zica.num_heads is {self.num_heads}; it must be at least 1.")
        if self.frame_window is not None and self.frame_window < 0:
            raise UserError(f"zica.frame_window is {self.frame_window}; use 0 or more, or null.")
        if self.width is not None and self.width < 1:
            raise UserError(f"zica.width is {self.width}; use 1 or more, or null.")
        if self.form != "cross_attention":
            for name in ("frame_window", "query_norm", "width"):
                if getattr(self, name) not in (None, False):
                    raise UserError(f"zica.{name} belongs to form cross_attention.")
        if self.positions != "none" and self.form != "cross_attention":
            raise UserError("zica.positions belongs to form cross_attention.")
        if self.positions == "aligned" and not self.bias:
            raise UserError("zica.positions aligned works through biases; set zica.bias to true.")

    def stored(self) -> dict[str, Any]:
        """What an adapter's files keep; how ZICA began is over by then."""
        found = {STORED_NAMES.get(name, name): value for name, value in asdict(self).items()}
        return {name: value for name, value in found.items() if name != "init"}

    def inner_width(self, width: int) -> int:
        """Channels of queries, keys, values and audio tokens beside a backbone ``width`` wide."""
        return self.width or width

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """From settings that hold `stored`; an option younger than they are has its default."""
        names = {STORED_NAMES.get(name, name): name for name in asdict(cls())}
        return cls(**{names[name]: value for name, value in stored.items() if name in names})


# `width` alone is the backbone's in the files of an adapter.
STORED_NAMES = {"width": "zica_width"}
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


def weighted(added: Tensor, weight: Tensor | None) -> Tensor:
    """What ZICA adds, ``(B, N, D)``, times a weight per sample ``(B,)``.

    A product and no choice of samples: no parameter is ever unused, which DDP would wait for, and
    nothing is read back from the device.
    """
    return added if weight is None else added * weight.to(added.dtype)[:, None, None]


class ZeroInitCrossAttention(nn.Module):
    """Z = V + W_O softmax(V W_Q (A W_K)^T / scale) A W_V (eq. 6), W_O zero at the start.

    By default queries come from the visual residual stream without a norm, and every visual token
    attends to every audio token, without mask or positions (authors' code).
    """

    def __init__(self, width: int, spec: ZicaSpec) -> None:
        super().__init__()
        inner = spec.inner_width(width)
        if inner % spec.num_heads:
            raise UserError(
                f"zica.num_heads is {spec.num_heads}, which does not divide the width {inner}; "
                "choose a divisor."
            )
        self.num_heads = spec.num_heads
        self.logit_scale = (
            (inner // spec.num_heads) ** -0.5 if spec.scale == "head" else inner**-0.5
        )
        self.positions, self.frame_window = spec.positions, spec.frame_window
        head_width = inner // spec.num_heads
        if spec.positions != "none" and head_width % 2:
            even = inner - spec.num_heads or inner + spec.num_heads
            raise UserError(
                f"zica.positions is {spec.positions}, which needs heads of even width, not "
                f"{head_width}: {inner} channels over {spec.num_heads} heads; set zica.width to a "
                f"multiple of {2 * spec.num_heads}, such as {even}, or zica.positions to none."
            )
        self.normalised = spec.query_norm
        self.to_q = nn.Linear(width, inner, bias=spec.bias)
        self.to_k = nn.Linear(inner, inner, bias=spec.bias)
        self.to_v = nn.Linear(inner, inner, bias=spec.bias)
        to_out = nn.Linear(inner, width, bias=spec.bias)
        self.to_out = zero_init(to_out) if spec.init == "zero" else to_out
        if spec.positions == "aligned":
            # The kernel of two equal biases peaks at equal times with a logit of bias^2 d * scale.
            bias = (PEAK_LOGIT / (head_width * self.logit_scale)) ** 0.5
            nn.init.constant_(self.to_q.bias, bias)
            nn.init.constant_(self.to_k.bias, bias)

    def forward(self, visual: Tensor, audio: Tensor, weight: Tensor | None = None) -> Tensor:
        """Add the attended audio to the visual stream.

        Args:
            visual: ``(B, N, D)`` residual stream after a block, frame-major.
            audio: ``(B, S, inner_width)`` projected audio tokens; with positions or a window one
                per latent frame.
            weight: ``(B,)``, what each sample's audio counts: 1 as it is, 0 not at all; None is 1
                for all.

        Returns:
            ``(B, N, D)`` in the dtype of ``visual``.
        """
        asked = F.layer_norm(visual, visual.shape[-1:]) if self.normalised else visual
        q_BNHd = self.to_q(asked).unflatten(2, (self.num_heads, -1))
        k_BSHd = self.to_k(audio).unflatten(2, (self.num_heads, -1))
        frames = torch.arange(audio.shape[1], device=audio.device)
        tokens_per_frame = visual.shape[1] // audio.shape[1]
        if self.positions != "none":
            cos, sin = rotary_tables(frames, q_BNHd.shape[-1])
            k_BSHd = apply_rotary(k_BSHd, cos, sin)
            cos, sin = (t.repeat_interleave(tokens_per_frame, dim=0) for t in (cos, sin))
            q_BNHd = apply_rotary(q_BNHd, cos, sin)
        near_NS = None
        if self.frame_window is not None:
            near_TS = (frames[:, None] - frames).abs() <= self.frame_window
            near_NS = near_TS.repeat_interleave(tokens_per_frame, dim=0)
        q_BHNd, k_BHSd = q_BNHd.transpose(1, 2), k_BSHd.transpose(1, 2)
        v_BHSd = self.to_v(audio).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        attended = F.scaled_dot_product_attention(
            q_BHNd, k_BHSd, v_BHSd, attn_mask=near_NS, scale=self.logit_scale
        )
        added = self.to_out(attended.transpose(1, 2).flatten(2)).to(visual.dtype)
        return visual + weighted(added, weight)


class FeatureAddition(nn.Module):
    """Z = V + W_O A_t for every token of latent frame t (the baseline of Tables 1 and 6)."""

    def __init__(self, width: int, spec: ZicaSpec) -> None:
        super().__init__()
        to_out = nn.Linear(width, width, bias=spec.bias)
        self.to_out = zero_init(to_out) if spec.init == "zero" else to_out

    def forward(self, visual: Tensor, audio: Tensor, weight: Tensor | None = None) -> Tensor:
        """Add each latent frame's audio token to the frame's visual tokens.

        Args:
            visual: ``(B, N, D)``, frame-major.
            audio: ``(B, T, D)``, one token per latent frame; T divides N.
            weight: ``(B,)``, what each sample's audio counts; None is 1 for all.
        """
        added = weighted(self.to_out(audio).to(visual.dtype), weight)
        return visual + added.repeat_interleave(visual.shape[1] // audio.shape[1], dim=1)


def build_zica(width: int, spec: ZicaSpec, layers: tuple[int, ...]) -> nn.ModuleDict:
    """One adapter per chosen block, keyed by the block's index."""
    form = ZeroInitCrossAttention if spec.form == "cross_attention" else FeatureAddition
    return nn.ModuleDict({str(layer): form(width, spec) for layer in layers})
