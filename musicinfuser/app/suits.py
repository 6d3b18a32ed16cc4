"""What suits a model where nobody said: size, steps, guidance, prompts."""

from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import yaml

MOCHI_WIDTH = 3072
ASSETS = Path(__file__).resolve().parents[2] / "assets"


@dataclass(frozen=True)
class Suit:
    """Settings a page starts with."""

    height: int
    """Pixels, a multiple of 16."""
    width: int
    """Pixels, a multiple of 16."""
    num_steps: int
    guidance_scale: float
    music_guidance_scale: float
    prompts: dict[str, str]
    """Examples by short names, at least one."""


SMALL_PROMPTS = {
    "Break, a man in the studio": "a professional male dancer executing Break movements in a "
    "minimalist studio space in a basic dance setting, shot from a front view",
    "House, a woman in the studio": "a professional female dancer executing House movements in a "
    "minimalist studio space in a basic dance setting, shot from a front view",
    "Ballet Jazz, a man in the studio": "a front view video of a professional male dancer "
    "performing Ballet Jazz choreography against a white background in a basic dance scene",
    "Break, a woman on a dark stage": "a video of a woman wearing a turquoise shirt and grey "
    "trousers, dancing Break on a dark stage in a red spotlight",
}
"""Captions as the small world writes them."""


def suit_of(transformer: Any) -> Suit:
    """What suits a model: for Mochi section 5.1 and Table 9, for any other the small one's.

    Args:
        transformer: diffusers' `MochiTransformer3DModel`; the published width means Mochi.
    """
    config = transformer.config
    if config.num_attention_heads * config.attention_head_dim == MOCHI_WIDTH:
        table = yaml.safe_load((ASSETS / "table9_prompts.yaml").read_text(encoding="utf-8"))
        prompts = {shorten(text, 56): text for text in table["prompts"]}
        return Suit(480, 848, 64, 6.0, 1.0, prompts)
    # Music guidance 3 keeps the beat best there (assets/small-mochi/README.md).
    return Suit(64, 64, 20, 3.0, 3.0, SMALL_PROMPTS)
