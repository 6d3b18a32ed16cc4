"""Genmo's ``dit.safetensors`` in diffusers' format, tensor by tensor."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from musicinfuser.adapters.official_keys import KeyRule, backbone_rules
from musicinfuser.adapters.settings import AdapterFileError
from musicinfuser.atomic_files import atomic_folder, write_text
from musicinfuser.networks.backbones.mochi import MOCHI_CONFIG, Mochi
from musicinfuser.safetensors_files import StoredTensor, opened, read_header, stream_tensors

OutputType = Literal["bfloat16", "float32"]
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
_TYPES = {"bfloat16": ("BF16", torch.bfloat16), "float32": ("F32", torch.float32)}


def convert_backbone(
    dit: str | Path, folder: str | Path, *, dtype: OutputType | None = None
) -> dict[str, Any]:
    """Write a ``transformer`` folder for diffusers from Genmo's file, at any depth and offline.

    One tensor is in memory at a time; all names and shapes are compared before anything is written.

    Args:
        dit: Genmo's ``dit.safetensors``.
        folder: Gets ``config.json``, which is returned, and the weights; new or empty.
        dtype: Type to write; None keeps the file's.

    Raises:
        AdapterFileError: Tensors missing, unknown or of another shape; names file and key.
        WeightsFileError: The file cannot be read.
    """
    dit, folder = Path(dit), Path(folder)
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise AdapterFileError(f"{folder} is there already; give a new folder.")
    header = read_header(dit)
    config = backbone_config_of(header, dit)
    with torch.device("meta"):
        model = Mochi.model_class.from_config(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    with opened(dit) as file:
        plan: dict[str, tuple[StoredTensor, Callable[[], Tensor]]] = {}
        left = set(header)
        for rule in backbone_rules(config["num_layers"]):
            if rule.official not in left:
                raise AdapterFileError(f"{dit} has no tensor {rule.official!r}.")
            left.remove(rule.official)
            stored = header[rule.official]
            (rows, *rest), parts = stored.shape, len(rule.ours)
            for i, name in enumerate(rule.ours):
                if (rows // parts, *rest) != expected[name] or rows % parts:
                    raise AdapterFileError(
                        f"{dit}: {rule.official} has shape {stored.shape}, which gives {name} "
                        f"{(rows // parts, *rest)}; it must be {expected[name]}."
                    )
                kind, type_ = (stored.dtype, None) if dtype is None else _TYPES[dtype]
                announced = StoredTensor(kind, expected[name])
                plan[name] = announced, partial(_piece, file, rule, i, type_)
        if left:
            raise AdapterFileError(f"{dit} has {len(left)} unknown tensors, e.g. {min(left)!r}.")
        missing = expected.keys() - plan.keys()
        assert not missing, missing
        with atomic_folder(folder) as temporary:
            stream_tensors(plan, temporary / WEIGHTS_FILE, metadata={"format": "pt"})
            text = json.dumps({"_class_name": "MochiTransformer3DModel", **config}, indent=2)
            write_text(temporary / "config.json", f"{text}\n")
    return config


def backbone_config_of(header: dict[str, StoredTensor], dit: Path) -> dict[str, Any]:
    """The architecture that the shapes in Genmo's file say; the rest is as published.

    Raises:
        AdapterFileError: A tensor that says it is missing; names it.
    """

    def shape(name: str, num_axes: int) -> tuple[int, ...]:
        if name not in header or len(header[name].shape) != num_axes:
            raise AdapterFileError(
                f"{dit} is no transformer of Genmo's: it has no {name} of {num_axes} axes, but "
                f"e.g. {min(header, default='nothing')}."
            )
        return header[name].shape

    numbers = {int(n.split(".")[1]) for n in header if n.startswith("blocks.")}
    width, channels, patch, _ = shape("x_embedder.proj.weight", 4)
    [head_width] = shape("blocks.0.attn.q_norm_x.weight", 1)
    return MOCHI_CONFIG | {
        "patch_size": patch,
        "num_attention_heads": width // head_width,
        "attention_head_dim": head_width,
        "num_layers": max(numbers) + 1,
        "pooled_projection_dim": shape("t5_yproj.weight", 2)[0],
        "in_channels": channels,
        "text_embed_dim": shape("t5_yproj.weight", 2)[1],
        "time_embed_dim": shape("t_embedder.mlp.0.weight", 2)[1],
    }


def _piece(file: Any, rule: KeyRule, index: int, type_: torch.dtype | None) -> Tensor:
    tensor = rule.split(file.get_tensor(rule.official))[index]
    return tensor if type_ is None else tensor.to(type_)
