"""A pipeline with its adapter from and to one folder."""

import os
from typing import Any, ClassVar, Self

import torch
from diffusers import DiffusionPipeline

from musicinfuser.adapters.folder import LORA_FILE
from musicinfuser.adapters.loading import adapter_parts, load_lora
from musicinfuser.errors import UserError
from musicinfuser.memory.offload_hooks import without_lora
from musicinfuser.networks.backbones import (
    FAMILIES,
    Backbone,
    backbone_of,
    families_of,
    of_no_family,
)
from musicinfuser.pretrained_sources import missing_weights_named, model_index, part_config


class PretrainedMixin(DiffusionPipeline):  # type: ignore[misc]
    """How a pipeline is loaded and saved, and what it knows of its backbone."""

    family: ClassVar[type[Backbone]]
    """The backbone's, or one that shares its pipeline."""

    @property
    def kind(self) -> Backbone:
        """The transformer with what is particular about its family."""
        return backbone_of(self.transformer)

    @property
    def fps(self) -> float:
        """Frames per second of the videos: those the adapter was trained at."""
        return self.kind.geometry.fps if self.zica is None else self.zica.fps

    @classmethod
    def _check_pipeline(cls, right: str | None, what: str) -> None:
        """Refuse what belongs into another pipeline of ours, ``right``."""
        if right not in (None, cls.family.music_pipeline):
            raise UserError(f"{what} is of another family of backbones; use {right}.")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *,
        adapter: str | os.PathLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a whole pipeline, or a base with an adapter of ours.

        Args:
            pretrained_model_name_or_path: Folder or Hub id of a pipeline that `save_pretrained`
                wrote, or of any base of the family in diffusers' layout.
            adapter: Folder or Hub id with ``zica`` and, optionally, LoRA weights and
                ``audio_encoder``, which is otherwise looked for beside the base.
            **kwargs: As diffusers takes them: ``dtype``, components by their names, ...;
                ``audio_encoder`` may also be a folder or Hub id. Audio encoder, adapter and
                Wan's VAE stay in fp32 whatever ``dtype`` is.

        Raises:
            MissingWeightsError: Weights are not there; says which and how to get them.
            AdapterMismatchError: Adapter and base do not belong together; says where.
            UserError: The base belongs into another pipeline, or has two transformers.
        """
        source = str(pretrained_model_name_or_path)
        cls._check_pipeline(music_pipeline_of(source), source)
        cls.family.check_source(source)
        if "transformer" not in kwargs and (config := part_config(source, "transformer")):
            kinds = families_of(config)
            if not kinds:
                raise of_no_family(f"the {config.get('_class_name')} of {source}", config)
            if all(kind.music_pipeline != cls.family.music_pipeline for kind in kinds):
                cls._check_pipeline(kinds[0].music_pipeline, f"the transformer of {source}")
        if adapter is not None:
            names = ("audio_encoder", "feature_extractor")
            given = {name: kwargs.pop(name, None) for name in names}
            kwargs |= adapter_parts(str(adapter), base=source, **given)
        # Its older name, which diffusers still takes.
        dtype = kwargs.pop("torch_dtype", kwargs.pop("dtype", None))
        if dtype is not None:
            kept = {"audio_encoder": torch.float32}
            if cls.family.vae.dtype is not None:
                kept["vae"] = cls.family.vae.dtype
            by_part = dtype if isinstance(dtype, dict) else {"default": dtype}
            kwargs["dtype"] = kept | by_part
        with missing_weights_named(cls.__name__, source):
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


def music_pipeline_of(source: str) -> str | None:
    """Which pipeline of ours a folder or Hub id of a pipeline is for; None where none is known."""
    name = model_index(source).get("_class_name")
    kinds = [k for k in FAMILIES.values() if name in (k.pipeline, k.music_pipeline)]
    return kinds[0].music_pipeline if kinds else None
