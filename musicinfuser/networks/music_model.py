"""MusicModel: a frozen transformer, Mochi or another, that is conditioned on audio (section 4).

Shape legend: B batch, C latent channels, T latent frames, H and W latent height and width,
L text tokens, S audio tokens.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from musicinfuser import keyed_random
from musicinfuser.clip_size import check_takes_image
from musicinfuser.errors import UserError
from musicinfuser.memory.host_memory import kept_on_cpu
from musicinfuser.memory.offload_hooks import lora_scaled, run_with_hooks
from musicinfuser.memory.offloaded_checkpointing import OffloadedPass
from musicinfuser.memory.settings import MemorySettings
from musicinfuser.memory.streaming import StreamedBlocks
from musicinfuser.networks.audio_encoder import AudioTimes
from musicinfuser.networks.audio_projector import AudioProjector, AudioResampling
from musicinfuser.networks.backbones import Backbone, backbone_of
from musicinfuser.networks.layer_selection import (
    LayerStrategy,
    check_skipped,
    select_layers,
)
from musicinfuser.networks.lora import LoraSpec, add_lora
from musicinfuser.networks.quantised import is_quantised
from musicinfuser.networks.zica import ZicaSpec

if TYPE_CHECKING:
    from musicinfuser.networks.music_adapter import MusicAdapter


class MusicModel(nn.Module):
    """Backbone, LoRA, audio projector and ZICA, with audio an explicit argument.

    The backbone's weights are never trained; adapters are held in fp32. With zero-initialised
    adapters the output equals the backbone's, bit for bit, with and without audio. The block loop
    is our own because audio enters between blocks (authors' code: on the visual stream, after the
    whole block). What families of backbones do unlike each other, ``kind`` does.
    """

    backbone: Any
    """A transformer of diffusers."""

    kind: Backbone
    """The backbone with what is particular about its family."""

    adapter: "MusicAdapter | None"
    """ZICA and the audio projector together; None of a model without audio."""

    def __init__(
        self,
        backbone: Any,
        *,
        layers: list[int] | LayerStrategy,
        zica: ZicaSpec,
        lora: LoraSpec | None,
        audio_width: int = 768,
        audio_resampling: AudioResampling = "nearest",
        audio_layers: Sequence[Sequence[int]] | None = None,
        audio_times: AudioTimes = AudioTimes(),  # noqa: B008 - frozen
        fps: float | None = None,
        memory: MemorySettings = MemorySettings(),  # noqa: B008 - frozen
        seed: int = 0,
    ) -> None:
        """Adapt a backbone.

        Args:
            backbone: A transformer of diffusers of one of the families; its parameters are frozen
                here.
            layers: Blocks followed by ZICA; an empty list means a model without audio.
            zica: Form of the audio adapters.
            lora: LoRA settings, or None for no LoRA.
            audio_width: Channels of the audio features (wav2vec 2.0 base: 768).
            audio_resampling: How audio features become one token per latent frame.
            audio_layers: As `AudioEncoder.layers`, of features with hidden states to mix.
            audio_times: When those features are.
            fps: Frames per second of the videos; None: the family's (Mochi: 30).
            memory: What is kept on the device, recomputed and compiled.
            seed: Seed of the adapters' initialisation.

        Raises:
            ValueError: Settings that do not exist or do not fit the backbone.
        """
        from musicinfuser.networks.music_adapter import MusicAdapter

        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        # Not a module: parameters keep the names they have in checkpoints.
        self.kind = kind = backbone_of(backbone)
        if is_quantised(backbone):
            _check_quantised_base(lora, memory)
        kind.adapt_blocks()
        depth = len(kind.blocks)
        chosen = select_layers(layers, depth)
        self.memory, self.lora = memory, lora
        # Drawn on the CPU so that a seed means the same adapters on every device.
        device = "meta" if torch.get_default_device().type == "meta" else "cpu"
        adapter = None
        with torch.device(device), torch.random.fork_rng(devices=[]):
            torch.manual_seed(keyed_random.key(seed, 0, "adapter init"))
            lora_names = add_lora(backbone, lora) if lora else set()
            if chosen:
                said: dict[str, Any] = dict(kind.stored_family())
                if fps not in (None, kind.geometry.fps):
                    said["fps"] = fps
                adapter = MusicAdapter(
                    kind.width, list(chosen), depth, audio_width, audio_resampling,
                    **zica.stored(), **said,
                    init=zica.init,
                    audio_layers=[list(group) for group in audio_layers] if audio_layers else None,
                )  # fmt: skip
                adapter.audio_projector.times = audio_times
        self._use_adapter(adapter)
        for name, parameter in self.named_parameters():
            in_backbone = name.startswith("backbone.")
            is_trained = not in_backbone or name.removeprefix("backbone.") in lora_names
            parameter.requires_grad_(is_trained)
            if is_trained:
                parameter.data = parameter.data.float()
        if memory.compile_blocks:
            self.set_block_run(kind.compiled_run())
        if memory.modulations_on_host:
            kind.keep_modulations_on_host()
        # Last: from here on frozen parameters of blocks are not replaced.
        self.streamed = (
            StreamedBlocks(kind.blocks, leave=kind.not_streamed) if memory.stream_blocks else None
        )

    @classmethod
    def from_parts(cls, backbone: Any, adapter: "MusicAdapter | None") -> Self:
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

    def _use_adapter(self, adapter: "MusicAdapter | None") -> None:
        # Not a module of this one: its parts are, under the names they have in checkpoints.
        self.__dict__["adapter"] = adapter
        self.layers: tuple[int, ...] = adapter.layers if adapter else ()
        self.zica = adapter.zica if adapter else nn.ModuleDict()
        self.audio_projector: AudioProjector | None = adapter.audio_projector if adapter else None

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Move and cast as modules do, but for weights that are streamed."""
        with kept_on_cpu(self.streamed.parameters() if self.streamed else ()):
            return super()._apply(fn, recurse)

    def set_block_run(self, run: Callable[..., Any]) -> None:
        """Run every block through ``run``, which does what ``run_block`` of its family does."""
        block: Any
        for block in self.kind.blocks:
            block.run = run

    def timestep(self, sigma: Tensor) -> Tensor:
        """What ``forward`` takes for noise levels ``(B,)`` or ``(B, T)`` in [0, 1], fp32."""
        return self.kind.timestep(sigma)

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
            timestep: ``(B,)`` fp32, as `timestep` gives it; or ``(B, T)``, one for each latent
                frame, of a backbone that can begin with a picture: given frames have no noise.
            encoder_attention_mask: ``(B, L)``, nonzero = valid. Read on the device; for parity
                and pipelines. Give this or ``text_lengths``.
            audio_features: ``(B, S, audio_width)``; None switches ZICA off.
            text_lengths: Valid text tokens per sample, known on the host, so that nothing on the
                device is waited for; padding does not count.
            audio_weight: ``(B,)`` times what ZICA adds to each sample: 0 is as without audio, 1 as
                with it; None is 1 for all, and costs nothing.
            skip_layers: Blocks that are left out with their ZICA: identities for video and text,
                the last one too (section 4.1). For sampling only.
            lora_scale: Times what each LoRA counts; 0 is the backbone without.

        Returns:
            ``(B, C, T, H, W)`` in the backbone's type.

        Raises:
            ValueError: Not exactly one of mask and lengths, sizes that cannot be patched, noise
                levels per frame of a backbone that has one, or blocks to skip that do not exist or
                while gradients are on.
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
        kind = self.kind
        if timestep.dim() == 2:
            check_takes_image(kind.geometry)
        if skip_layers:
            check_skipped(skip_layers, depth=len(kind.blocks))
        stream, given = kind.embed(
            hidden_states, encoder_hidden_states, timestep, encoder_attention_mask, text_lengths
        )
        audio = None
        if audio_features is not None and self.audio_projector is not None:
            audio = self.audio_projector(audio_features, hidden_states.shape[2])
        if self.memory.compile_blocks and self.lora is not None and torch.is_grad_enabled():
            # Inputs with a gradient and without are different graphs: the first block would need
            # one of its own. As it has LoRA, all this costs is its projections' input gradients.
            for tokens in stream:
                tokens.requires_grad_()
        offloaded = None
        if self.streamed is not None or self.memory.offload_inputs:
            offloaded = OffloadedPass(
                len(kind.blocks), weights=self.streamed, offload_inputs=self.memory.offload_inputs
            )
        for i, block in enumerate(kind.blocks):
            if i in skip_layers:
                continue
            zica = self.zica[str(i)] if audio is not None and i in self.layers else None
            run = partial(kind.run_block, i, zica, audio_weight, given)
            inputs = (*stream, None if zica is None else audio)
            if offloaded is None:
                stream = run(self.memory.gradient_checkpointing, *inputs)
            else:
                parameters = (*block.parameters(), *(zica.parameters() if zica else ()))
                trained = [p for p in parameters if p.requires_grad]
                stream = offloaded.run(i, partial(run, "none"), inputs, trained)
            del inputs  # what a block was given is not held while the next one runs
        return kind.head(stream[0], given)


def _check_quantised_base(lora: LoraSpec | None, memory: MemorySettings) -> None:
    """Refuse what needs a backbone whose weights are as they were trained."""
    if memory.stream_blocks:
        raise UserError(
            "model.backbone.quantize keeps the blocks' weights on the device, memory.stream_blocks "
            "in the host's memory; set one of them: null, or false."
        )
    if lora is not None and lora.dora:
        raise UserError(
            "lora.dora measures the rows of the weights, which model.backbone.quantize changes; "
            "set lora.dora to false or quantize to null."
        )
