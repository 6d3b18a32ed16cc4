"""Adapters as training might leave them."""

import torch
from torch import nn


def with_trained_values(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Give whatever is trained other values, so that nothing is zero; the model itself."""
    stream = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=stream)
    return model
