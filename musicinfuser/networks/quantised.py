"""A frozen backbone with the weights of its blocks in 8 bits, by torchao.

Weight-only: a product takes the weights as numbers of the backbone's type, made of 8 bits and a
scale per row, so that activations, adapters and gradients are of the types they always are.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import Tensor, nn

from musicinfuser.errors import UserError

Quantised = Literal["int8", "fp8"]
TORCHAO = "torchao>=0.18,<0.19"
QUANTISED_ROW_BYTES: dict[str, int] = {"int8": 5, "fp8": 4}
"""What a row of weights takes beside a byte for each: its scale in fp32, of int8 a zero point."""


def check_quantised(quantize: str | None) -> None:
    """Refuse a type that there is not, and one whose package is not installed.

    Raises:
        UserError: Says which.
    """
    if quantize is None:
        return
    if quantize not in get_args(Quantised):
        raise UserError(
            f"model.backbone.quantize is {quantize!r}; set it to {', '.join(get_args(Quantised))}, "
            "or null for the backbone as it is."
        )
    try:
        import torchao.quantization  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"model.backbone.quantize: {quantize} needs the package torchao; pip install "
            f"'{TORCHAO}' ({error})."
        ) from error


def quantise(blocks: nn.ModuleList, quantize: Quantised, *, leave: Sequence[str] = ()) -> None:
    """Put the weights of the blocks' linear layers into 8 bits, in place.

    Args:
        blocks: Frozen, without adapters; on any device, the meta device included.
        quantize: ``int8`` with a scale per row, or ``fp8`` (e4m3), likewise.
        leave: Beginnings of names within a block that stay as they are.
    """
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

    config = Int8WeightOnlyConfig() if quantize == "int8" else Float8WeightOnlyConfig()

    def is_chosen(module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Linear) and not name.startswith(tuple(leave))

    for block in blocks:
        quantize_(block, config, is_chosen)


def is_quantised(module: nn.Module) -> bool:
    """Whether weights of a module are kept in another form than their type says."""
    return any(_inner(parameter) for parameter in module.parameters())


def held_bytes(tensor: Tensor) -> int:
    """Bytes that a tensor takes: of one in 8 bits those, not those of the type it has."""
    inner = _inner(tensor)
    return sum(map(held_bytes, inner)) if inner else tensor.nbytes


def _inner(tensor: Any) -> list[Tensor]:
    """What a tensor of a library's own class is made of; nothing of torch's own."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return []
    names, _ = tensor.__tensor_flatten__()
    return [part for name in names if isinstance(part := getattr(tensor, name), Tensor)]
