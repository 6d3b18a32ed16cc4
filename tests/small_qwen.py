"""What the small models of Qwen's kinds share: a letter a token, and widths for a CPU."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, Qwen2Tokenizer

END = "<|im_end|>"
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.5,
}
VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "out_hidden_size": 32,
    "initializer_range": 0.5,
}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'audio' %}<|audio_start|><|audio_pad|><|audio_end|>"
    "{% else %}<|vision_start|><|{{ part['type'] }}_pad|><|vision_end|>{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def numbered(tokens: Iterable[str]) -> dict[str, int]:
    """A vocabulary. Byte-level tokenizers write Ġ for a space and Ċ for a line break."""
    return {token: index for index, token in enumerate(tokens)}


def small_tokenizer(vocabulary: dict[str, int], special: Any) -> Qwen2Tokenizer:
    return Qwen2Tokenizer(vocabulary, merges=[], eos_token=END, extra_special_tokens=special)


def save_random(
    model_class: Any, config: PreTrainedConfig, folder: Path, *, vocabulary: dict[str, int]
) -> None:
    """A model with random weights that ends its answers, in the layout of the Hub."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)
    model.generation_config.eos_token_id = vocabulary[END]
    model.save_pretrained(folder)
