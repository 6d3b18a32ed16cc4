"""Nodes of ComfyUI that condition a loaded Wan or Mochi on music; README.md says how to use them.

ComfyUI calls what stands in a transformer option in the place of a block, and hands it that block
(``patches_replace``, ``dit``, ``double_block``). ZICA is added there, and LoRA by ComfyUI's own
loader; noise levels, time and the sign of the velocity stay ComfyUI's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor, nn

from musicinfuser.adapters.comfyui import comfyui_lora
from musicinfuser.adapters.folder import read_folder
from musicinfuser.adapters.loading import adapter_parts, check_sizes
from musicinfuser.adapters.settings import Adapter
from musicinfuser.clip_size import LatentGeometry, geometry_of
from musicinfuser.diffusion.guidance import guidance_away
from musicinfuser.errors import UserError
from musicinfuser.generation import audio_seconds, cut_span
from musicinfuser.networks.music_adapter import MusicAdapter
from musicinfuser.pipelines.conditions import ConditionsMixin, mono, waveforms

KEY, WITHOUT_MUSIC = "musicinfuser", "musicinfuser_without_music"
MUSIC_KEPT = 256  # features of windows of a song, under a MB each
Music = Callable[[int, int], Tensor]
"""Features ``(1, S, width)`` of so many latent frames from one on."""
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

    def music(self, audio: dict[str, Any], num_latent: int, start_seconds: float) -> Music:
        """The sound of a video with so many latent frames, encoded for what is asked of it.

        Each window's sound is encoded by itself, as `audio_by_windows` does for ``predict``.

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
        sound, rate_hz = (sounds[0], audio["sample_rate"]), encoder.rate_hz

        def num_frames(length: int) -> int:
            return (length - 1) * geometry.temporal + 1

        waveforms(  # refuses what is silent or too short
            sound, rate_hz=rate_hz, num_clips=1, num_frames=num_frames(num_latent),
            start_seconds=start_seconds, fps=self.fps, geometry=geometry,
        )  # fmt: skip
        name, waveform = mono(sound, rate_hz)

        @lru_cache(MUSIC_KEPT)
        def music(first: int, length: int) -> Tensor:
            start = start_seconds + first * geometry.temporal / self.fps
            seconds = audio_seconds(num_frames(length), fps=self.fps)
            span, _ = cut_span(
                name, waveform, start, seconds, rate_hz=rate_hz,
                context_seconds=encoder.context_seconds,
            )  # fmt: skip
            found = self._features(encoder, [span], 1, num_frames(length), start, None)
            assert isinstance(found, Tensor)
            return found

        return music


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

        A strength of 1 is as trained; so much counts what ZICA, or LoRA, adds. A guidance of 1 is
        none.
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
            "optional": {
                "audio": ("AUDIO",),
                "music_guidance_scale": (
                    "FLOAT",
                    {"default": 1.0, "min": 0.0, "max": 20.0, "step": 0.1},
                ),
            },
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
        music_guidance_scale: float = 1.0,
    ) -> tuple[Any, float]:
        """A copy of the model with both, and the frame rate of its videos.

        Raises:
            UserError: The model is not the adapter's, or its LoRA cannot be applied.
            MediaError: As of `LoadedAdapter.music`.
        """
        import comfy.model_management
        import comfy.model_patcher
        import comfy.patcher_extension
        import comfy.sd

        check_model(model.model.diffusion_model, adapter)
        num_latent = latent["samples"].shape[2]
        music = None
        if audio is not None and music_strength:
            music = adapter.music(audio, num_latent, start_seconds)
        model = model.clone()
        if adapter.adapter.settings.lora is not None and lora_strength:
            lora = comfyui_lora(adapter.adapter)
            model, _ = comfy.sd.load_lora_for_models(model, None, lora, lora_strength, 0.0)
        if music is not None:
            model.add_wrapper_with_key(
                comfy.patcher_extension.WrappersMP.APPLY_MODEL, KEY,
                conditioned(adapter.zica, music, num_latent, music_strength),
            )  # fmt: skip
            if music_guidance_scale != 1:
                model.set_model_sampler_post_cfg_function(guided_by_music(music_guidance_scale))
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


def guided_by_music(scale: float) -> Callable[[dict[str, Any]], Tensor]:
    """What ComfyUI runs after its guidance by text (``sampler_post_cfg_function``).

    The equation of ``sampling.music_guidance_scale``, v + (scale - 1) (v_c - v_c_without), in
    ComfyUI's denoised latents: these are x plus a multiple of v, and the factors of x add up to 0.
    The same prompt without music is one more call of the model, as those of ComfyUI's own guidance
    away from a changed model are (``PerturbedAttentionGuidance``, comfy_extras/nodes_pag.py).
    """

    def run(arguments: dict[str, Any]) -> Tensor:
        import comfy.samplers

        options = dict(arguments["model_options"])
        given = options.get("transformer_options", {})
        options["transformer_options"] = {**given, WITHOUT_MUSIC: True}

        def without(x: Tensor, sigma: Tensor) -> Tensor:
            found: list[Tensor] = comfy.samplers.calc_cond_batch(
                arguments["model"], [arguments["cond"]], x, sigma, options
            )
            return found[0]

        further = guidance_away(
            lambda *_: arguments["denoised"], lambda *_: arguments["cond_denoised"], without,
            scale - 1,
        )  # fmt: skip
        return further(arguments["input"], arguments["sigma"])

    return run


def _window(options: dict[str, Any], num_latent: int) -> tuple[int, int]:
    """The first latent frame of what the sampler works on, and how many there are.

    ComfyUI's context windows say which frames they are of (``IndexListContextHandler`` of
    comfy/context_windows.py); some begin with a frame more, whose result is dropped.
    """
    window = options.get("context_window")
    if window is None or window.dim != 2:
        return 0, num_latent
    frames, before = list(window.index_list), getattr(window, "causal_anchor_index", None)
    if before is not None and before >= 0:
        frames.insert(0, before)
    if frames != list(range(frames[0], frames[0] + len(frames))):
        raise UserError(
            "a context window has latent frames that do not follow each other, so it has no music "
            "of its own; choose context_schedule standard_static, or context_stride 1 with no "
            "looped schedule."
        )
    return frames[0], len(frames)


def conditioned(
    zica: MusicAdapter, music: Music, num_latent: int, strength: float
) -> Callable[..., Tensor]:
    """What ComfyUI runs around each call of a model (``WrappersMP.APPLY_MODEL``).

    All prompts of a batch, the negative ones too, get the music, as in training and in the authors'
    code; a context window gets that of its own time.
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
        options = dict(transformer_options or {})
        if options.get(WITHOUT_MUSIC):
            return executor(x, t, c_concat, c_crossattn, control, options, **others)
        first, length = _window(options, num_latent)
        if x.shape[2] != length or first + length > num_latent:
            raise UserError(
                f"the sampler works on {x.shape[2]} latent frames from {first} on, but the music "
                f"is for {num_latent}; give MusicInfuser the latent that is sampled."
            )
        zica.to(x.device)  # there already, unless ComfyUI did not load it
        features = music(first, length).to(x.device)
        tokens = zica.audio_projector(features, length).expand(len(x), -1, -1)
        weight = None if strength == 1 else x.new_full((len(x),), strength, dtype=torch.float32)
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
