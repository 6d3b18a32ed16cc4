"""Wan 2.1 T2V (1.3B, 14B) and Wan 2.2 TI2V 5B as text-to-video: one stream, velocity eps - z.

Blocks attend to the text, which none of them changes. Numbers of architectures: the configs of
Wan's code (github.com/Wan-Video, wan/configs), which diffusers' folders repeat.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicinfuser.clip_size import GEOMETRIES
from musicinfuser.diffusion.noise_levels import shifted
from musicinfuser.diffusion.sampler import Solver
from musicinfuser.errors import UserError
from musicinfuser.memory.settings import GradientCheckpointing
from musicinfuser.networks.adapted_block import BlockAudio, adapt_blocks, compiled
from musicinfuser.networks.backbones.base import (
    ActivationShares,
    Backbone,
    Given,
    SolverName,
    Stream,
    Usual,
)
from musicinfuser.networks.class_of import ClassOf
from musicinfuser.networks.text_tokens import trim_text
from musicinfuser.networks.vaes import Vae, WanVae
from musicinfuser.pretrained_sources import find_local, model_index, part_config
from musicinfuser.setting_checks import check_number

WAN_1B_HUB_ID = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
WAN_14B_HUB_ID = "Wan-AI/Wan2.1-T2V-14B-Diffusers"
WAN_5B_HUB_ID = "Wan-AI/Wan2.2-TI2V-5B-Diffusers"
WAN_1B_CONFIG: dict[str, Any] = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 12,
    "attention_head_dim": 128,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "ffn_dim": 8960,
    "num_layers": 30,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "rope_max_seq_len": 1024,
}
WAN_14B_CONFIG = WAN_1B_CONFIG | {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40}
WAN_5B_CONFIG = WAN_1B_CONFIG | {
    "num_attention_heads": 24,
    "ffn_dim": 14336,
    "in_channels": 48,
    "out_channels": 48,
}
TEXT_TOKENS = 512
"""Tokens that text is filled up to with zeros; Wan was trained to attend to these too."""
NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，"
    "JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，"
    "形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
"""Wan's code (``shared_config.py``, ``sample_neg_prompt``)."""
# Wan's code for text-to-video (``generate.py``); its README asks 8 to 12 of the 1.3B.
DEFAULT_SHIFT = 5.0


class Wan(Backbone):
    """What is particular about Wan 2.1."""

    family = "wan"
    model_class = ClassOf("diffusers", "WanTransformer3DModel")
    pipeline, music_pipeline = "WanPipeline", "MusicInfuserWanPipeline"
    # Wan's code (wan/configs, generate.py).
    usual = Usual(81, 480, 832, 50, 5.0, TEXT_TOKENS, NEGATIVE_PROMPT)
    # Counted at the sizes of the 1.3B, the 5B and the 14B; rotations are of one head.
    shares = ActivationShares(
        20.4, 1, audio_widths=4, passing_widths=9.5, passing_inner_widths=2, given_widths=(8, 16),
        are_of_start=True,
    )  # fmt: skip
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        WAN_1B_HUB_ID: WAN_1B_CONFIG,
        WAN_14B_HUB_ID: WAN_14B_CONFIG,
    }
    blocks_name = "blocks"
    text_width_key = "text_dim"
    stored_sizes = (
        "num_layers", "num_attention_heads", "attention_head_dim", text_width_key, "in_channels",
    )  # fmt: skip
    lora_visual = tuple(rf"attn1\.{name}" for name in ("to_q", "to_k", "to_v", r"to_out\.0"))
    # Text is no stream: the attention that reads it has these in the place of Mochi's.
    lora_text = tuple(rf"attn2\.{name}" for name in ("to_q", "to_k", "to_v", r"to_out\.0"))
    lora_feed_forward = (r"ffn\.net\.0\.proj", r"ffn\.net\.2")
    text_layers = ("attn2.to_k", "attn2.to_v")
    vae: ClassVar[type[Vae]] = WanVae
    text_encoder_class = ClassOf("transformers", "UMT5EncoderModel")
    text_config_class = ClassOf("transformers", "UMT5Config")
    text_attentions = 1
    most_text_tokens = TEXT_TOKENS
    reads_empty_text = True  # one token, the end

    @classmethod
    def suits(cls, config: Mapping[str, Any]) -> bool:
        """By the latents it takes; Wan that takes a picture too is of no family."""
        takes_picture = config.get("image_dim") or config.get("added_kv_proj_dim")
        return config["in_channels"] == GEOMETRIES[cls.family].channels and not takes_picture

    @classmethod
    def check_source(cls, source: str) -> None:
        """Refuse checkpoints with two experts, of which one folder is half.

        By what the pipeline's folder says of itself, the second folder, or a name; the config of
        one of its transformers alone is that of Wan 2.1's 14B.
        """
        index = model_index(source)
        second = index.get("transformer_2") or [None]
        read_from = part_config(source, "transformer").get("_name_or_path") or ""
        named = f"{Path(source).name} {read_from}"
        if (
            index.get("boundary_ratio") is not None
            or second[0] is not None
            or find_local(source, "transformer_2")
            or "a14b" in named.lower()
        ):
            cls.refuse_two_experts(source)

    @classmethod
    def refuse_two_experts(cls, source: str) -> NoReturn:
        """Say why a checkpoint with two transformers is not taken (`UserError`)."""
        raise UserError(
            f"{source} has two transformers, one for high noise and one for low (Wan 2.2 A14B); "
            "only one can be adapted: take Wan 2.1, or the 5B of Wan 2.2."
        )

    @classmethod
    def usual_of(cls, config: Mapping[str, Any]) -> Usual:
        """Wan's README asks guidance 6 and a shift of 8 to 12 of the 1.3B."""
        known = (WAN_1B_CONFIG[name] for name in ("num_layers", "num_attention_heads"))
        is_1b = (config["num_layers"], config["num_attention_heads"]) == tuple(known)
        return replace(cls.usual, guidance_scale=6.0, shift=8.0) if is_1b else cls.usual

    @classmethod
    def noise_levels(
        cls, num_steps: int, *, linear_threshold: float, shift: float | None
    ) -> Tensor:
        """Even ones, shifted towards noise, as in Wan's code (``fm_solvers.py``)."""
        check_number("the number of sampling steps", num_steps, at_least=1)
        even = torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)
        return shifted(even, cls.training_shift(shift)).float()

    @classmethod
    def solver(
        cls, name: SolverName, num_steps: int, *, linear_threshold: float, shift: float | None
    ) -> Solver:
        """Euler's method, or `UniPC`, which Wan's folders and its code name."""
        if name == "unipc":
            check_number("the number of sampling steps", num_steps, at_least=1)
            return UniPC(num_steps, shift=cls.training_shift(shift))
        return super().solver(name, num_steps, linear_threshold=linear_threshold, shift=shift)

    @classmethod
    def training_shift(cls, shift: float | None) -> float:
        """As in sampling."""
        return DEFAULT_SHIFT if shift is None else shift

    @classmethod
    def cleaned(cls, text: str) -> str:
        """Entities of html and runs of spaces resolved; broken UTF-8 where ftfy is installed."""
        from diffusers.pipelines.wan.pipeline_wan import prompt_clean

        return prompt_clean(text)

    @classmethod
    def random_values(cls, name: str, shape: torch.Size, stream: torch.Generator) -> Tensor | None:
        """Of the tables of scales and shifts, which are no matrices: as diffusers draws them."""
        if not name.endswith("scale_shift_table"):
            return None
        return torch.randn(shape, generator=stream) * shape[-1] ** -0.5

    @classmethod
    def restore_buffers(cls, model: Any) -> None:
        """The rotations are in no state dict; they are fp32 whatever the weights are."""
        from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

        config = model.config
        old = model.rope.freqs_cos
        with torch.device(old.device):
            model.rope = WanRotaryPosEmbed(
                config.attention_head_dim, config.patch_size, config.rope_max_seq_len
            )

    def adapt_blocks(self) -> None:
        """Attention stays diffusers'."""
        from musicinfuser.networks.backbones.wan_block import AdaptedWanBlock

        adapt_blocks(self.blocks, AdaptedWanBlock)

    def timestep(self, sigma: Tensor) -> Tensor:
        """From 1000 at noise to 0 at data."""
        return (sigma * 1000).float()

    def embed(
        self,
        latents: Tensor,
        text: Tensor,
        timestep: Tensor,
        mask: Tensor | None,
        lengths: tuple[int, ...] | None,
    ) -> tuple[Stream, Given]:
        """The video stream; the text, filled up with zeros, is the same for all blocks.

        With one noise level for a clip all its tokens share a modulation, also with TI2V, whose
        pipeline gives each token one: off by 2e-7 of the velocity in fp32, and ``(B, N, 6, D)``
        smaller. With one for each latent frame tokens have their own, as in that pipeline.
        """
        model, dtype = self.model, self.model.patch_embedding.weight.dtype
        _, rows, columns = model.config.patch_size
        height, width = latents.shape[3:]
        if height % rows or width % columns:
            raise UserError(
                f"latents of {height}x{width} cannot be cut into patches of {rows}x{columns}."
            )
        if model.rope.freqs_cos.dtype != torch.float32:
            raise UserError(
                "Wan's rotations and norms must stay in fp32; do not cast the whole model, but "
                "load it in bf16: model.backbone.dtype, with trainer.precision bf16-mixed, or "
                "dtype of from_pretrained."
            )
        latents = latents.to(dtype)
        text = _filled_up(text.to(dtype), mask, lengths, num_tokens=self.most_text_tokens)
        rotary = model.rope(latents)
        # As in WanPipeline, which knows no autocast: each part has the type of its weights.
        with torch.autocast(latents.device.type, enabled=False):
            visual = model.patch_embedding(latents).flatten(2).transpose(1, 2).contiguous()
            num_levels = None
            if timestep.dim() == 2:
                # Of each token, as there: of fewer rows a product may have other last bits.
                per_frame = visual.shape[1] // latents.shape[2]
                timestep = timestep.repeat_interleave(per_frame, dim=1)
                num_levels, timestep = timestep.shape[1], timestep.flatten()
            time, modulation, text, _ = model.condition_embedder(
                timestep, text, None, timestep_seq_len=num_levels
            )
        of_block = [modulation.unflatten(-1, (6, -1))] * len(self.blocks)
        return (visual,), Given((text, rotary), of_block, time, latents.shape)

    def run_block(
        self,
        index: int,
        zica: nn.Module | None,
        audio_weight: Tensor | None,
        given: Given,
        policy: GradientCheckpointing,
        *inputs: Tensor | None,
    ) -> Stream:
        """A block with its audio: the video."""
        (visual, audio), (text, rotary) = inputs, given.shared
        visual = self.blocks[index](
            visual, text, given.of_block[index], rotary,
            audio=BlockAudio.of(zica, audio, audio_weight), policy=policy,
        )  # fmt: skip
        return (visual,)

    def head(self, visual: Tensor, given: Given) -> Tensor:
        """The velocity with its sign turned: Wan predicts eps - z. No bit is lost by that."""
        model = self.model
        # (B, D), or (B, N, D) where tokens have levels of their own.
        table = model.scale_shift_table.to(visual.device) + given.of_head.unsqueeze(-2)
        shift, scale = (part.flatten(1, -2) for part in table.chunk(2, dim=-2))
        with torch.autocast(visual.device.type, enabled=False):
            visual = (model.norm_out(visual.float()) * (1 + scale) + shift).type_as(visual)
            visual = model.proj_out(visual)
        batch_size, _, *sizes = given.latent_shape
        patch = model.config.patch_size
        counts = [size // side for size, side in zip(sizes, patch, strict=True)]
        visual = visual.reshape(batch_size, *counts, *patch, -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return -visual.reshape(batch_size, -1, *sizes)

    def compiled_run(self) -> Callable[..., Any]:
        """`wan_block.run_block`, compiled."""
        from musicinfuser.networks.backbones.wan_block import run_block

        return compiled(run_block)

    def feed_forward(self, block: Any) -> nn.Linear:
        """The only one."""
        return block.ffn.net[2]


class Wan5B(Wan):
    """What is particular about Wan 2.2 TI2V 5B: another VAE, so other latents."""

    family = "wan_5b"
    usual = Usual(121, 704, 1280, 50, 5.0, TEXT_TOKENS, NEGATIVE_PROMPT)
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {WAN_5B_HUB_ID: WAN_5B_CONFIG}


class UniPC(Solver):
    """diffusers' scheduler of Wan's folders: a predictor and a corrector of order 2.

    Its levels and its whole-number timesteps are its own; the velocity's sign is turned for it.
    """

    def __init__(self, num_steps: int, *, shift: float) -> None:
        """Set it to the beginning."""
        from diffusers import UniPCMultistepScheduler

        self.scheduler = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
        )
        self.scheduler.set_timesteps(num_steps)
        self.scheduler.set_begin_index(0)
        # In double precision times 1000 they are whole again.
        self.levels = F.pad(self.scheduler.timesteps.double() / 1000, (0, 1))

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        """As the scheduler does."""
        timestep = self.scheduler.timesteps[index]
        return self.scheduler.step(-velocity, timestep, latents, return_dict=False)[0]

    def memory(self) -> dict[str, Tensor]:
        """Its last two estimates of the data, and where the last step began."""
        estimates = [e for e in self.scheduler.model_outputs if e is not None]
        found = {f"estimate_{i}": estimate for i, estimate in enumerate(estimates)}
        return found | {"begun_at": self.scheduler.last_sample}

    def remember(self, num_done: int, memory: Mapping[str, Tensor]) -> None:
        """Put it where another one was."""
        scheduler, order = self.scheduler, self.scheduler.config.solver_order
        estimates = [memory[name] for name in sorted(memory) if name.startswith("estimate_")]
        scheduler.model_outputs = [None] * (order - len(estimates)) + estimates
        scheduler.last_sample = memory["begun_at"]
        scheduler.lower_order_nums = min(num_done, order)
        # Of the step before: it knew one estimate more than steps were done, the last ones fewer.
        scheduler.this_order = min(order, len(scheduler.timesteps) - (num_done - 1), num_done)
        scheduler.set_begin_index(num_done)


def _filled_up(
    text: Tensor, mask: Tensor | None, lengths: tuple[int, ...] | None, *, num_tokens: int
) -> Tensor:
    """Text ``(B, L, width)`` with zeros after each sample's own tokens, to ``num_tokens``."""
    text, _, is_own = trim_text(text, mask, lengths)
    if text.shape[1] > num_tokens:
        raise UserError(
            f"a text has {text.shape[1]} tokens, but the backbone reads {num_tokens}; cut it, by "
            "model.encoders.max_text_tokens or the pipeline's max_sequence_length."
        )
    if is_own is not None:
        text = text.masked_fill(~is_own[..., None], 0)
    return F.pad(text, (0, 0, 0, num_tokens - text.shape[1]))
