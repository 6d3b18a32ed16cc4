"""A Qwen3-Omni thinker of the real class with random weights, small enough to answer on a CPU."""

import string

import torch
from transformers import (
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3OmniMoeProcessor,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

NAMED = {
    "image_token": "<|image_pad|>",
    "audio_token": "<|audio_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
}
PLAIN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY = {
    token: index
    for index, token in enumerate(
        (*PLAIN, *NAMED.values(), *string.digits, *string.ascii_letters, *".,'?!:-/ĠĊ")
    )
}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'audio' %}<|audio_start|><|audio_pad|><|audio_end|>"
    "{% else %}<|vision_start|><|video_pad|><|vision_end|>{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_small_omni(folder):
    """Model and processor in the layout of the Hub; it likes to answer with digits."""
    tokenizer = Qwen2Tokenizer(
        VOCABULARY, merges=[], eos_token="<|im_end|>", extra_special_tokens=NAMED
    )
    pixels = {"shortest_edge": 32 * 32, "longest_edge": 64 * 64 * 4}
    Qwen3OmniMoeProcessor(
        Qwen2VLImageProcessor(size=pixels, patch_size=16),
        Qwen2VLVideoProcessor(size=pixels, patch_size=16, cap_pixels_per_frame=False),
        WhisperFeatureExtractor(feature_size=128),
        tokenizer,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
    config = Qwen3OmniMoeThinkerConfig(
        text_config={
            "vocab_size": len(VOCABULARY),
            "hidden_size": 32,
            "intermediate_size": 64,
            "moe_intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
            },
            "initializer_range": 0.5,
            "eos_token_id": VOCABULARY["<|im_end|>"],
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
            "initializer_range": 0.5,
        },
        audio_config={
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "d_model": 32,
            "output_dim": 32,
            "downsample_hidden_size": 16,
            "initializer_range": 0.5,
        },
        audio_token_id=VOCABULARY["<|audio_pad|>"],
        image_token_id=VOCABULARY["<|image_pad|>"],
        video_token_id=VOCABULARY["<|video_pad|>"],
        vision_start_token_id=VOCABULARY["<|vision_start|>"],
        audio_start_token_id=VOCABULARY["<|audio_start|>"],
        user_token_id=VOCABULARY["u"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen3OmniMoeThinkerForConditionalGeneration(config)
    model.generation_config.eos_token_id = VOCABULARY["<|im_end|>"]
    model.save_pretrained(folder)
    return folder
