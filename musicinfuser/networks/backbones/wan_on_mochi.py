"""A small transformer of Wan's form on the latents of Mochi's VAE: Wan beside Mochi, like for like.

Both small bases then share VAE, text encoder and cache, and only the transformer differs. None is
published: `small_world.parts.TextToVideoModule` trains one.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from musicinfuser.networks.backbones.base import Usual
from musicinfuser.networks.backbones.wan import Wan
from musicinfuser.networks.class_of import ClassOf
from musicinfuser.networks.text_tokens import MAX_TEXT_TOKENS
from musicinfuser.networks.vaes import MochiVae


class WanOnMochi(Wan):
    """Wan's blocks, velocity and noise levels; latents, geometry and T5 as Mochi has them."""

    family = "wan_on_mochi"
    # diffusers' WanPipeline takes Wan's own VAE only.
    music_pipeline = "train.py predict"
    # Text is filled up with zeros as Wan's, to as many tokens as Mochi reads.
    usual = Usual(73, 64, 64, 20, 3.0, MAX_TEXT_TOKENS)
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    vae = MochiVae
    text_encoder_class = ClassOf("transformers", "T5EncoderModel")
    text_config_class = ClassOf("transformers", "T5Config")
    most_text_tokens = MAX_TEXT_TOKENS
    # An empty text is all zeros, as Mochi's has no tokens: one cache serves both.
    reads_empty_text = False
