"""Model offload where some models work at the same time and others not in every call."""

from collections.abc import Sequence
from typing import Any

from accelerate.hooks import UserCpuOffloadHook
from torch import nn


class _Together(UserCpuOffloadHook):  # type: ignore[misc]
    """Sends several models away; accelerate asks one of them where it is."""

    def __init__(self, hooks: Sequence[UserCpuOffloadHook]) -> None:
        self.hooks = tuple(hooks)

    @property
    def model(self) -> nn.Module:
        """One that is on the device, if there is any."""
        models = [hook.model for hook in self.hooks]
        away = [m for m in models if next(m.parameters()).device.type == "cpu"]
        return next((m for m in models if m not in away), models[-1])

    def offload(self) -> None:
        for hook in self.hooks:
            hook.offload()


def send_away(module: nn.Module) -> None:
    """Send a model back that has run before its turn; nothing where models are not offloaded."""
    hook = getattr(module, "_hf_hook", None)
    if hasattr(hook, "prev_module_hook"):
        UserCpuOffloadHook(module, hook).offload()


def offload_in_turn(stages: Sequence[Sequence[nn.Module | None]]) -> None:
    """Let a model send away all of earlier stages, and none of its own.

    accelerate's hook sends the model before it in the chain away, at every call, and leaves an
    earlier one where it is if that one did not run. Models without hooks of
    ``cpu_offload_with_hook`` are left alone; those that work at the same time are one stage.
    """
    earlier: list[UserCpuOffloadHook] = []
    for stage in stages:
        hooked: list[Any] = [m for m in stage if m is not None and hasattr(m, "_hf_hook")]
        for module in hooked:
            module._hf_hook.prev_module_hook = _Together(earlier) if earlier else None
        earlier += [UserCpuOffloadHook(module, module._hf_hook) for module in hooked]
