"""A call of a pipeline: from prompts and music to videos, whichever the backbone."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from torch import Tensor

from musicinfuser.adapters.loading import check_belongs
from musicinfuser.clip_size import check_clip_size, check_takes_image, latent_shape
from musicinfuser.errors import UserError
from musicinfuser.generation import SamplingSpec, WindowNoise, denoise
from musicinfuser.memory.out_of_memory import named_out_of_memory
from musicinfuser.networks.backbones import SolverName
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.text_tokens import warn_of_cut
from musicinfuser.pipelines.conditions import (
    ConditionsMixin,
    Picture,
    Sound,
    first_pictures,
    frames_asked,
    text_conditions,
    waveforms,
)
from musicinfuser.pipelines.latents import Latents
from musicinfuser.pipelines.model_offload import offload_in_turn
from musicinfuser.pipelines.pretrained_mixin import PretrainedMixin

SAMPLING_REMEDY = (
    "call pipe.enable_model_cpu_offload(), or pipe.enable_group_offload(onload_device, "
    'offload_type="leaf_level", use_stream=True) for less still, or ask for fewer frames '
    "(of a song: fewer window_frames)"
)
Encoded = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]
"""Features ``(B, L, width)`` and mask of the prompts, then of the negative ones; a mask that is
None is of features that all count."""


class MusicPipeline(PretrainedMixin, ConditionsMixin, Latents, DiffusionPipeline, ABC):  # type: ignore[misc]
    """What pipelines of all families have in common; each is also diffusers' own of its family.

    ``transformer`` is that of the family's own pipeline: LoRA is loaded, weighted and fused as with
    it. It is frozen, and its blocks are adapted in place under their own names. ``zica``
    (`MusicAdapter`), ``audio_encoder`` (wav2vec 2.0 or its like; the adapter says which of its
    layers is used) and its ``feature_extractor`` may be absent, then no music can be given. Latents
    are sampled by `musicinfuser.generation.denoise`, as in training and prediction; the scheduler
    is there for other pipelines to use.
    """

    model_cpu_offload_seq = "text_encoder->audio_encoder->zica->transformer->vae"
    _optional_components = ["zica", "audio_encoder", "feature_extractor"]  # noqa: RUF012
    output_class: ClassVar[type[Any]]
    """What a call gives."""

    def _take_adapter(self: Any, **parts: Any) -> None:
        """Register ``zica``, ``audio_encoder``, ``feature_extractor`` and ``has_lora``; adapt.

        Raises:
            AdapterMismatchError: The adapter is of another base or audio encoder.
            UserError: The transformer is of another family.
        """
        has_lora = parts.pop("has_lora")
        self.register_modules(**parts)
        self.register_to_config(has_lora=has_lora)
        if self.transformer is not None:
            self._check_pipeline(self.kind.music_pipeline, "the transformer")
            hint = "give this pipeline that of its base"
            if self.vae is not None:
                self.kind.check_vae(self.vae.config, "the VAE", hint)
            if self.text_encoder is not None:
                config = self.text_encoder.config.to_dict()
                self.kind.check_text_encoder(config, "the text encoder", hint)
            if self.zica is not None:
                check_belongs(
                    self.zica, self.transformer, self.audio_encoder, self.feature_extractor
                )
            self.kind.adapt_blocks()

    def enable_model_cpu_offload(
        self, gpu_id: int | None = None, device: torch.device | str | None = None
    ) -> None:
        """As diffusers' own; transformer and ZICA, which work at the same time, stay together."""
        super().enable_model_cpu_offload(gpu_id, device)
        offload_in_turn(
            [[self.text_encoder], [self.audio_encoder], [self.zica, self.transformer], [self.vae]]
        )

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the negative prompt is used: at any scale but 1."""
        return self._guidance_scale != 1.0

    def _warn_of_cuts(self, texts: list[str], max_tokens: int) -> None:
        for text in dict.fromkeys(texts):
            warn_of_cut(self.kind.cleaned(text), self.tokenizer, max_tokens=max_tokens)

    @abstractmethod
    def _check_prompts(self, prompts: dict[str, Any], tensor_names: list[str]) -> None:
        """As diffusers' pipeline of the family does; ``prompts`` by their names in a call."""

    @abstractmethod
    def _encoded_prompts(self, prompts: dict[str, Any], **options: Any) -> Encoded:
        """By ``encode_prompt`` of diffusers' pipeline of the family."""

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        audio: Sound | list[Sound] | None = None,
        *,
        negative_prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_seconds: float | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        music_guidance_scale: float = 1.0,
        audio_start_seconds: float = 0.0,
        num_videos_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
        max_sequence_length: int | None = None,
        window_frames: int | None = None,
        window_overlap_frames: int | None = None,
        window_noise: WindowNoise = "repeated",
        shift: float | None = None,
        solver: SolverName = "euler",
        image: Picture | list[Picture] | None = None,
    ) -> Any:
        """Generate videos.

        What is None is as `Backbone.usual_of` has it of the base.

        Args:
            prompt: One prompt or a list.
            audio: A file, ``(samples, rate)``, a list with one per prompt, or None for no music.
            negative_prompt: Of the unconditional branch; empty by default, which gives it no tokens
                of Mochi's and one of Wan's.
            height: Pixels, of Mochi and Wan 2.1 a multiple of 16, of Wan's 5B of 32.
            width: Pixels, likewise.
            num_frames: Of Mochi 6k + 1, at 30 per second, of Wan 4k + 1 at 16 (5B: 24); all in one
                pass.
            num_seconds: In place of ``num_frames``: a video as long as a song, in windows that are
                denoised together and decoded in pieces, so that the device's memory does not grow;
                infinite is up to the end of the sound. See `decode_pieces`.
            num_inference_steps: Steps, at least 1.
            guidance_scale: Text guidance (eq. 3; section 5.1: 6 of Mochi); 1 is the conditional
                branch, 0 the unconditional one.
            music_guidance_scale: Guidance away from the same prompt without music; 1 is none.
            audio_start_seconds: Where in the sound the video begins.
            num_videos_per_prompt: Videos of each prompt.
            generator: Draws the noise; one, or one per video.
            latents: Noise ``(B, C, T, H / 8, W / 8)`` to start from; of Wan's 5B sixteenths.
            prompt_embeds: ``(B, L, width)`` right-padded, in place of the prompt.
            prompt_attention_mask: ``(B, L)`` bool; of Wan None counts all, padding too.
            negative_prompt_embeds: As ``prompt_embeds``.
            negative_prompt_attention_mask: As ``prompt_attention_mask``.
            output_type: ``pil``, ``np``, ``pt``, or ``latent`` (fp32, normalised).
            return_dict: Give an output object, not a tuple.
            attention_kwargs: ``{"scale": s}``: how much each LoRA counts.
            callback_on_step_end: Called with the pipeline, the step, the timestep as the backbone
                counts it (of Mochi 1000 is data, of Wan noise) and a dict of tensors after each
                step; tensors of these names in the dict it returns take their place.
            callback_on_step_end_tensor_inputs: Of ``latents``, ``prompt_embeds`` and
                ``negative_prompt_embeds`` (not concatenated); ``latents`` by default.
            max_sequence_length: Tokens after which prompts are cut; Wan's are filled up with zeros
                to 512 whatever this is, as it was trained.
            window_frames: Of a window, a number as ``num_frames``; shorter videos are made in one
                pass.
            window_overlap_frames: What windows share at least, of Mochi 6k, of Wan 4k; half.
            window_noise: ``repeated``: all windows start from the noise of the first, so that the
                dancer changes less; ``independent``: as in one pass.
            shift: Of Wan: how far noise levels are moved towards noise; None is 8 of the
                1.3B and 5 of others.
            solver: ``euler``; of Wan also ``unipc``, its folders' own.
            image: Of Wan's 5B: a picture that becomes the first frame, a file or Pillow's, or a
                list with one per prompt; its largest box of the video's aspect, from the middle, is
                resized. A video in windows begins with it.

        Returns:
            The output object of diffusers' pipeline of the family, or a tuple.

        Raises:
            ValueError: Sizes the backbone cannot take, latents of another shape, no adapter for
                audio, or an image for a backbone that cannot begin with one.
            MediaError: Audio that cannot be read, is silent, or ends before the video; an image
                that cannot be read.
            OutOfMemoryError: The device's memory is too small; says what to call.
        """
        kind = self.kind
        geometry, fps = kind.geometry, self.fps
        usual = kind.usual_of(self.transformer.config)
        height, width = _or(height, usual.height), _or(width, usual.width)
        num_inference_steps = _or(num_inference_steps, usual.num_steps)
        guidance_scale = _or(guidance_scale, usual.guidance_scale)
        max_tokens = _or(max_sequence_length, usual.text_tokens)
        window_frames = _or(window_frames, usual.num_frames)
        half = max(window_frames // 2, geometry.temporal)
        window_overlap_frames = _or(window_overlap_frames, half - half % geometry.temporal)
        if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        tensor_names = callback_on_step_end_tensor_inputs or ["latents"]
        num_frames = frames_asked(
            num_frames, num_seconds, audio, audio_start_seconds,
            usual=usual.num_frames, fps=fps, geometry=geometry,
        )  # fmt: skip
        check_clip_size(num_frames, height, width, geometry=geometry)
        kind.check_text_tokens(max_tokens, "max_sequence_length")
        prompts = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "prompt_embeds": prompt_embeds,
            "negative_prompt_embeds": negative_prompt_embeds,
            "prompt_attention_mask": prompt_attention_mask,
            "negative_prompt_attention_mask": negative_prompt_attention_mask,
        }
        for name in ("prompt_embeds", "negative_prompt_embeds"):
            if isinstance(features := prompts[name], Tensor):
                kind.check_text_tokens(features.shape[1], f"the length of {name}")
        self._check_prompts({**prompts, "height": height, "width": width}, tensor_names)
        sampling = SamplingSpec(
            num_inference_steps, guidance_scale, music_guidance_scale, fps=fps,
            window_frames=window_frames, window_overlap_frames=window_overlap_frames,
            window_noise=window_noise, family=kind.family, shift=_or(shift, usual.shift),
            solver=solver,
        )  # fmt: skip
        windows = None if num_seconds is None else sampling.windows(num_frames)
        self._guidance_scale, self._attention_kwargs = guidance_scale, attention_kwargs
        self._num_timesteps, self._interrupt = num_inference_steps, False
        self._current_timestep = None
        device = self._execution_device
        given: Any = prompt_embeds if prompt is None else prompt
        num_prompts = 1 if isinstance(prompt, str) else len(given)
        num_clips = num_prompts * num_videos_per_prompt
        shape = (num_clips, *latent_shape(num_frames, height, width, geometry=geometry))
        if latents is not None and latents.shape != shape:
            raise UserError(
                f"latents have shape {tuple(latents.shape)}; {num_clips} videos of {num_frames} "
                f"frames of {height}x{width} need {shape}."
            )
        pictures = None
        if image is not None:
            check_takes_image(geometry)
            pictures = first_pictures(image, num_prompts=num_prompts, height=height, width=width)
        encoder = None if audio is None else self._audio_encoder()
        if audio is not None and encoder is not None:
            sound = waveforms(
                audio, rate_hz=encoder.rate_hz, num_clips=num_prompts, num_frames=num_frames,
                start_seconds=audio_start_seconds, windows=windows, fps=fps, geometry=geometry,
                context_seconds=encoder.context_seconds,
            )  # fmt: skip
        with named_out_of_memory("encoding prompt and music", SAMPLING_REMEDY):
            embeds = self._encoded_prompts(
                prompts, num_videos_per_prompt=num_videos_per_prompt,
                do_classifier_free_guidance=self.do_classifier_free_guidance,
                max_sequence_length=max_tokens, device=device,
            )  # fmt: skip
            conditions = text_conditions(*embeds)
            if encoder is not None:
                conditions.audio = self._features(
                    encoder, sound, num_videos_per_prompt, num_frames, audio_start_seconds, windows
                )
            if pictures is not None:
                conditions.first_frame = self._first_frames(pictures, num_videos_per_prompt)
        noise = self._noise(shape, generator, latents, windows)
        num_windows = 1 if windows is None else len(windows.starts)
        bar = self.progress_bar(total=num_inference_steps * num_windows)
        sigmas = sampling.noise_levels()

        def progress(steps: range) -> Iterator[int]:
            with bar:
                for i in steps:
                    if self.interrupt:
                        return
                    self._current_timestep = 1000 * sigmas[i]  # diffusers' word for the noise
                    yield i
                    if windows is None:
                        bar.update()

        def on_step_end(i: int, latents: Tensor) -> Tensor | None:
            if callback_on_step_end is None:
                return None
            timestep = kind.timestep(sigmas[i])
            tensors = {
                "latents": latents,
                "prompt_embeds": conditions.text,
                "negative_prompt_embeds": conditions.negative,
            }
            tensors = {name: tensors[name] for name in tensor_names}
            changed = callback_on_step_end(self, i, timestep, tensors) or {}
            conditions.text = changed.get("prompt_embeds", conditions.text)
            conditions.negative = changed.get("negative_prompt_embeds", conditions.negative)
            return changed.get("latents")

        model = MusicModel.from_parts(self.transformer, self.zica)
        dtype = self.transformer.dtype
        with (
            named_out_of_memory("sampling", SAMPLING_REMEDY),
            torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
        ):
            latents = denoise(
                model, conditions, noise, sampling, windows=windows,
                progress=progress, on_window=bar.update, on_step_end=on_step_end,
                lora_scale=(attention_kwargs or {}).get("scale", 1.0),
            )  # fmt: skip
        self._current_timestep = None
        video: Any = latents
        if output_type != "latent":
            video = self._decode(latents, output_type, in_pieces=windows is not None)
        self.maybe_free_model_hooks()
        return self.output_class(frames=video) if return_dict else (video,)


def _or(given: Any, usual: Any) -> Any:
    return usual if given is None else given
