"""A video captioner of a real class with random weights, small enough to speak on a CPU."""

import string
from pathlib import Path

from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
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

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    END,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
VOCABULARY = numbered((*SPECIAL, *string.ascii_letters, *string.digits, *".,'?!ĠĊ"))


def write_small_captioner(folder: Path) -> Path:
    """A Qwen2.5-VL with its processor, in the layout of the Hub."""
    pixels = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(size=pixels),
        small_tokenizer(VOCABULARY, list(SPECIAL)),
        Qwen2VLVideoProcessor(size=pixels, cap_pixels_per_frame=False),
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
    config = Qwen2_5_VLConfig(
        text_config={
            **TEXT,
            "vocab_size": len(VOCABULARY),
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1]},
            "bos_token_id": VOCABULARY["<|endoftext|>"],
            "eos_token_id": VOCABULARY[END],
        },
        vision_config={**VISION, "fullatt_block_indexes": [1]},
        **{
            f"{name}_token_id": VOCABULARY[f"<|{token}|>"]
            for name, token in (
                ("image", "image_pad"),
                ("video", "video_pad"),
                ("vision_start", "vision_start"),
                ("vision_end", "vision_end"),
            )
        },
    )
    save_random(Qwen2_5_VLForConditionalGeneration, config, folder, vocabulary=VOCABULARY)
    return folder
