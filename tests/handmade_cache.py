"""A cache written by hand, for tests that need to know every number in it."""

from dataclasses import replace
from pathlib import Path

import torch

from musicinfuser.clip_size import latent_shape
from musicinfuser.media.latents import (
    ClipHeader,
    EncodingRecipe,
    clip_path,
    write_caption,
    write_clip,
)

RECIPE = EncodingRecipe(
    num_frames=7,
    height=32,
    width=32,
    fps=30.0,
    audio_channel="mean",
    dtype="float32",
    max_text_tokens=256,
    vae="vae of one kind",
    text_encoder="a text encoder",
    audio_encoder="an audio encoder",
    latents_mean=tuple(0.1 * c for c in range(12)),
    latents_std=tuple(1.0 + 0.1 * c for c in range(12)),
)


def header(cache: Path, clip_id: str, **changes) -> ClipHeader:
    source = changes.pop("source", "aist")
    plain = ClipHeader(
        path=clip_path(cache, source, clip_id),
        recipe=RECIPE,
        source=source,
        clip_id=clip_id,
        caption=f"caption of {clip_id}",
        base_caption="a dance video",
        music="mBR1",
        split="train",
        attributes={"genre": "BR"},
    )
    return replace(plain, **changes)


def write_handmade_clip(cache: Path, clip_id: str, *, number: float = 0.0, **changes) -> ClipHeader:
    """Latents and audio filled with ``number``, two features of audio per frame.

    Captions get features of their length.
    """
    made = header(cache, clip_id, **changes)
    shape = latent_shape(made.recipe.num_frames, *made.size)
    write_clip(
        made,
        latent_mean=torch.full(shape, number),
        latent_logvar=torch.full(shape, -number),
        audio=torch.full((2 * made.recipe.num_frames, 96), number),
    )
    for caption in (made.caption, made.base_caption):
        write_caption(cache, caption, torch.full((len(caption), 64), float(len(caption))))
    return made
