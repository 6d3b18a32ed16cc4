"""What a step must cost: counted operations, and how fast a device can do them.

All figures beside measurements come from here. Counted are matrix products and attention of
full-size or smaller models from their shapes, a multiplication and an addition as two operations;
elementwise work is left out, so a limit is a bound from below. Flash attention computes the logits
again in its backward pass, which is part of its algorithm and counted as useful.

Shape legend: N visual tokens, T text tokens, S = N + T, D width, F inner width of a feed-forward
layer, R rank, A audio tokens (one per latent frame).
"""

from dataclasses import dataclass
from typing import Literal

import torch

from benchmarks.report import timed
from musicinfuser.clip_size import num_latent_frames

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

    @property
    def visual_linears(self) -> float:
        """Frozen projections of the visual stream, forward."""
        per_token = 4 * self.width**2 + 3 * self.width * self.inner_width
        return 2 * self.num_tokens * per_token * self.num_layers / 1e12

    @property
    def text_linears(self) -> float:
        """Frozen projections of the text stream, forward."""
        per_token = 4 * self.width * self.text_width + 3 * self.text_width * self.text_inner_width
        return 2 * self.num_text_tokens * per_token * self.num_layers / 1e12

    @property
    def out_projection(self) -> float:
        """The frozen projection after visual self-attention, forward; part of `visual_linears`."""
        return 2 * self.num_tokens * self.width**2 * self.num_layers / 1e12

    @property
    def attention(self) -> float:
        """Self-attention of all tokens, forward."""
        return (
            4 * (self.num_tokens + self.num_text_tokens) ** 2 * self.width * self.num_layers / 1e12
        )

    @property
    def zica_linears(self) -> float:
        """Projections of queries and outputs of ZICA, forward; its audio tokens are too few."""
        return 4 * self.num_tokens * self.width**2 * self.num_audio_layers / 1e12

    @property
    def zica_attention(self) -> float:
        """Attention to audio, forward."""
        products = 4 * self.num_tokens * self.num_frames * self.width
        return products * self.num_audio_layers / 1e12

    @property
    def lora(self) -> float:
        """Low-rank updates, forward."""
        visual = 4 * 2 * self.width * self.num_tokens
        text = 4 * (self.width + self.text_width) * self.num_text_tokens if self.lora_on_text else 0
        return 2 * self.rank * (visual + text) * self.num_layers / 1e12

    @property
    def forward(self) -> float:
        """One pass of the model."""
        frozen = self.visual_linears + self.text_linears
        return frozen + self.attention + self.zica_linears + self.zica_attention + self.lora

    @property
    def backward(self) -> float:
        """Gradients of activations, and of the weights of LoRA and ZICA."""
        frozen = self.visual_linears + self.text_linears
        trained = self.zica_linears + self.zica_attention + self.lora
        return frozen + 2 * trained + ATTENTION_BACKWARD * self.attention

    @property
    def useful(self) -> float:
        """A training step in which nothing is computed twice; the measure of utilisation."""
        return self.forward + self.backward

    def recomputed(self, policy: Policy) -> float:
        """What a policy computes a second time."""
        match policy:
            case "none":
                return 0.0
            case "full":
                return self.forward
            case "attention":
                return self.forward - self.attention - self.zica_attention
            case "self_attention":
                return self.forward - self.attention
            case "official":
                kept = self.attention + self.zica_linears + self.zica_attention
                # LoRA's update of the output projection is kept with it: one in four.
                return self.forward - kept - self.out_projection - self.lora / 4

    def training_step(self, policy: Policy) -> float:
        """Forward, backward and what is computed again."""
        return self.useful + self.recomputed(policy)

    def sampling(self, num_steps: int) -> float:
        """Steps with guidance: a pass with this text and one without any, LoRA merged."""
        conditional, unconditional = (self._with_text(n) for n in (self.num_text_tokens, 0))
        return num_steps * (conditional + unconditional)

    def _with_text(self, num_text_tokens: int) -> float:
        without_lora = {**self.__dict__, "num_text_tokens": num_text_tokens, "rank": 0}
        return Work(**without_lora).forward


def num_tokens(num_frames: int, height: int, width: int) -> int:
    """Visual tokens of a clip: 73x480x848 -> 20,670."""
    return num_latent_frames(num_frames) * (height // 16) * (width // 16)


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
