"""MusicMochi: a frozen Mochi that is conditioned on audio (section 4).

Shape legend: B batch, C latent channels, T latent frames, H and W latent height and width,
N = T * H/2 * W/2 visual tokens, L text tokens, S audio tokens, D width.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

import torch
from diffusers import MochiTransformer3DModel
from torch import Tensor, nn

from musicinfuser import keyed_random
from musicinfuser.clip_size import LatentTimes
from musicinfuser.errors import UserError
from musicinfuser.memory.host_memory import kept_on_cpu
from musicinfuser.memory.offload_hooks import is_hooked, lora_scaled, run_with_hooks
from musicinfuser.memory.offloaded_checkpointing import OffloadedPass
from musicinfuser.memory.settings import GradientCheckpointing, MemorySettings
from musicinfuser.memory.streaming import StreamedBlocks
from musicinfuser.networks.adapted_block import BlockAudio, adapt_blocks, compiled_run
from musicinfuser.networks.attention import RotaryTables
from musicinfuser.networks.audio_encoder import AudioTimes
from musicinfuser.networks.audio_projector import AudioProjector, AudioResampling
from musicinfuser.networks.layer_selection import (
    LayerStrategy,
    check_skipped,
    select_layers,
)
from musicinfuser.networks.lora import LoraSpec, add_lora
from musicinfuser.networks.modulation import (
    Modulations,
    PrecomputedModulation,
    compute_modulations,
)
from musicinfuser.networks.music_adapter import MusicAdapter
from musicinfuser.networks.text_tokens import trim_text
from musicinfuser.networks.zica import ZicaSpec

# They run before the blocks do; `memory.modulations_on_host` decides where they are.
NOT_STREAMED = ("norm1.linear", "norm1_context.linear")


class MusicMochi(nn.Module):
    """Backbone, LoRA, audio projector and ZICA, with audio an explicit argument.

    The backbone's weights are never trained; adapters are held in fp32. With zero-initialised
    adapters the output equals the backbone's, bit for bit, with and without audio. The block loop
    is our own because audio enters between blocks (authors' code: on the visual stream, after the
    whole block).
    """

    adapter: MusicAdapter | None
    """ZICA and the audio projector together; None of a model without audio."""

    def __init__(
        self,
        backbone: MochiTransformer3DModel,
        *,
        layers: list[int] | LayerStrategy,
        zica: ZicaSpec,
        lora: LoraSpec | None,
        audio_width: int = 768,
        audio_resampling: AudioResampling = "nearest",
        audio_layers: Sequence[Sequence[int]] | None = None,
        audio_times: AudioTimes = AudioTimes(),  # noqa: B008 - frozen
        latent_times: LatentTimes = LatentTimes(),  # noqa: B008 - frozen
        memory: MemorySettings = MemorySettings(),  # noqa: B008 - frozen
        seed: int = 0,
    ) -> None:
        """Adapt a backbone.

        Args:
            backbone: A Mochi transformer; its parameters are frozen here.
            layers: Blocks followed by ZICA; an empty list means a model without audio.
            zica: Form of the audio adapters.
            lora: LoRA settings, or None for no LoRA.
            audio_width: Channels of the audio features (wav2vec 2.0 base: 768).
            audio_resampling: How audio features become one token per latent frame.
            audio_layers: As `AudioEncoder.layers`, of features with hidden states to mix.
            audio_times: When those features are.
            latent_times: When latent frames are, by the VAE and the frame rate (Mochi: 6, 1/30 s).
            memory: What is kept on the device, recomputed and compiled.
            seed: Seed of the adapters' initialisation.

        Raises:
            ValueError: Settings that do not exist or do not fit the backbone.
        """
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        adapt_blocks(backbone)
        config = backbone.config
        chosen = select_layers(layers, config.num_layers)
        self.memory, self.lora = memory, lora
        self._rotary = RotaryTables(backbone)
        # Drawn on the CPU so that a seed means the same adapters on every device.
        device = "meta" if torch.get_default_device().type == "meta" else "cpu"
        adapter = None
        with torch.device(device), torch.random.fork_rng(devices=[]):
            torch.manual_seed(keyed_random.key(seed, 0, "adapter init"))
            lora_names = add_lora(backbone, lora) if lora else set()
            if chosen:
                adapter = MusicAdapter(
                    config.num_attention_heads * config.attention_head_dim, list(chosen),
                    config.num_layers, audio_width, audio_resampling, **zica.stored(),
                    init=zica.init,
                    audio_layers=[list(group) for group in audio_layers] if audio_layers else None,
                )  # fmt: skip
                adapter.audio_projector.times = audio_times
                adapter.audio_projector.latent_times = latent_times
        self._use_adapter(adapter)
        for name, parameter in self.named_parameters():
            in_backbone = name.startswith("backbone.")
            is_trained = not in_backbone or name.removeprefix("backbone.") in lora_names
            parameter.requires_grad_(is_trained)
            if is_trained:
                parameter.data = parameter.data.float()
        if memory.compile_blocks:
            self.set_block_run(compiled_run())
        for module in backbone.modules() if memory.modulations_on_host else ():
            if isinstance(module, PrecomputedModulation):
                module.keep_on_host()
        # Last: from here on frozen parameters of blocks are not replaced.
        self.streamed = (
            StreamedBlocks(backbone.transformer_blocks, leave=NOT_STREAMED)
            if memory.stream_blocks
            else None
        )

    @classmethod
    def from_parts(cls, backbone: MochiTransformer3DModel, adapter: MusicAdapter | None) -> Self:
        """A model of parts that exist already, to generate with.

        The parts are shared, not copied, and may be on any device or offloaded by hooks of
        accelerate or diffusers; LoRA is what the backbone brings along.

        Args:
            backbone: Frozen here; its blocks are adapted if they are not yet.
            adapter: ZICA and the audio projector; None for a model without audio.
        """
        model = cls(backbone, layers=[], zica=ZicaSpec(), lora=None)
        model._use_adapter(adapter)
        return model

    def _use_adapter(self, adapter: MusicAdapter | None) -> None:
        # Not a module of this one: its parts are, under the names they have in checkpoints.
        self.__dict__["adapter"] = adapter
        self.layers: tuple[int, ...] = adapter.layers if adapter else ()
        self.zica = adapter.zica if adapter else nn.ModuleDict()
        self.audio_projector: AudioProjector | None = adapter.audio_projector if adapter else None

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Move and cast as modules do, but for weights that are streamed."""
        with kept_on_cpu(self.streamed.parameters() if self.streamed else ()):
            return super()._apply(fn, recurse)

    def set_block_run(self, run: Callable[..., tuple[Tensor, Tensor]]) -> None:
        """Run every block through ``run``, which does what `run_block` does."""
        for block in self.backbone.transformer_blocks:
            block.run = run

    def trainable_names(self) -> set[str]:
        """Names of every parameter that training changes (tied ones once)."""
        return {name for name, p in self.named_parameters() if p.requires_grad}

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        timestep: Tensor,
        encoder_attention_mask: Tensor | None = None,
        audio_features: Tensor | None = None,
        *,
        text_lengths: tuple[int, ...] | None = None,
        audio_weight: Tensor | None = None,
        skip_layers: tuple[int, ...] = (),
        lora_scale: float = 1.0,
    ) -> Tensor:
        """The velocity z - eps at a noise level.

        Hooks on the backbone, its parts and the adapter run as if their ``forward`` did.

        Args:
            hidden_states: ``(B, C, T, H, W)`` noisy latents, normalised; H and W even.
            encoder_hidden_states: ``(B, L, text width)`` T5 features, right-padded.
            timestep: ``(B,)`` fp32, (1 - sigma) * 1000 (diffusers' convention).
            encoder_attention_mask: ``(B, L)``, nonzero = valid. Read on the device; for parity
                and pipelines. Give this or ``text_lengths``.
            audio_features: ``(B, S, audio_width)``; None switches ZICA off.
            text_lengths: Valid text tokens per sample, known on the host; padding is cut before
                the first block, and nothing on the device is waited for.
            audio_weight: ``(B,)`` times what ZICA adds to each sample: 0 is as without audio, 1 as
                with it; None is 1 for all, and costs nothing.
            skip_layers: Blocks that are left out with their ZICA: identities for video and text,
                the last one too (section 4.1). For sampling only.
            lora_scale: Times what each LoRA counts; 0 is the backbone without.

        Returns:
            ``(B, C, T, H, W)`` in the backbone's type.

        Raises:
            ValueError: Not exactly one of mask and lengths, sizes that cannot be patched, or blocks
                to skip that do not exist or while gradients are on.
        """
        run = partial(
            self._velocity, hidden_states, encoder_hidden_states, timestep, encoder_attention_mask,
            audio_features, text_lengths, audio_weight, skip_layers,
        )  # fmt: skip
        adapter = None if audio_features is None else self.adapter
        with lora_scaled(self.backbone, lora_scale):
            return run_with_hooks(self.backbone, lambda: run_with_hooks(adapter, run))

    def _velocity(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        timestep: Tensor,
        encoder_attention_mask: Tensor | None,
        audio_features: Tensor | None,
        text_lengths: tuple[int, ...] | None,
        audio_weight: Tensor | None,
        skip_layers: tuple[int, ...],
    ) -> Tensor:
        backbone = self.backbone
        batch_size, _, num_frames, height, width = hidden_states.shape
        patch = backbone.config.patch_size
        if height % patch or width % patch:
            raise UserError(
                f"latents of {height}x{width} cannot be cut into patches of {patch}x{patch}."
            )
        if skip_layers:
            check_skipped(skip_layers, depth=len(backbone.transformer_blocks))
        text, text_mask, block_mask = trim_text(
            encoder_hidden_states, encoder_attention_mask, text_lengths
        )
        hidden_states = hidden_states.to(backbone.dtype)
        temb, text = backbone.time_embed(
            timestep, text.to(backbone.dtype), text_mask, hidden_dtype=hidden_states.dtype
        )
        visual = backbone.patch_embed(hidden_states.permute(0, 2, 1, 3, 4).flatten(0, 1))
        visual = visual.unflatten(0, (batch_size, -1)).flatten(1, 2)
        rotary = self._rotary(num_frames, height // patch, width // patch, visual.device)
        audio = None
        if audio_features is not None and self.audio_projector is not None:
            audio = self.audio_projector(audio_features, num_frames)
        blocks = backbone.transformer_blocks
        # Offloaded blocks have their weights while they run, so each finds its own modulations.
        modulations: Sequence[Modulations | Tensor] = (
            [temb] * len(blocks)
            if any(is_hooked(block) for block in blocks)
            else compute_modulations(blocks, temb, text_dtype=text.dtype)
        )
        if self.memory.compile_blocks and self.lora is not None and torch.is_grad_enabled():
            # Inputs with a gradient and without are different graphs: the first block would need
            # one of its own. As it has LoRA, all this costs is its projections' input gradients.
            visual.requires_grad_()
            text.requires_grad_()
        offloaded = None
        if self.streamed is not None or self.memory.offload_inputs:
            offloaded = OffloadedPass(
                len(blocks), weights=self.streamed, offload_inputs=self.memory.offload_inputs
            )
        for i, block in enumerate(blocks):
            if i in skip_layers:
                continue
            zica = self.zica[str(i)] if audio is not None and i in self.layers else None
            run = partial(_run, block, zica, audio_weight, modulations[i], block_mask, rotary)
            tokens = None if zica is None else audio
            if offloaded is None:
                visual, text = run(self.memory.gradient_checkpointing, visual, text, tokens)
            else:
                parameters = (*block.parameters(), *(zica.parameters() if zica else ()))
                trained = [p for p in parameters if p.requires_grad]
                run = partial(run, "none")
                visual, text = offloaded.run(i, run, (visual, text, tokens), trained)
        visual = backbone.proj_out(backbone.norm_out(visual, temb))
        visual = visual.reshape(
            batch_size, num_frames, height // patch, width // patch, patch, patch, -1
        )
        return visual.permute(0, 6, 1, 2, 4, 3, 5).reshape(
            batch_size, -1, num_frames, height, width
        )


def _run(
    block: nn.Module,
    zica: nn.Module | None,
    audio_weight: Tensor | None,
    modulations: Modulations | Tensor,
    mask: Tensor | None,
    rotary: tuple[Tensor, Tensor],
    policy: GradientCheckpointing,
    visual: Tensor,
    text: Tensor,
    audio: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """A block with its audio; what may need a gradient comes last."""
    block_audio = None if zica is None or audio is None else BlockAudio(zica, audio, audio_weight)
    return block(
        hidden_states=visual, encoder_hidden_states=text, temb=modulations,
        encoder_attention_mask=mask, image_rotary_emb=rotary, audio=block_audio, policy=policy,
    )  # fmt: skip
