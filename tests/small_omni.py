"""A Qwen3-Omni thinker of the real class with random weights, small enough to answer on a CPU."""

import string
from pathlib import Path

from transformers import (
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3OmniMoeProcessor,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from tests.small_qwen import (
    CHAT_TEMPLATE,
    END,
    TEXT,
    VISION,
    numbered,
    save_random,
    small_tokenizer,
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
PLAIN = ("<|endoftext|>", "<|im_start|>", END)
VOCABULARY = numbered(
    (*PLAIN, *NAMED.values(), *string.digits, *string.ascii_letters, *".,'?!:-/ĠĊ")
)


def write_small_omni(folder: Path) -> Path:
    """Model and processor in the layout of the Hub; it likes to answer with digits."""
    pixels = {"shortest_edge": 32 * 32, "longest_edge": 64 * 64 * 4}
    Qwen3OmniMoeProcessor(
        Qwen2VLImageProcessor(size=pixels, patch_size=16),
        Qwen2VLVideoProcessor(size=pixels, patch_size=16, cap_pixels_per_frame=False),
        WhisperFeatureExtractor(feature_size=128),
        small_tokenizer(VOCABULARY, NAMED),
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
    config = Qwen3OmniMoeThinkerConfig(
        text_config={
            **TEXT,
            "vocab_size": len(VOCABULARY),
            "moe_intermediate_size": 32,
            "head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
            },
            "eos_token_id": VOCABULARY[END],
        },
        vision_config={
            **VISION,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
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
    save_random(Qwen3OmniMoeThinkerForConditionalGeneration, config, folder, vocabulary=VOCABULARY)
    return folder
