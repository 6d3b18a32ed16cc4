"""A pipeline with its adapter from and to one folder."""

import os
from typing import Any, Self

import torch
from diffusers import MochiPipeline

from musicinfuser.adapters.folder import LORA_FILE
from musicinfuser.adapters.loading import adapter_parts, load_lora
from musicinfuser.errors import UserError
from musicinfuser.memory.offload_hooks import without_lora
from musicinfuser.pretrained_sources import missing_weights_named


class PretrainedMixin(MochiPipeline):  # type: ignore[misc]
    """How `MusicInfuserPipeline` is loaded and saved."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *,
        adapter: str | os.PathLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a whole pipeline, or a Mochi with an adapter of ours.

        Args:
            pretrained_model_name_or_path: Folder or Hub id of a pipeline that `save_pretrained`
                wrote, or of any Mochi in diffusers' layout.
            adapter: Folder or Hub id with ``zica`` and, optionally, LoRA weights and
                ``audio_encoder``, which is otherwise looked for beside the base.
            **kwargs: As diffusers takes them: ``dtype``, components by their names, ...;
                ``audio_encoder`` may also be a folder or Hub id. Audio encoder and adapter stay in
                fp32 whatever ``dtype`` is.

        Raises:
            MissingWeightsError: Weights are not there; says which and how to get them.
            AdapterMismatchError: Adapter and base do not belong together; says where.
        """
        source = str(pretrained_model_name_or_path)
        if adapter is not None:
            names = ("audio_encoder", "feature_extractor")
            given = {name: kwargs.pop(name, None) for name in names}
            kwargs |= adapter_parts(str(adapter), base=source, **given)
        dtype = kwargs.get("dtype")
        if isinstance(dtype, torch.dtype):
            kwargs["dtype"] = {"default": dtype, "audio_encoder": torch.float32}
        with missing_weights_named("MusicInfuserPipeline", source):
            pipeline = super().from_pretrained(source, **kwargs)
        if pipeline.config.has_lora:
            load_lora(pipeline, source)
        if adapter is not None:
            load_lora(pipeline, str(adapter))
        return pipeline

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Write every part, LoRA beside the plain transformer, so that `from_pretrained` reads it.

        Args:
            save_directory: Folder.
            **kwargs: As diffusers takes them, e.g. ``push_to_hub``.

        Raises:
            ValueError: There are several LoRAs.
        """
        names = list(getattr(self.transformer, "peft_config", {}))
        if len(names) > 1:
            raise UserError(
                f"a saved pipeline has one LoRA, this one has {names}; delete_adapters all but "
                "one, or fuse_lora and unload_lora_weights first."
            )
        self.register_to_config(has_lora=bool(names))
        for name in names:
            from peft import get_peft_model_state_dict

            matrices = get_peft_model_state_dict(self.transformer, adapter_name=name)
            self.save_lora_weights(
                save_directory, matrices, weight_name=LORA_FILE,
                transformer_lora_adapter_metadata=self.transformer.peft_config[name].to_dict(),
            )  # fmt: skip
        with without_lora(self.transformer):
            super().save_pretrained(save_directory, **kwargs)
