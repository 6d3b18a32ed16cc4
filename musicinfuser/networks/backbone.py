"""The frozen text-to-video transformer of diffusers, from weights or from a config."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from musicinfuser.errors import UserError, looked_for
from musicinfuser.fingerprint import fingerprint_folder
from musicinfuser.keyed_random import generator
from musicinfuser.networks.backbones import Backbone, backbone_of, families_of, family_named
from musicinfuser.networks.quantised import Quantised, check_quantised, quantise
from musicinfuser.pretrained_sources import MissingWeightsError, find_local, load_pretrained
from musicinfuser.setting_checks import check_file
from musicinfuser.setting_differences import without_defaults

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class BackboneSpec:
    """Where the frozen transformer comes from. Give ``pretrained`` or ``config``."""

    pretrained: str | None = None
    """Hub id or local folder in diffusers' layout."""
    subfolder: str | None = "transformer"
    """Folder of the transformer inside ``pretrained``."""
    config: str | None = None
    """A ``config.json`` of the transformer: random weights, for tests and timing."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type the frozen weights are held in."""
    seed: int = 0
    """Seed of random weights; no effect with ``pretrained``."""
    family: str = "mochi"
    """``mochi``, ``wan`` (Wan 2.1 T2V) or ``wan_5b`` (Wan 2.2 TI2V 5B); ``wan_on_mochi``, for
    the small world alone: Wan's form on Mochi's latents."""
    quantize: Quantised | None = None
    """Keep the weights of the blocks' linear layers in 8 bits, or 4 (nf4); null: in ``dtype``."""

    def __post_init__(self) -> None:
        """Exactly one source, of a family there is."""
        family_named(self.family)
        check_quantised(self.quantize)
        if (self.pretrained is None) == (self.config is None):
            raise UserError(
                "model.backbone needs exactly one of `pretrained` (hub id or folder) and `config` "
                "(a config.json, random weights)."
            )

    def stored(self) -> dict[str, Any]:
        """As files of earlier versions have it, which know Mochi only: else with its family."""
        return without_defaults(self, "family", "quantize")

    def fingerprint(self) -> str | None:
        """A hash of the weights; None of random ones and of those that are not on this machine."""
        folder = find_local(self.pretrained, self.subfolder) if self.pretrained else None
        return fingerprint_folder(folder) if folder else None


def build_backbone(spec: BackboneSpec) -> Any:
    """The frozen transformer, of its family's ``model_class``, without gradient anywhere.

    With ``spec.quantize`` the blocks' weights are quantised, but for those that are not streamed.

    Under ``torch.device("meta")`` only names, shapes and types are made, without reading weights.

    Raises:
        MissingWeightsError: ``spec.pretrained`` or ``spec.config`` cannot be found.
        UserError: What is found is of another family, or cannot be adapted.
    """
    kind = family_named(spec.family)
    dtype, is_meta = DTYPES[spec.dtype], torch.get_default_device().type == "meta"
    if spec.config is not None or is_meta:
        # Without the weights torch would draw: each is written once, by us.
        with torch.device("meta"):
            backbone = kind.model_class.from_config(backbone_config(spec))
            _cast(backbone, dtype)
        if not is_meta:
            backbone.to_empty(device=torch.get_default_device())
            kind.restore_buffers(backbone)
            initialise_randomly(backbone, seed=spec.seed)
    else:
        assert spec.pretrained is not None
        kind.check_source(spec.pretrained)
        with suppress(MissingWeightsError):  # on the Hub; looked at again below
            backbone_config(spec)
        backbone = load_pretrained(kind.model_class, spec.pretrained, spec.subfolder, dtype=dtype)
        _check_family(kind, backbone.config, spec.pretrained)
    backbone.requires_grad_(False)
    if spec.quantize is not None:
        quantise(getattr(backbone, kind.blocks_name), spec.quantize, leave=kind.not_streamed)
    return backbone


def _cast(backbone: Any, dtype: torch.dtype) -> None:
    """Give parameters a type, but for those that diffusers keeps in fp32 when it loads them."""
    kept = set(backbone._keep_in_fp32_modules or ())
    for name, parameter in backbone.named_parameters():
        if kept.isdisjoint(name.split(".")):
            parameter.data = parameter.data.to(dtype)


def _check_family(kind: type[Backbone], config: Mapping[str, Any], where: object) -> None:
    """Refuse the config of another family's transformer, as far as it says what it is."""
    found = config.get("_class_name", kind.model_class.__name__)
    suits = "in_channels" not in config or kind.suits(config)
    if found == kind.model_class.__name__ and suits:
        return
    others = families_of(config)
    remedy = f"set model.backbone.family to {others[0].family}" if others else "give another base"
    raise UserError(
        f"{where} is no transformer of the family {kind.family}, but a {found} of other sizes or "
        f"kind; {remedy}."
    )


def backbone_config(spec: BackboneSpec) -> dict[str, Any]:
    """The architecture of ``spec`` without its weights; errors as of `build_backbone`."""
    kind = family_named(spec.family)
    if spec.config is not None:
        check_file("model.backbone.config", spec.config, error=MissingWeightsError)
        path = Path(spec.config)
    else:
        assert spec.pretrained is not None
        path = Path(spec.pretrained, spec.subfolder or "", "config.json")
        if Path(spec.pretrained).is_dir():
            kind.check_source(spec.pretrained)
    if path.is_file():
        config = json.loads(path.read_text())
        _check_family(kind, config, path)
        return config
    if (published := kind.published.get(spec.pretrained or "")) is not None:
        return dict(published)
    raise MissingWeightsError(
        f"{path} does not exist{looked_for(path)}, so the architecture is unknown."
    )


def initialise_randomly(backbone: Any, *, seed: int) -> None:
    """Give a backbone weights that depend on nothing but ``seed`` and the parameter's name.

    They are those of `random_weight`.
    """
    kind = type(backbone_of(backbone))
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            parameter.copy_(random_weight(kind, name, parameter.shape, seed=seed))


def random_weight(kind: type[Backbone], name: str, shape: torch.Size, *, seed: int) -> Tensor:
    """The fp32 weights of one parameter of a backbone of the family ``kind``.

    Matrices get the spread of torch's linear layers, biases a small one, weights of norms are one;
    what is neither, its family knows (`Backbone.random_values`).
    """
    stream = generator(seed, name, "backbone init")
    values: Tensor | None = kind.random_values(name, shape, stream)
    if values is not None:
        return values
    if len(shape) > 1:
        return torch.randn(shape, generator=stream) * (3 * shape[1:].numel()) ** -0.5
    if name.endswith(".bias"):
        return torch.randn(shape, generator=stream) * 0.02
    return torch.ones(shape)
