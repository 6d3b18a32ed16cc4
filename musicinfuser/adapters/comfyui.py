"""LoRA under the names that ComfyUI's loaders read, for Mochi and Wan.

ComfyUI (github.com/Comfy-Org/ComfyUI) builds the models by the names of the published weights
(`comfy/ldm/genmo/joint_model/asymm_models_joint.py`, `comfy/ldm/wan/model.py`). Its
`model_lora_keys_unet` (`comfy/lora.py`) takes each weight ``diffusion_model.X.weight`` by the name
``diffusion_model.X``, and `LoRAAdapter` (`comfy/weight_adapter/lora.py`) reads its
``.lora_A.weight``, ``.lora_B.weight`` and ``.alpha`` and adds alpha / rank * B A.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from musicinfuser.adapters.official_keys import KeyRule, backbone_rules, to_official
from musicinfuser.adapters.settings import Adapter, AdapterFileError
from musicinfuser.networks.backbones import Mochi, Wan
from musicinfuser.networks.lora import ADAPTER_NAME, target_pattern
from musicinfuser.safetensors_files import save_tensors

PREFIX = "diffusion_model."
"""Of the transformer, among the parts of a model in ComfyUI."""
_OF_WAN = {
    "self_attn.q": "attn1.to_q",
    "self_attn.k": "attn1.to_k",
    "self_attn.v": "attn1.to_v",
    "self_attn.o": "attn1.to_out.0",
    "cross_attn.q": "attn2.to_q",
    "cross_attn.k": "attn2.to_k",
    "cross_attn.v": "attn2.to_v",
    "cross_attn.o": "attn2.to_out.0",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
}
_Kind = Literal["copy", "stack", "swap", "share"]
# What becomes of A and of B where a weight is copied, stacked of several, or has halves exchanged.
_KINDS: dict[str, tuple[_Kind, _Kind]] = {
    "copy": ("copy", "copy"), "stack": ("share", "stack"), "swap": ("copy", "swap"),
}  # fmt: skip


def write_comfyui_lora(adapter: Adapter, path: str | Path) -> None:
    """Write an adapter's LoRA for ComfyUI, whole or not at all; ZICA has no place in such a file.

    Raises:
        AdapterFileError: As of `comfyui_lora`, or ``path`` is of another type.
    """
    if Path(path).suffix != ".safetensors":
        raise AdapterFileError(
            f"{path} must end in .safetensors, by which ComfyUI knows the format."
        )
    save_tensors(comfyui_lora(adapter), path, metadata={"format": "pt"})


def comfyui_lora(adapter: Adapter) -> dict[str, Tensor]:
    """An adapter's LoRA by the names that ComfyUI's loaders read.

    Mochi's q, k and v are one layer there. Where they share one A it stays one; else the layer gets
    the sum of their ranks: A stacked, B block-diagonal. Either way the product is the same.

    Raises:
        AdapterFileError: No LoRA, one that ComfyUI would apply otherwise, or tensors missing or
            left over; names the first.
    """
    settings, lora = adapter.settings, adapter.settings.lora
    if lora is None:
        raise AdapterFileError(
            "this adapter has no LoRA, and ZICA and the audio projector cannot be in a LoRA file; "
            "give a folder with LoRA."
        )
    if lora.dora:
        # `weight_decompose` in `comfy/weight_adapter/base.py`: of rows before the update as of
        # v0.3.77, of columns after it in earlier versions; peft's are of rows after it.
        raise AdapterFileError(
            "this adapter is a DoRA, which ComfyUI scales by other lengths than it was trained "
            "with; load it with diffusers or peft."
        )
    assert settings.num_layers is not None
    tensors, written = adapter.lora(), dict[str, Tensor]()
    left, adapted = set(tensors), re.compile(target_pattern(lora, settings.kind))
    for rule in _rules(adapter, settings.num_layers):
        layers = [name.removesuffix(".weight") for name in rule.ours]
        if not all(adapted.fullmatch(layer) for layer in layers):
            continue
        key = PREFIX + rule.official.removesuffix(".weight")
        pair = [
            KeyRule(
                f"{key}.lora_{matrix}.weight",
                tuple(f"backbone.{layer}.lora_{matrix}.{ADAPTER_NAME}.weight" for layer in layers),
                kind,
            )
            for matrix, kind in zip("AB", _KINDS[rule.kind], strict=True)
        ]
        if missing := [n for part in pair for n in part.ours if n not in tensors]:
            raise AdapterFileError(f"the adapter's LoRA has no {missing[0]}.")
        for a, b in zip(*(part.ours for part in pair), strict=True):
            if tensors[a].shape[:1] != tensors[b].shape[1:]:
                raise AdapterFileError(
                    f"{a} {tuple(tensors[a].shape)} and {b} {tuple(tensors[b].shape)} are of "
                    "different rank."
                )
        left.difference_update(*(part.ours for part in pair))
        converted = to_official(tensors, pair)
        rank = len(converted[pair[0].official])
        # The factor is the same for every rank; see `LoraSpec.ranks`.
        written |= converted | {f"{key}.alpha": torch.tensor(lora.alpha / lora.rank * rank)}
    if left:
        raise AdapterFileError(
            f"the adapter's LoRA has {len(left)} tensors that its settings do not name, e.g. "
            f"{min(left)}."
        )
    return written


def _rules(adapter: Adapter, depth: int) -> Iterator[KeyRule]:
    """The published names of weights, and those of ours that each holds."""
    kind = adapter.settings.kind
    if issubclass(kind, Mochi):
        yield from (rule for rule in backbone_rules(depth) if rule.official.endswith(".weight"))
    elif issubclass(kind, Wan):
        for i in range(depth):
            for theirs, ours in _OF_WAN.items():
                yield KeyRule(f"blocks.{i}.{theirs}.weight", (f"blocks.{i}.{ours}.weight",))
    else:
        raise AdapterFileError(f"ComfyUI's names of {kind.family} are not known here.")
