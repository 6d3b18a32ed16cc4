"""What people train with today: diffusers' own transformer with peft's LoRA, and no audio."""

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from musicinfuser.errors import UserError
from musicinfuser.networks.lora import peft_options
from musicinfuser.networks.music_model import MusicModel


def stock_transformer(model: MusicModel) -> Any:
    """Diffusers' transformer with peft's LoRA where an adapted model has its own.

    It shares all parameters with the model, the frozen ones and LoRA's, so that both are on one
    device. Nothing else of ours is in it: blocks, attention, gradient checkpointing and the types
    of LoRA's inputs are diffusers' and peft's.

    Raises:
        UserError: The model has no LoRA, or weights in the host's memory.
    """
    memory, kind = model.memory, model.kind
    if memory.stream_blocks or memory.modulations_on_host or model.lora is None:
        raise UserError(
            "stock needs LoRA, and all weights on the device; give a profile such as base."
        )
    from peft import LoraConfig

    with torch.device("meta"):
        stock = kind.model_class.from_config(model.backbone.config).requires_grad_(False)
        stock.add_adapter(LoraConfig(**peft_options(model.lora, type(kind))))
    stock.load_state_dict(model.backbone.state_dict(keep_vars=True), assign=True)
    for name, buffer in model.backbone.named_buffers():
        owner, _, own = name.rpartition(".")
        stock.get_submodule(owner)._buffers[own] = buffer
    stock.enable_gradient_checkpointing()
    return stock.train()


def stock_velocity(
    stock: Any, noisy: Tensor, text: Tensor, timestep: Tensor, *, text_tokens: int
) -> Tensor:
    """Its forward pass as its pipeline calls it; the sign is what the base was trained to predict.

    Args:
        stock: Of `stock_transformer`.
        noisy: ``(B, C, T, H, W)`` latents.
        text: ``(B, L, text width)``, without padding.
        timestep: ``(B,)``.
        text_tokens: As many as its pipeline fills texts up to.
    """
    length = text.shape[1]
    given = {
        "hidden_states": noisy.to(text.dtype),
        "encoder_hidden_states": F.pad(text, (0, 0, 0, text_tokens - length)),
        "timestep": timestep,
        "return_dict": False,
    }
    if "encoder_attention_mask" in inspect.signature(stock.forward).parameters:
        valid = torch.arange(text_tokens, device=text.device) < length
        given["encoder_attention_mask"] = valid.expand(len(text), -1)
    return stock(**given)[0]
