"""MusicInfuserPipeline: a Mochi conditioned on audio, called like other pipelines of diffusers."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLMochi,
    FlowMatchEulerDiscreteScheduler,
    MochiPipeline,
    MochiTransformer3DModel,
)
from diffusers.pipelines.mochi.pipeline_output import MochiPipelineOutput
from torch import Tensor
from transformers import (
    FeatureExtractionMixin,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5EncoderModel,
)

from musicinfuser.networks.backbones.mochi import Mochi
from musicinfuser.networks.music_adapter import MusicAdapter
from musicinfuser.networks.text_tokens import MAX_TEXT_TOKENS
from musicinfuser.pipelines.calling import Encoded, MusicPipeline


class MusicInfuserPipeline(MusicPipeline, MochiPipeline):  # type: ignore[misc]
    """Text and music to video with Mochi; what it is made of, `MusicPipeline` says.

    ``force_zeros_for_empty_prompt`` is there for other pipelines to use; here an empty prompt never
    has tokens (authors' code, and `predict`), each sample of a batch by itself.
    """

    family = Mochi
    output_class = MochiPipelineOutput

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
        MochiPipeline.__init__(
            self, scheduler, vae, text_encoder, tokenizer, transformer, force_zeros_for_empty_prompt
        )
        self._take_adapter(
            zica=zica, audio_encoder=audio_encoder, feature_extractor=feature_extractor,
            has_lora=has_lora,
        )  # fmt: skip

    def _get_t5_prompt_embeds(
        self, prompt: str | list[str], num_videos_per_prompt: int = 1, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """T5 features ``(B, L, width)`` and mask, zeros for empty prompts wherever they stand."""
        prompts = [prompt] if isinstance(prompt, str) else prompt
        self._warn_of_cuts(prompts, kwargs.get("max_sequence_length", MAX_TEXT_TOKENS))
        # diffusers would zero a whole batch for its last prompt.
        features, mask = super()._get_t5_prompt_embeds([p or " " for p in prompts], **kwargs)
        kept = torch.tensor([bool(p) for p in prompts]).to(features.device)
        features, mask = features * kept[:, None, None], mask & kept[:, None]
        # diffusers would repeat masks in another order than features.
        return (
            features.repeat_interleave(num_videos_per_prompt, dim=0),
            mask.repeat_interleave(num_videos_per_prompt, dim=0),
        )

    def _check_prompts(self, prompts: dict[str, Any], tensor_names: list[str]) -> None:
        given = {name: value for name, value in prompts.items() if name != "negative_prompt"}
        self.check_inputs(callback_on_step_end_tensor_inputs=tensor_names, **given)

    def _encoded_prompts(self, prompts: dict[str, Any], **options: Any) -> Encoded:
        return self.encode_prompt(**prompts, **options)
