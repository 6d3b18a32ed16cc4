"""LoRA on projections of the frozen backbone (section 4.3), through peft."""

import re
import warnings
from dataclasses import dataclass
from typing import Any, Literal

from musicinfuser.errors import UserError
from musicinfuser.networks.backbones import Backbone, Mochi, backbone_of
from musicinfuser.setting_checks import check_choice, check_number
from musicinfuser.setting_differences import without_defaults

ADAPTER_NAME = "default"
PARTS = ("attention", "feed_forward", "text")
"""What layers are: of the visual stream by their kind, and those that text goes through."""


@dataclass(frozen=True)
class LoraSpec:
    """Low-rank updates W + alpha / rank * B A, B zero at the start."""

    rank: int
    """Section 5.1: 64."""
    alpha: float
    """Authors' code: 64, i.e. a factor of 1."""
    streams: Literal["both", "visual"] = "both"
    """``both`` adapts the projections of video and text (authors' code); ``visual`` of video."""
    share_qkv_a: bool = False
    """Train one A for q, k and v of a stream, as the authors' fused layers do; of Mochi only."""
    targets: tuple[Literal["attention", "feed_forward"], ...] = ("attention",)
    """The layers of attention (authors' code), those of the feed-forward networks, or both."""
    ranks: dict[str, int] | None = None
    """Ranks of layers that are not ``rank``: by ``attention`` and ``feed_forward`` of the visual
    stream, ``text``, or before these a regular expression that names within a block end with, such
    as ``to_q``. The factor stays alpha / rank."""
    dora: bool = False
    """Also learn the length of each row of the weights, peft's DoRA (arXiv 2402.09353)."""

    def __post_init__(self) -> None:
        """Check ranges."""
        object.__setattr__(self, "targets", tuple(self.targets))
        for target in self.targets or ("none",):
            check_choice("lora.targets", target, ("attention", "feed_forward"))
        for name, rank in (self.ranks or {}).items():
            check_number(f"lora.ranks.{name}", rank, at_least=1)
        if self.share_qkv_a and (self.ranks or self.dora):
            raise UserError(
                "lora.share_qkv_a shares one A of one rank, as the authors' layers do; set it to "
                "false, or lora.ranks to null and lora.dora to false."
            )
        check_number("lora.rank", self.rank, at_least=1, hint=" (use lora: null for none)")
        check_number("lora.alpha", self.alpha, above=0)

    @property
    def is_authors(self) -> bool:
        """Whether the authors' format can hold it."""
        return self.stored().keys() == {"rank", "alpha", "streams", "share_qkv_a"} and (
            self.streams == "both"
        )

    def stored(self) -> dict[str, Any]:
        """As files of earlier versions have it, where it is nothing that these do not know."""
        found = without_defaults(self, "targets", "ranks", "dora")
        return found | ({"targets": list(self.targets)} if "targets" in found else {})


def target_pattern(spec: LoraSpec, kind: type[Backbone] = Mochi) -> str:
    """The anchored pattern of adapted modules of a family."""
    return kind.lora_pattern(spec.streams, spec.targets)


def peft_options(spec: LoraSpec, kind: type[Backbone]) -> dict[str, Any]:
    """What peft's `LoraConfig` is made with, for adapters that are trained and for their files."""
    options: dict[str, Any] = {
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "target_modules": target_pattern(spec, kind),
        "lora_dropout": 0.0,
        "bias": "none",
    }
    if ranks := _ranks_of_layers(spec, kind):
        factor = spec.alpha / spec.rank
        options["rank_pattern"] = ranks
        options["alpha_pattern"] = {name: factor * rank for name, rank in ranks.items()}
    if spec.dora:
        options["use_dora"] = True
    return options


def add_lora(backbone: Any, spec: LoraSpec) -> set[str]:
    """Inject LoRA layers and return the names of their parameters within the backbone.

    The adapters compute in the type of their input: a backbone in bf16 needs autocast, under which
    adapters, their gradients and the optimizer stay in fp32.

    Raises:
        UserError: A is to be shared, but the family's projections do not read the same.
    """
    from peft import LoraConfig

    kind = backbone_of(backbone)
    if spec.share_qkv_a and not kind.lora_shared_a:
        raise UserError(
            f"lora.share_qkv_a is for fused layers, which {kind.family} does not have; set it to "
            "false."
        )
    with warnings.catch_warnings():
        # Of a backbone in 8 bits: nothing is merged here.
        warnings.filterwarnings("ignore", message="TorchaoLoraLinear was instantiated")
        backbone.add_adapter(
            LoraConfig(**peft_options(spec, type(kind)), init_lora_weights=True),
            adapter_name=ADAPTER_NAME,
        )
    for layer in backbone.modules():
        if hasattr(layer, "cast_input_dtype_enabled"):
            # peft would copy the input of every layer to fp32 because the adapters are, and
            # autocast would copy it back. Without, autocast lowers the adapters: fewer bytes.
            layer.cast_input_dtype_enabled = False
    for block in kind.blocks if spec.share_qkv_a else ():
        for group in kind.lora_shared_a:
            named: list[Any] = [getattr(block.attn1, name, None) for name in group]
            layers = [layer for layer in named if ADAPTER_NAME in getattr(layer, "lora_A", {})]
            for layer in layers[1:]:
                layer.lora_A[ADAPTER_NAME].weight = layers[0].lora_A[ADAPTER_NAME].weight
    return {name for name, _ in backbone.named_parameters() if is_lora_name(name)}


def is_lora_name(name: str) -> bool:
    """Whether a parameter name belongs to a LoRA layer."""
    parts = ("lora_A", "lora_B", "lora_magnitude_vector")
    return name.endswith(tuple(f"{part}.{ADAPTER_NAME}.weight" for part in parts))


def _ranks_of_layers(spec: LoraSpec, kind: type[Backbone]) -> dict[str, int]:
    """``ranks`` by patterns of single layers: peft's files forget in which order patterns stand.

    Raises:
        UserError: A name is of no adapted layer.
    """
    layers = kind.lora_layers(spec.streams, spec.targets)
    part_of = {layer: part for part, names in layers.items() for layer in names}
    given, found = dict(spec.ranks or {}), {}
    for name in given:
        try:
            hits = [x for x in part_of if _names(name, x, part_of[x])]
        except re.error as error:
            raise UserError(f"lora.ranks names {name!r}, which is no pattern ({error}).") from error
        if not hits:
            raise UserError(
                f"lora.ranks names {name!r}, but no adapted layer of {kind.family} is called so; "
                f"name {', '.join(layers)}, or the end of one of "
                f"{', '.join(layer.replace(chr(92), '') for layer in part_of)}."
            )
    for layer, part in part_of.items():
        named = [name for name in given if _names(name, layer, part)]
        if named:
            # A layer's own name before what the layer is.
            chosen = next((name for name in named if name not in PARTS), named[0])
            found[layer] = given[chosen]
    return found


def _names(name: str, layer: str, part: str) -> bool:
    r"""Whether a key of ``ranks`` is of a layer, a pattern such as ``attn1\.to_q``."""
    if name in PARTS:
        return name == part
    return re.fullmatch(rf"(.*\.)?({name})", layer.replace("\\", "")) is not None
