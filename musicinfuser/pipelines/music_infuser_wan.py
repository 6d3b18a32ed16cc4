"""MusicInfuserWanPipeline: a Wan conditioned on audio, called like other pipelines of diffusers."""

from typing import Any

from diffusers import (
    AutoencoderKLWan,
    SchedulerMixin,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.pipelines.wan.pipeline_output import WanPipelineOutput
from torch import Tensor
from transformers import (
    FeatureExtractionMixin,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    UMT5EncoderModel,
)

from musicinfuser.networks.backbones.wan import TEXT_TOKENS, Wan
from musicinfuser.networks.music_adapter import MusicAdapter
from musicinfuser.pipelines.calling import Encoded, MusicPipeline


class MusicInfuserWanPipeline(MusicPipeline, WanPipeline):  # type: ignore[misc]
    """Text and music to video with Wan; what it is made of, `MusicPipeline` says.

    Wan 2.1, or the 5B of Wan 2.2. ``expand_timesteps`` is there for other pipelines to use; here a
    noise level is the same for all tokens of a video.
    """

    family = Wan
    output_class = WanPipelineOutput
    _optional_components = [*MusicPipeline._optional_components, "transformer_2"]  # noqa: RUF012

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: UMT5EncoderModel,
        vae: AutoencoderKLWan,
        scheduler: SchedulerMixin,
        transformer: WanTransformer3DModel,
        transformer_2: None = None,
        zica: MusicAdapter | None = None,
        audio_encoder: PreTrainedModel | None = None,
        feature_extractor: FeatureExtractionMixin | None = None,
        boundary_ratio: float | None = None,
        expand_timesteps: bool = False,
        has_lora: bool = False,
    ) -> None:
        """Put the components together; ``has_lora``: a saved folder has a LoRA beside its parts.

        Raises:
            AdapterMismatchError: The adapter is of another base or audio encoder.
            UserError: There is a second transformer.
        """
        if transformer_2 is not None or boundary_ratio is not None:
            Wan.refuse_two_experts("this base")
        WanPipeline.__init__(
            self, tokenizer, text_encoder, vae, scheduler, transformer,
            expand_timesteps=expand_timesteps,
        )  # fmt: skip
        self._take_adapter(
            zica=zica, audio_encoder=audio_encoder, feature_extractor=feature_extractor,
            has_lora=has_lora,
        )  # fmt: skip

    def _get_t5_prompt_embeds(
        self, prompt: str | list[str], num_videos_per_prompt: int = 1, **kwargs: Any
    ) -> Tensor:
        """UMT5 features ``(B, L, width)``, zeros after each prompt's own tokens."""
        prompts = [prompt] if isinstance(prompt, str) else prompt
        self._warn_of_cuts(prompts, kwargs.get("max_sequence_length", TEXT_TOKENS))
        return super()._get_t5_prompt_embeds(prompts, num_videos_per_prompt, **kwargs)

    def _check_prompts(self, prompts: dict[str, Any], tensor_names: list[str]) -> None:
        given = {name: value for name, value in prompts.items() if not name.endswith("_mask")}
        self.check_inputs(callback_on_step_end_tensor_inputs=tensor_names, **given)

    def _encoded_prompts(self, prompts: dict[str, Any], **options: Any) -> Encoded:
        given = dict(prompts)
        mask, negative_mask = (
            given.pop(f"{name}_attention_mask") for name in ("prompt", "negative_prompt")
        )
        text, negative = self.encode_prompt(**given, **options)
        return text, mask, negative, negative_mask
