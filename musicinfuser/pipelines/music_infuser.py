"""MusicInfuserPipeline: a Mochi conditioned on audio, called like other pipelines of diffusers."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from diffusers import (
    AutoencoderKLMochi,
    FlowMatchEulerDiscreteScheduler,
    MochiPipeline,
    MochiTransformer3DModel,
)
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.pipelines.mochi.pipeline_output import MochiPipelineOutput
from torch import Tensor
from transformers import (
    FeatureExtractionMixin,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5EncoderModel,
)

from musicinfuser.adapters.loading import check_belongs
from musicinfuser.clip_size import check_clip_size, latent_shape
from musicinfuser.diffusion.sampler import NUM_STEPS, linear_quadratic_sigmas
from musicinfuser.errors import UserError
from musicinfuser.generation import (
    WINDOW_FRAMES,
    WINDOW_OVERLAP_FRAMES,
    SamplingSpec,
    WindowNoise,
    denoise,
)
from musicinfuser.memory.out_of_memory import named_out_of_memory
from musicinfuser.networks.backbones import backbone_of
from musicinfuser.networks.music_adapter import MusicAdapter
from musicinfuser.networks.music_mochi import MusicMochi
from musicinfuser.networks.text_tokens import MAX_TEXT_TOKENS, warn_of_cut
from musicinfuser.pipelines.conditions import (
    FPS,
    ConditionsMixin,
    Sound,
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


class MusicInfuserPipeline(PretrainedMixin, ConditionsMixin, Latents, MochiPipeline):  # type: ignore[misc]
    """Text and music to video.

    ``transformer`` is a plain Mochi: LoRA is loaded, weighted and fused as with `MochiPipeline`. It
    is frozen, and its blocks are adapted in place under their own names. ``zica`` (`MusicAdapter`),
    ``audio_encoder`` (wav2vec 2.0 or its like; the adapter says which of its layers is used) and
    its ``feature_extractor`` may be absent, then no music can be given. Latents are sampled by
    `musicinfuser.generation.denoise`, as in training and prediction. The scheduler and
    ``force_zeros_for_empty_prompt`` are there for other pipelines to use; here an empty prompt
    never has tokens (authors' code, and `predict`), each sample of a batch by itself.
    """

    model_cpu_offload_seq = "text_encoder->audio_encoder->zica->transformer->vae"
    _optional_components = ["zica", "audio_encoder", "feature_extractor"]  # noqa: RUF012

    def __init__(
        self,
        scheduler: FlowMatchEulerDiscreteScheduler,
        vae: AutoencoderKLMochi,
        text_encoder: T5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        transformer: MochiTransformer3DModel,
        zica: MusicAdapter | None = None,
        audio_encoder: PreTrainedModel | None = None,
        feature_extractor: FeatureExtractionMixin | None = None,
        force_zeros_for_empty_prompt: bool = True,
        has_lora: bool = False,
    ) -> None:
        """Put the components together; ``has_lora``: a saved folder has a LoRA beside its parts.

        Raises:
            AdapterMismatchError: The adapter is of another base or audio encoder.
        """
        super().__init__(
            scheduler, vae, text_encoder, tokenizer, transformer, force_zeros_for_empty_prompt
        )
        self.register_modules(
            zica=zica, audio_encoder=audio_encoder, feature_extractor=feature_extractor
        )
        self.register_to_config(has_lora=has_lora)
        if transformer is not None:
            if zica is not None:
                check_belongs(zica, transformer, audio_encoder, feature_extractor)
            backbone_of(transformer).adapt_blocks()

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

    def _get_t5_prompt_embeds(
        self, prompt: str | list[str], num_videos_per_prompt: int = 1, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """T5 features ``(B, L, width)`` and mask, zeros for empty prompts wherever they stand."""
        prompts = [prompt] if isinstance(prompt, str) else prompt
        max_tokens = kwargs.get("max_sequence_length", MAX_TEXT_TOKENS)
        for text in dict.fromkeys(prompts):
            warn_of_cut(text, self.tokenizer, max_tokens=max_tokens)
        # diffusers would zero a whole batch for its last prompt.
        features, mask = super()._get_t5_prompt_embeds([p or " " for p in prompts], **kwargs)
        kept = torch.tensor([bool(p) for p in prompts]).to(features.device)
        features, mask = features * kept[:, None, None], mask & kept[:, None]
        # diffusers would repeat masks in another order than features.
        return (
            features.repeat_interleave(num_videos_per_prompt, dim=0),
            mask.repeat_interleave(num_videos_per_prompt, dim=0),
        )

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
        num_inference_steps: int = NUM_STEPS,
        guidance_scale: float = 6.0,
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
        max_sequence_length: int = 256,
        window_frames: int = WINDOW_FRAMES,
        window_overlap_frames: int = WINDOW_OVERLAP_FRAMES,
        window_noise: WindowNoise = "repeated",
    ) -> MochiPipelineOutput | tuple:
        """Generate videos.

        Args:
            prompt: One prompt or a list.
            audio: A file, ``(samples, rate)``, a list with one per prompt, or None for no music.
            negative_prompt: Of the unconditional branch; empty gives it no tokens.
            height: Pixels, a multiple of 16; Mochi's 480 by default.
            width: Pixels, a multiple of 16; Mochi's 848 by default.
            num_frames: 6k + 1, at 30 per second, all in one pass; 73 by default.
            num_seconds: In place of ``num_frames``: a video as long as a song, in windows that are
                denoised together and decoded in pieces, so that the device's memory does not grow;
                infinite is up to the end of the sound. See `decode_pieces`.
            num_inference_steps: Euler steps, at least 1.
            guidance_scale: Text guidance (eq. 3, section 5.1: 6); 1 is the conditional branch, 0
                the unconditional one.
            music_guidance_scale: Guidance away from the same prompt without music; 1 is none.
            audio_start_seconds: Where in the sound the video begins.
            num_videos_per_prompt: Videos of each prompt.
            generator: Draws the noise; one, or one per video.
            latents: Noise ``(B, C, T, H / 8, W / 8)`` to start from.
            prompt_embeds: ``(B, L, width)`` right-padded, in place of the prompt.
            prompt_attention_mask: ``(B, L)`` bool.
            negative_prompt_embeds: As ``prompt_embeds``.
            negative_prompt_attention_mask: As ``prompt_attention_mask``.
            output_type: ``pil``, ``np``, ``pt``, or ``latent`` (fp32, normalised).
            return_dict: Give an output object, not a tuple.
            attention_kwargs: ``{"scale": s}``: how much each LoRA counts.
            callback_on_step_end: Called with the pipeline, the step, the timestep (0 to 1000,
                1000 = data) and a dict of tensors after each step; tensors of these names in the
                dict it returns take their place.
            callback_on_step_end_tensor_inputs: Of ``latents``, ``prompt_embeds`` and
                ``negative_prompt_embeds`` (not concatenated); ``latents`` by default.
            max_sequence_length: Tokens after which prompts are cut.
            window_frames: Of a window, 6k + 1; shorter videos are made in one pass.
            window_overlap_frames: What windows share at least, 6k.
            window_noise: ``repeated``: all windows start from the noise of the first, so that the
                dancer changes less; ``independent``: as in one pass.

        Raises:
            ValueError: Sizes Mochi cannot take, latents of another shape, or no adapter for audio.
            MediaError: Audio that cannot be read, is silent, or ends before the video.
            OutOfMemoryError: The device's memory is too small; says what to call.
        """
        height, width = height or self.default_height, width or self.default_width
        if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        tensor_names = callback_on_step_end_tensor_inputs or ["latents"]
        num_frames = frames_asked(num_frames, num_seconds, audio, audio_start_seconds)
        check_clip_size(num_frames, height, width)
        self.check_inputs(
            prompt, height, width, tensor_names, prompt_embeds, negative_prompt_embeds,
            prompt_attention_mask, negative_prompt_attention_mask,
        )  # fmt: skip
        sampling = SamplingSpec(
            num_inference_steps, guidance_scale, music_guidance_scale, fps=FPS,
            window_frames=window_frames, window_overlap_frames=window_overlap_frames,
            window_noise=window_noise,
        )  # fmt: skip
        windows = None if num_seconds is None else sampling.windows(num_frames)
        self._guidance_scale, self._attention_kwargs = guidance_scale, attention_kwargs
        self._num_timesteps, self._interrupt = num_inference_steps, False
        self._current_timestep = None
        device = self._execution_device
        given: Any = prompt_embeds if prompt is None else prompt
        num_prompts = 1 if isinstance(prompt, str) else len(given)
        num_clips = num_prompts * num_videos_per_prompt
        shape = (
            num_clips,
            *latent_shape(num_frames, height, width),
        )
        if latents is not None and latents.shape != shape:
            raise UserError(
                f"latents have shape {tuple(latents.shape)}; {num_clips} videos of {num_frames} "
                f"frames of {height}x{width} need {shape}."
            )
        encoder = None if audio is None else self._audio_encoder()
        if audio is not None and encoder is not None:
            sound = waveforms(
                audio, rate_hz=encoder.rate_hz, num_clips=num_prompts, num_frames=num_frames,
                start_seconds=audio_start_seconds, windows=windows,
                context_seconds=encoder.context_seconds,
            )  # fmt: skip
        with named_out_of_memory("encoding prompt and music", SAMPLING_REMEDY):
            embeds = self.encode_prompt(
                prompt, negative_prompt, self.do_classifier_free_guidance, num_videos_per_prompt,
                prompt_embeds, negative_prompt_embeds,
                prompt_attention_mask, negative_prompt_attention_mask,
                max_sequence_length, device,
            )  # fmt: skip
            conditions = text_conditions(*embeds)
            if encoder is not None:
                conditions.audio = self._features(
                    encoder, sound, num_videos_per_prompt, num_frames, audio_start_seconds, windows
                )
        noise = self._noise(shape, generator, latents, windows)
        num_windows = 1 if windows is None else len(windows.starts)
        bar = self.progress_bar(total=num_inference_steps * num_windows)
        sigmas = linear_quadratic_sigmas(num_inference_steps)

        def progress(steps: range) -> Iterator[int]:
            with bar:
                for i in steps:
                    if self.interrupt:
                        return
                    self._current_timestep = 1000 * sigmas[i]
                    yield i
                    if windows is None:
                        bar.update()

        def on_step_end(i: int, latents: Tensor) -> Tensor | None:
            if callback_on_step_end is None:
                return None
            timestep = 1000 * (1 - sigmas[i])
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

        model = MusicMochi.from_parts(self.transformer, self.zica)
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
        return MochiPipelineOutput(frames=video) if return_dict else (video,)
