"""Hooks and LoRA layers around a module whose ``forward`` is bypassed.

Model offload, group offload and sequential offload hang their hooks on ``module.forward``. Our
block loop uses a backbone's parts instead, so it runs the hooks by itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import nn

from musicinfuser.errors import UserError

T = TypeVar("T")


def run_with_hooks(module: nn.Module | None, run: Callable[[], T]) -> T:
    """What ``run`` returns, within the hooks that ``module.forward`` would be run within.

    Args:
        module: Has hooks of accelerate (``_hf_hook``), of diffusers (``_diffusers_hook``) or none;
            None runs nothing around.
        run: What is done in place of ``module.forward``; its inputs are on the right device.
    """
    hooks = [] if module is None else _hooks(module)
    for hook in reversed(hooks):
        hook.pre_forward(module)
    output = run()
    for hook in hooks:
        output = hook.post_forward(module, output)
    return output


def is_hooked(module: nn.Module) -> bool:
    """Whether a module's own hooks decide where its weights are while its ``forward`` runs."""
    return bool(_hooks(module))


def _hooks(module: nn.Module) -> list[Any]:
    """The hooks of a module, innermost first."""
    accelerate_hook = getattr(module, "_hf_hook", None)
    registry = getattr(module, "_diffusers_hook", None)
    inner = [] if accelerate_hook is None else [accelerate_hook]
    return inner + ([] if registry is None else list(registry.hooks.values()))


def _lora_layers(backbone: nn.Module) -> dict[str, Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {n: m for n, m in backbone.named_modules() if isinstance(m, BaseTunerLayer)}


@contextmanager
def lora_scaled(backbone: nn.Module, scale: float) -> Iterator[None]:
    """Within, every LoRA of a backbone counts ``scale`` times what it counts outside.

    Args:
        backbone: With or without layers of peft.
        scale: As in diffusers' ``attention_kwargs={"scale": ...}``; 1 changes nothing.
    """
    layers = [] if scale == 1.0 else list(_lora_layers(backbone).values())
    if any(any(layer.use_dora.values()) for layer in layers if hasattr(layer, "use_dora")):
        raise UserError(
            "the LoRA's scale must be 1: this adapter is a DoRA, whose lengths of rows have none."
        )
    kept = [dict(layer.scaling) for layer in layers]
    for layer in layers:
        layer.scaling.update({name: scale * value for name, value in layer.scaling.items()})
    try:
        yield
    finally:
        for layer, scaling in zip(layers, kept, strict=True):
            layer.scaling.update(scaling)


@contextmanager
def without_lora(backbone: nn.Module) -> Iterator[None]:
    """Within, a backbone has its plain layers under their plain names, as without LoRA."""
    layers = _lora_layers(backbone)
    for name, layer in layers.items():
        backbone.set_submodule(name, layer.get_base_layer())
    try:
        yield
    finally:
        for name, layer in layers.items():
            backbone.set_submodule(name, layer)
