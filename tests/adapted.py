"""Models as training might leave them, and their options."""

import torch
from torch import nn

from musicinfuser.memory.settings import MemorySettings


def with_trained_values(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Give whatever is trained other values, so that nothing is zero; the model itself."""
    stream = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=stream)
    return model


def with_memory(changes: dict) -> dict:
    """Options of `MusicModel`, those of its `MemorySettings` in their group."""
    ways = {name: changes[name] for name in changes if name in MemorySettings.__annotations__}
    others = {name: value for name, value in changes.items() if name not in ways}
    return others | {"memory": MemorySettings(**ways)}
