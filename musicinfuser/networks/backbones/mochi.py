"""Mochi 1: joint attention of a video and a text stream, velocity z - eps, time from noise on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from musicinfuser.diffusion.sampler import NUM_STEPS, linear_quadratic_sigmas
from musicinfuser.errors import UserError
from musicinfuser.memory.offload_hooks import is_hooked
from musicinfuser.memory.settings import GradientCheckpointing
from musicinfuser.networks.adapted_block import BlockAudio, adapt_blocks
from musicinfuser.networks.attention import RotaryTables
from musicinfuser.networks.backbones.base import ActivationShares, Backbone, Given, Stream, Usual
from musicinfuser.networks.class_of import ClassOf
from musicinfuser.networks.modulation import (
    Modulations,
    PrecomputedModulation,
    compute_modulations,
    modulation_layers,
)
from musicinfuser.networks.text_tokens import MAX_TEXT_TOKENS, trim_text
from musicinfuser.networks.vaes import MochiVae

MOCHI_HUB_ID = "genmo/mochi-1-preview"
# The published architecture of genmo/mochi-1-preview.
MOCHI_CONFIG: dict[str, Any] = {
    "patch_size": 2,
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "num_layers": 48,
    "pooled_projection_dim": 1536,
    "in_channels": 12,
    "qk_norm": "rms_norm",
    "text_embed_dim": 4096,
    "time_embed_dim": 256,
    "activation_fn": "swiglu",
    "max_sequence_length": 256,
}


class Mochi(Backbone):
    """What is particular about Mochi."""

    family = "mochi"
    model_class = ClassOf("diffusers", "MochiTransformer3DModel")
    pipeline, music_pipeline = "MochiPipeline", "MusicInfuserPipeline"
    # Authors' training clips, section 5.1 (guidance) and Genmo's size.
    usual = Usual(73, 480, 848, NUM_STEPS, 6.0, MAX_TEXT_TOKENS)
    # 20 of width D, of which 16.5 are the block's own. Rotations: cos and sin of half a head's
    # channels in fp32, D values per token.
    shares = ActivationShares(20, 4, audio_widths=3, rotary_bytes=4)
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {MOCHI_HUB_ID: MOCHI_CONFIG}
    blocks_name = "transformer_blocks"
    text_width_key = "text_embed_dim"
    stored_sizes = ("num_layers", "num_attention_heads", "attention_head_dim", text_width_key)
    lora_visual = tuple(rf"attn1\.{name}" for name in ("to_q", "to_k", "to_v", r"to_out\.0"))
    lora_text = tuple(
        rf"attn1\.{name}" for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    )
    # The authors' q, k and v are one fused layer with one A.
    lora_feed_forward = (r"ff\.net\.0\.proj", r"ff\.net\.2")
    lora_feed_forward_text = (r"ff_context\.net\.0\.proj", r"ff_context\.net\.2")
    lora_shared_a = (("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj"))
    not_streamed = ("norm1.linear", "norm1_context.linear")
    text_layers = ("attn1.add_", "attn1.to_add_out", "ff_context")
    vae = MochiVae
    text_encoder_class = ClassOf("transformers", "T5EncoderModel")
    text_config_class = ClassOf("transformers", "T5Config")

    def __init__(self, model: Any) -> None:
        """Take a transformer; rotations of its last size of clip are kept."""
        super().__init__(model)
        self.rotary = RotaryTables(model)

    @classmethod
    def random_values(cls, name: str, shape: torch.Size, stream: torch.Generator) -> Tensor | None:
        """Of ``pos_frequencies``, zeros in diffusers: directions that tell positions apart."""
        return _random_frequencies(shape, stream) if name == "pos_frequencies" else None

    @classmethod
    def noise_levels(
        cls, num_steps: int, *, linear_threshold: float, shift: float | None
    ) -> Tensor:
        """Linear, then quadratic (Genmo's and the authors')."""
        if shift is not None:
            raise UserError(
                f"sampling.shift is {shift:g}, but Mochi's noise levels are bent by "
                "sampling.linear_threshold; set shift to null."
            )
        return linear_quadratic_sigmas(num_steps, threshold=linear_threshold)

    @classmethod
    def stored_family(cls) -> dict[str, str]:
        """Nothing: what does not say it is Mochi's, as all files once were."""
        return {}

    def adapt_blocks(self) -> None:
        """Modulations then come from outside, and attention takes no padding."""
        from musicinfuser.networks.backbones.mochi_block import AdaptedBlock

        adapt_blocks(self.blocks, AdaptedBlock)

    def timestep(self, sigma: Tensor) -> Tensor:
        """From 0 at noise to 1000 at data (diffusers' convention)."""
        return (1 - sigma) * 1000

    def embed(
        self,
        latents: Tensor,
        text: Tensor,
        timestep: Tensor,
        mask: Tensor | None,
        lengths: tuple[int, ...] | None,
    ) -> tuple[Stream, Given]:
        """Video and text streams; padding is cut before the first block."""
        model, patch = self.model, self.model.config.patch_size
        batch_size, _, num_frames, height, width = latents.shape
        if height % patch or width % patch:
            raise UserError(
                f"latents of {height}x{width} cannot be cut into patches of {patch}x{patch}."
            )
        text, text_mask, block_mask = trim_text(text, mask, lengths)
        latents = latents.to(model.dtype)
        temb, text = model.time_embed(
            timestep, text.to(model.dtype), text_mask, hidden_dtype=latents.dtype
        )
        visual = model.patch_embed(latents.permute(0, 2, 1, 3, 4).flatten(0, 1))
        visual = visual.unflatten(0, (batch_size, -1)).flatten(1, 2)
        rotary = self.rotary(num_frames, height // patch, width // patch, visual.device)
        # Offloaded blocks have their weights while they run, so each finds its own modulations.
        of_block: Sequence[Modulations | Tensor] = (
            [temb] * len(self.blocks)
            if any(is_hooked(block) for block in self.blocks)
            else compute_modulations(self.blocks, temb, text_dtype=text.dtype)
        )
        return (visual, text), Given((block_mask, rotary), of_block, temb, latents.shape)

    def run_block(
        self,
        index: int,
        zica: nn.Module | None,
        audio_weight: Tensor | None,
        given: Given,
        policy: GradientCheckpointing,
        *inputs: Tensor | None,
    ) -> Stream:
        """A block with its audio: video and text."""
        (visual, text, audio), (mask, rotary) = inputs, given.shared
        return self.blocks[index](
            hidden_states=visual, encoder_hidden_states=text, temb=given.of_block[index],
            encoder_attention_mask=mask, image_rotary_emb=rotary,
            audio=BlockAudio.of(zica, audio, audio_weight), policy=policy,
        )  # fmt: skip

    def head(self, visual: Tensor, given: Given) -> Tensor:
        """The velocity, which Mochi predicts as it is wanted here."""
        model, patch = self.model, self.model.config.patch_size
        batch_size, _, num_frames, height, width = given.latent_shape
        visual = model.proj_out(model.norm_out(visual, given.of_head))
        visual = visual.reshape(
            batch_size, num_frames, height // patch, width // patch, patch, patch, -1
        )
        return visual.permute(0, 6, 1, 2, 4, 3, 5).reshape(
            batch_size, -1, num_frames, height, width
        )

    def compiled_run(self) -> Callable[..., Any]:
        """`mochi_block.run_block`, compiled."""
        from musicinfuser.networks.backbones.mochi_block import compiled_run

        return compiled_run()

    def keep_modulations_on_host(self) -> None:
        """27 % of Mochi's weights."""
        for module in self.model.modules():
            if isinstance(module, PrecomputedModulation):
                module.keep_on_host()

    def feed_forward(self, block: Any) -> nn.Linear:
        """Of the video."""
        return block.ff.net[2]

    def modulation_layers(self, block: nn.Module) -> list[nn.Module]:
        """One for video, one for text."""
        return modulation_layers(block)


def _random_frequencies(shape: torch.Size, stream: torch.Generator) -> Tensor:
    """Rotations ``(3, heads, channels)`` in radians per unit of time, height and width.

    Random directions, 0.08 to 2 radians from one latent frame to the next; Mochi's height and width
    run over a range of about 192 whatever the clip's size, so they turn 48 times slower.
    """
    directions = torch.randn(shape, generator=stream)
    directions = directions / directions.norm(dim=0, keepdim=True)
    magnitudes = 0.08 * (2 / 0.08) ** torch.rand(shape[1:], generator=stream)
    return directions * magnitudes / torch.tensor([1.0, 48.0, 48.0])[:, None, None]
