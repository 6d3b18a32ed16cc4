"""LoRA on the attention projections of the frozen backbone (section 4.3), through peft."""

from dataclasses import dataclass
from typing import Any, Literal

from musicinfuser.errors import UserError
from musicinfuser.networks.backbones import Backbone, Mochi, backbone_of
from musicinfuser.setting_checks import check_number

ADAPTER_NAME = "default"


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

    def __post_init__(self) -> None:
        """Check ranges."""
        check_number("lora.rank", self.rank, at_least=1, hint=" (use lora: null for none)")
        check_number("lora.alpha", self.alpha, above=0)


def target_pattern(spec: LoraSpec, kind: type[Backbone] = Mochi) -> str:
    """The anchored pattern of adapted modules of a family."""
    return kind.lora_pattern(spec.streams)


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
    backbone.add_adapter(
        LoraConfig(
            r=spec.rank,
            lora_alpha=spec.alpha,
            target_modules=target_pattern(spec, type(kind)),
            init_lora_weights=True,
        ),
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
    return name.endswith((f"lora_A.{ADAPTER_NAME}.weight", f"lora_B.{ADAPTER_NAME}.weight"))
