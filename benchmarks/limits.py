"""What a step must cost: counted operations, and how fast a device can do them.

All figures beside measurements come from here. Counted are matrix products and attention of
full-size or smaller models from their shapes, a multiplication and an addition as two operations;
elementwise work is left out, so a limit is a bound from below. Flash attention computes the logits
again in its backward pass, which is part of its algorithm and counted as useful.

Shape legend: N visual tokens, T text tokens, S = N + T, D width, F inner width of a feed-forward
layer, R rank, A audio tokens (one per latent frame).
"""

import argparse
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Self

import torch

from benchmarks.report import timed
from musicinfuser.clip_size import num_latent_frames, num_visual_tokens
from musicinfuser.networks.music_model import MusicModel

Policy = Literal["none", "official", "attention", "self_attention", "full"]
"""What is computed again in the backward pass: nothing; everything but attention, its output
projection and ZICA (authors' code); everything but the attention kernels; whole blocks."""
POLICIES: tuple[Policy, ...] = ("none", "official", "attention", "self_attention", "full")
# Flash attention's backward pass: five products of the forward pass's size, which has two.
ATTENTION_BACKWARD = 2.5

# bf16 products with fp32 sums, dense, in TFLOP/s: the data sheet, and an 8192 x 8192 x 8192 product
# of random numbers where it was measured.
PEAKS = {
    "H200": (989.0, 790.0),
    "H100": (989.0, 798.0),
    "A100": (312.0, None),
    "L40S": (362.0, None),
    "RTX 4090": (165.0, None),
}


@dataclass(frozen=True)
class Work:
    """TFLOP of one model and one clip; every sample of a batch takes as much."""

    num_tokens: int = 20_670
    """N: 73 frames of 480x848."""
    num_frames: int = 13
    """Latent frames, which are the audio tokens."""
    num_text_tokens: int = 256
    width: int = 3072
    text_width: int = 1536
    inner_width: int = 8192
    text_inner_width: int = 4096
    num_layers: int = 48
    num_audio_layers: int = 16
    rank: int = 64
    """Of LoRA; 0 is none."""
    lora_on_text: bool = False
    """Whether LoRA adapts both streams."""

    @classmethod
    def of(cls, model: MusicModel, settings: argparse.Namespace) -> Self:
        """The operations of a model on a clip of ``settings``."""
        config, lora = model.backbone.config, model.lora
        width, text_width = (
            config.num_attention_heads * config.attention_head_dim, config.pooled_projection_dim
        )  # fmt: skip
        return cls(
            num_tokens=num_visual_tokens(settings.frames, settings.height, settings.width),
            num_frames=num_latent_frames(settings.frames),
            num_text_tokens=settings.text_tokens,
            width=width,
            text_width=text_width,
            inner_width=4 * width * 2 // 3,
            text_inner_width=4 * text_width * 2 // 3,
            num_layers=config.num_layers,
            num_audio_layers=len(model.layers),
            rank=lora.rank if lora else 0,
            lora_on_text=lora is not None and lora.streams == "both",
        )

    @cached_property
    def terms(self) -> dict[str, float]:
        """TFLOP of each part, forward.

        ``out_projection``, after visual self-attention, is part of ``visual_linears``; those of
        ZICA are of queries and outputs, since its audio tokens are too few to count.
        """
        n, text, d, d_text = self.num_tokens, self.num_text_tokens, self.width, self.text_width
        lora = 8 * d * n + (4 * (d + d_text) * text if self.lora_on_text else 0)
        per_block = {
            "visual_linears": 2 * n * (4 * d**2 + 3 * d * self.inner_width),
            "text_linears": 2 * text * (4 * d * d_text + 3 * d_text * self.text_inner_width),
            "out_projection": 2 * n * d**2,
            "attention": 4 * (n + text) ** 2 * d,
            "lora": 2 * self.rank * lora,
        }
        per_audio_block = {
            "zica_linears": 4 * n * d**2,
            "zica_attention": 4 * n * self.num_frames * d,
        }
        terms = {name: work * self.num_layers / 1e12 for name, work in per_block.items()}
        return terms | {
            name: work * self.num_audio_layers / 1e12 for name, work in per_audio_block.items()
        }

    @property
    def forward(self) -> float:
        """One pass of the model."""
        return sum(self.terms.values()) - self.terms["out_projection"]

    @property
    def backward(self) -> float:
        """Gradients of activations, and of the weights of LoRA and ZICA."""
        terms = self.terms
        frozen = terms["visual_linears"] + terms["text_linears"]
        trained = terms["zica_linears"] + terms["zica_attention"] + terms["lora"]
        return frozen + 2 * trained + ATTENTION_BACKWARD * terms["attention"]

    @property
    def useful(self) -> float:
        """A training step in which nothing is computed twice; the measure of utilisation."""
        return self.forward + self.backward

    def recomputed(self, policy: Policy) -> float:
        """What a policy computes a second time."""
        kept: dict[Policy, tuple[str, ...]] = {
            "full": (),
            "attention": ("attention", "zica_attention"),
            "self_attention": ("attention",),
            "official": ("attention", "zica_linears", "zica_attention", "out_projection"),
        }
        if policy == "none":
            return 0.0
        again = self.forward - sum(self.terms[name] for name in kept[policy])
        # LoRA's update of the output projection is kept with it: one in four.
        return again - (self.terms["lora"] / 4 if policy == "official" else 0)

    def training_step(self, policy: Policy) -> float:
        """Forward, backward and what is computed again."""
        return self.useful + self.recomputed(policy)

    def sampling(self, num_steps: int) -> float:
        """Steps with guidance: a pass with this text and one without any, LoRA merged."""
        texts = (self.num_text_tokens, 0)
        return num_steps * sum(replace(self, num_text_tokens=n, rank=0).forward for n in texts)


def peak_tflops(device: torch.device) -> tuple[float, str]:
    """The rate that times are compared with, and where it comes from.

    A product of random numbers is timed on devices that are not listed.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for known, (sheet, measured) in PEAKS.items():
            if known in name:
                if measured is not None:
                    return measured, f"{name}: measured bf16 product of size 8192"
                return sheet, f"{name}: data sheet, bf16 dense"
    kind = "bf16 product of size 8192" if device.type == "cuda" else "fp32 product of size 512"
    return product_tflops(device), f"{kind}, timed here"


def product_tflops(device: torch.device) -> float:
    """The rate of products of random numbers: bf16 on a GPU, fp32 on a CPU."""
    is_cuda = device.type == "cuda"
    size, dtype = (8192, torch.bfloat16) if is_cuda else (512, torch.float32)
    a, b = torch.randn(2, size, size, device=device, dtype=dtype)
    seconds = min(timed(lambda: a @ b, device) for _ in range(20))
    return 2 * size**3 / seconds / 1e12
