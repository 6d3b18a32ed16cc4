"""Nodes of ComfyUI that condition a loaded Wan or Mochi on music; README.md says how to use them.

ComfyUI calls what stands in a transformer option in the place of a block, and hands it that block
(``patches_replace``, ``dit``, ``double_block``). ZICA is added there, and LoRA by ComfyUI's own
loader; noise levels, time and the sign of the velocity stay ComfyUI's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor, nn

from musicinfuser.adapters.comfyui import comfyui_lora
from musicinfuser.adapters.folder import read_folder
from musicinfuser.adapters.loading import adapter_parts, check_sizes
from musicinfuser.adapters.settings import Adapter
from musicinfuser.clip_size import LatentGeometry, geometry_of
from musicinfuser.errors import UserError
from musicinfuser.networks.music_adapter import MusicAdapter
from musicinfuser.pipelines.conditions import ConditionsMixin, waveforms

KEY = "musicinfuser"
_WAN_BY_CHANNELS = {geometry_of(family).channels: family for family in ("wan", "wan_5b")}


@dataclass
class LoadedAdapter(ConditionsMixin):
    """An adapter's folder in memory, and what makes features of its sounds."""

    adapter: Adapter
    zica: MusicAdapter
    audio_encoder: Any
    feature_extractor: Any
    # A second of work; on the card it would take part in ComfyUI's plan of memory.
    _execution_device: torch.device = torch.device("cpu")

    @property
    def fps(self) -> float:
        """Frames per second of the videos it was trained on."""
        return self.zica.fps

    def features(self, audio: dict[str, Any], num_latent: int, start_seconds: float) -> Tensor:
        """Features ``(1, S, width)`` of the sound of a clip with so many latent frames.

        Raises:
            UserError: There are several sounds.
            MediaError: The sound is silent, or ends before the clip.
        """
        sounds = audio["waveform"]  # (B, channels, samples)
        if len(sounds) != 1:
            raise UserError(
                f"audio holds {len(sounds)} sounds, but one is for all videos; give one."
            )
        geometry, encoder = geometry_of(self.zica.family), self._audio_encoder()
        num_frames = (num_latent - 1) * geometry.temporal + 1
        spans = waveforms(
            (sounds[0], audio["sample_rate"]), rate_hz=encoder.rate_hz, num_clips=1,
            num_frames=num_frames, start_seconds=start_seconds, fps=self.fps, geometry=geometry,
            context_seconds=encoder.context_seconds,
        )  # fmt: skip
        found = self._features(encoder, spans, 1, num_frames, start_seconds, None)
        assert isinstance(found, Tensor)
        return found


class LoadMusicAdapter:
    """Read an adapter's folder."""

    CATEGORY = "MusicInfuser"
    FUNCTION = "load"
    RETURN_TYPES = ("MUSIC_ADAPTER",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """The folder, and where the audio encoder is if not where the adapter says."""
        text = ("STRING", {"default": ""})
        return {"required": {"folder": text}, "optional": {"audio_encoder": text}}

    def load(self, folder: str, audio_encoder: str = "") -> tuple[LoadedAdapter]:
        """Read it.

        Raises:
            UserError: It is no such folder, has no ZICA, or its audio encoder is not to be found.
        """
        adapter = read_folder(folder)
        if not adapter.settings.layers:
            raise UserError(
                f"{folder} has no ZICA, only LoRA; write that with `python -m musicinfuser.convert "
                "to-comfyui` and load it with ComfyUI's own node."
            )
        parts = adapter_parts(folder, base=None, audio_encoder=audio_encoder or None)
        parts["zica"].requires_grad_(False).eval()
        return (LoadedAdapter(adapter, **parts),)


class ApplyMusicAdapter:
    """Give a model an adapter and the music that its next video follows."""

    CATEGORY = "MusicInfuser"
    FUNCTION = "apply"
    RETURN_TYPES = ("MODEL", "FLOAT")
    RETURN_NAMES = ("model", "fps")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """Music may be absent, then LoRA alone is applied; the latent says how long the video is.

        A strength of 1 is as trained; so much counts what ZICA, or LoRA, adds.
        """
        strength = ("FLOAT", {"default": 1.0, "min": 0.0, "max": 5.0, "step": 0.05})
        seconds = ("FLOAT", {"default": 0.0, "min": 0.0, "max": 36000.0, "step": 0.01})
        return {
            "required": {
                "model": ("MODEL",),
                "adapter": ("MUSIC_ADAPTER",),
                "latent": ("LATENT",),
                "start_seconds": seconds,
                "music_strength": strength,
                "lora_strength": strength,
            },
            "optional": {"audio": ("AUDIO",)},
        }

    def apply(
        self,
        model: Any,
        adapter: LoadedAdapter,
        latent: dict[str, Any],
        start_seconds: float,
        music_strength: float,
        lora_strength: float,
        audio: dict[str, Any] | None = None,
    ) -> tuple[Any, float]:
        """A copy of the model with both, and the frame rate of its videos.

        Raises:
            UserError: The model is not the adapter's, or its LoRA cannot be applied.
            MediaError: As of `LoadedAdapter.features`.
        """
        import comfy.model_management
        import comfy.model_patcher
        import comfy.patcher_extension
        import comfy.sd

        check_model(model.model.diffusion_model, adapter)
        num_latent = latent["samples"].shape[2]
        features = None
        if audio is not None and music_strength:
            features = adapter.features(audio, num_latent, start_seconds)
        model = model.clone()
        if adapter.adapter.settings.lora is not None and lora_strength:
            lora = comfyui_lora(adapter.adapter)
            model, _ = comfy.sd.load_lora_for_models(model, None, lora, lora_strength, 0.0)
        if features is not None:
            model.add_wrapper_with_key(
                comfy.patcher_extension.WrappersMP.APPLY_MODEL, KEY,
                conditioned(adapter.zica, features, num_latent, music_strength),
            )  # fmt: skip
            # In a module, as ComfyUI sets attributes that diffusers' models do not let be set.
            weights = comfy.model_patcher.ModelPatcher(
                nn.ModuleList([adapter.zica]),
                load_device=comfy.model_management.get_torch_device(),
                offload_device=comfy.model_management.unet_offload_device(),
            )
            others = model.get_additional_models_with_key(KEY)
            model.set_additional_models(KEY, [*others, weights])
        return model, adapter.fps


def check_model(network: Any, adapter: LoadedAdapter) -> None:
    """Refuse a network of ComfyUI's that the adapter was not trained on.

    Raises:
        UserError: It is neither Mochi nor Wan for text to video.
        AdapterMismatchError: Sizes differ, or the audio encoder is another.
    """
    name, family, width = type(network).__name__, None, 0
    if name == "AsymmDiTJoint":
        family, width = "mochi", network.hidden_size_x
    # One that takes a reference or a picture has other channels, or tokens before the video's.
    elif name == "WanModel" and network.ref_conv is None and network.model_type == "t2v":
        family, width = _WAN_BY_CHANNELS.get(network.in_dim), network.dim
    if family is None:
        raise UserError(
            f"the model is a {name} that no adapter is for; load Mochi, Wan 2.1 for text to video, "
            "or the 5B of Wan 2.2."
        )
    check_sizes(
        adapter.zica, adapter.audio_encoder, adapter.feature_extractor,
        family=family, width=width, num_layers=len(network.blocks),
    )  # fmt: skip


def conditioned(
    zica: MusicAdapter, features: Tensor, num_latent: int, strength: float
) -> Callable[..., Tensor]:
    """What ComfyUI runs around each call of a model (``WrappersMP.APPLY_MODEL``).

    All prompts of a batch, the negative ones too, get the music, as in training and in the authors'
    code.
    """
    geometry = geometry_of(zica.family)

    def run(
        executor: Callable[..., Tensor],
        x: Tensor,
        t: Tensor,
        c_concat: Any = None,
        c_crossattn: Any = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **others: Any,
    ) -> Tensor:
        if x.shape[2] != num_latent:
            raise UserError(
                f"the sampler works on {x.shape[2]} latent frames, but the music is for "
                f"{num_latent}; give MusicInfuser the latent that is sampled, in one piece."
            )
        zica.to(x.device)  # there already, unless ComfyUI did not load it
        tokens = zica.audio_projector(features.to(x.device), num_latent).expand(len(x), -1, -1)
        weight = None if strength == 1 else x.new_full((len(x),), strength, dtype=torch.float32)
        options = dict(transformer_options or {})
        replaced = dict(options.get("patches_replace", {}))
        blocks = replaced["dit"] = dict(replaced.get("dit", {}))
        options["patches_replace"] = replaced
        num_tokens = _num_tokens(x, geometry)
        for index in zica.layers:
            place = ("double_block", index)
            blocks[place] = _with_music(
                zica.zica[str(index)], tokens, weight, num_tokens, blocks.get(place)
            )
        return executor(x, t, c_concat, c_crossattn, control, options, **others)

    return run


def _num_tokens(x: Tensor, geometry: LatentGeometry) -> int:
    """Visual tokens of latents ``(B, C, T, H, W)``, which ComfyUI fills up to whole patches."""
    return x.shape[2] * prod(ceil(side / geometry.patch) for side in x.shape[3:])


def _with_music(
    zica: nn.Module,
    tokens: Tensor,
    weight: Tensor | None,
    num_tokens: int,
    earlier: Callable[..., dict[str, Tensor]] | None,
) -> Callable[..., dict[str, Tensor]]:
    """What runs in the place of a block, or around what an earlier node put there."""

    def run(arguments: dict[str, Any], extra: dict[str, Any]) -> dict[str, Tensor]:
        if earlier is None:
            out = extra["original_block"](arguments)
        else:
            out = earlier(arguments, extra)
        visual = out["img"]
        if visual.shape[1] != num_tokens:
            raise UserError(
                f"a block has {visual.shape[1]} tokens, but the video {num_tokens}: another node "
                "adds tokens of its own; leave it out."
            )
        dtype = visual.dtype
        with torch.autocast(visual.device.type, dtype, enabled=dtype != torch.float32):
            out["img"] = zica(visual, tokens, weight)
        return out

    return run


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "MusicInfuserLoadAdapter": LoadMusicAdapter,
    "MusicInfuserApply": ApplyMusicAdapter,
}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {
    "MusicInfuserLoadAdapter": "MusicInfuser: load adapter",
    "MusicInfuserApply": "MusicInfuser: apply to model",
}
