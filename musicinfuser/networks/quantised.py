"""A frozen backbone with the weights of its blocks in few bits, by torchao or bitsandbytes.

Weight-only: a product takes the weights as numbers of the backbone's type, made of 8 bits and a
scale per row, or of 4 bits and a scale per 64 weights, so that activations, adapters and gradients
are of the types they always are.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from musicinfuser.errors import UserError

Quantised = Literal["int8", "fp8", "nf4"]
TORCHAO, BITSANDBYTES = "torchao>=0.18,<0.19", "bitsandbytes>=0.50,<0.51"
_ROW_BYTES = {"int8": 5, "fp8": 4}  # a scale in fp32, of int8 a zero point
_NF4_BLOCK, _NF4_CODE_BYTES = 64, 16 * 4


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
    package = BITSANDBYTES if quantize == "nf4" else TORCHAO
    name, _, _ = package.partition(">")
    try:
        import_module("bitsandbytes" if quantize == "nf4" else "torchao.quantization")
    except ImportError as error:
        raise UserError(
            f"model.backbone.quantize: {quantize} needs the package {name}; pip install "
            f"'{package}' ({error})."
        ) from error


def quantise(blocks: nn.ModuleList, quantize: Quantised, *, leave: Sequence[str] = ()) -> None:
    """Put the weights of the blocks' linear layers into 8 or 4 bits, in place.

    Args:
        blocks: Frozen, without adapters; on any device, the meta device included.
        quantize: ``int8`` with a scale per row, ``fp8`` (e4m3), likewise, or ``nf4`` (the 4-bit
            NormalFloat of QLoRA, arXiv 2305.14314, its scales in fp32) where a row is a multiple of
            64 long, as all are of the published models.
        leave: Beginnings of names within a block that stay as they are.
    """

    def is_chosen(module: nn.Module, name: str) -> bool:
        if not isinstance(module, nn.Linear) or name.startswith(tuple(leave)):
            return False
        return _suits(module.weight, quantize)

    for block in blocks:
        if quantize == "nf4":
            chosen = [name for name, layer in block.named_modules() if is_chosen(layer, name)]
            _into_nf4(block, chosen)
            continue
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

        config = Int8WeightOnlyConfig() if quantize == "int8" else Float8WeightOnlyConfig()
        quantize_(block, config, is_chosen)


def _suits(weight: Tensor, quantize: str) -> bool:
    """Whether a layer's weight ``(out, in)`` is quantised; others stay as they are.

    Scales of nf4 that reach over the end of a row are misplaced by bitsandbytes 0.50 on CPUs.
    """
    return quantize != "nf4" or weight.shape[1] % _NF4_BLOCK == 0


def _into_nf4(block: nn.Module, names: Sequence[str]) -> None:
    """Layers of bitsandbytes in the place of linear ones, as diffusers puts them there.

    Not by its ``from_pretrained``, which asks for a GPU and for weights in a file.
    """
    from bitsandbytes.functional import quantize_4bit
    from bitsandbytes.nn import Params4bit
    from diffusers import BitsAndBytesConfig
    from diffusers.quantizers.bitsandbytes.utils import replace_with_bnb_linear

    plain = {n: layer for n, layer in block.named_modules() if isinstance(layer, nn.Linear)}
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=plain[names[0]].weight.dtype,
    )
    left = [name for name in plain if name not in names]
    replace_with_bnb_linear(block, left, quantization_config=config)
    for name in names:
        layer: Any = block.get_submodule(name)
        weight, state = quantize_4bit(
            plain[name].weight.detach(), blocksize=_NF4_BLOCK, quant_type="nf4"
        )
        layer.weight = Params4bit(
            weight, requires_grad=False, quant_state=state, blocksize=_NF4_BLOCK,
            compress_statistics=False, quant_type="nf4", bnb_quantized=True, module=layer,
        )  # fmt: skip
        layer.bias = plain[name].bias
        # On some CPUs it would pack the weights anew when evaluated, for products that have no
        # gradient: a training could not go on after a validation.
        layer.support_avx512bf16_for_cpu = False


def is_quantised(module: nn.Module) -> bool:
    """Whether weights of a module are kept in another form than their type says."""
    return any(_inner(parameter) for parameter in module.parameters())


def held_bytes(tensor: Tensor) -> int:
    """Bytes that a tensor takes: of one in few bits those, not those of the type it has."""
    inner = _inner(tensor)
    return sum(map(held_bytes, inner)) if inner else tensor.nbytes


def quantised_bytes(weight: Tensor, quantize: str) -> int:
    """Bytes that a layer's weight ``(out, in)`` would take if `quantise` had been called."""
    if not _suits(weight, quantize):
        return weight.nbytes
    if quantize == "nf4":
        return weight.numel() // 2 + 4 * (weight.numel() // _NF4_BLOCK) + _NF4_CODE_BYTES
    return weight.numel() + _ROW_BYTES[quantize] * weight.shape[0]


def value_type(weight: Tensor) -> torch.dtype:
    """Type of the numbers that a product takes a weight as."""
    state = getattr(weight, "quant_state", None)
    return weight.dtype if state is None else state.dtype


def _inner(tensor: Any) -> list[Tensor]:
    """What a tensor of a library's own class is made of; nothing of torch's own."""
    if (state := getattr(tensor, "quant_state", None)) is not None:
        return [tensor.detach().as_subclass(Tensor), state.absmax, state.code]
    if not hasattr(tensor, "__tensor_flatten__"):
        return []
    names, _ = tensor.__tensor_flatten__()
    return [part for name in names if isinstance(part := getattr(tensor, name), Tensor)]
