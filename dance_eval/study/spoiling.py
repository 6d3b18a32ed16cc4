"""Copies of clips that a careful rater tells from the intact ones."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from musicinfuser.keyed_random import generator

_COARSE_BLOCKS = 24  # along the shorter side
_SPAN_FRAMES = 5


def frozen(frames: Tensor, *, seed: int, name: str) -> Tensor:
    """The middle frame all the time: nobody dances."""
    del seed, name
    return frames[len(frames) // 2].expand_as(frames).contiguous()


def scrambled(frames: Tensor, *, seed: int, name: str) -> Tensor:
    """Short spans in a drawn order, half of them backwards: motion leaps.

    Spans have five frames, or a fifth of a shorter clip's.
    """
    stream = generator(seed, name, "study scramble")
    spans = list(torch.arange(len(frames)).split(max(min(_SPAN_FRAMES, len(frames) // 5), 1)))
    order = torch.randperm(len(spans), generator=stream).tolist()
    turned = torch.randint(2, (len(spans),), generator=stream).tolist()
    picked = [spans[n].flip(0) if turned[n] else spans[n] for n in order]
    return frames[torch.cat(picked)]


def coarse(frames: Tensor, *, seed: int, name: str) -> Tensor:
    """Blocks in place of pixels, 24 along the shorter side."""
    del seed, name
    height, width = frames.shape[1:3]
    block = max(min(height, width) // _COARSE_BLOCKS, 2)
    size = (max(height // block, 1), max(width // block, 1))
    planes = frames.permute(0, 3, 1, 2).float()
    small = functional.interpolate(planes, size, mode="area")
    large = functional.interpolate(small, (height, width), mode="nearest")
    return large.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


Spoiling = Callable[..., Tensor]

SPOILINGS: dict[str, tuple[Spoiling, tuple[str, ...]]] = {
    "frozen": (frozen, ("music", "complexity")),
    "scrambled": (scrambled, ("realism",)),
    "coarse": (coarse, ("quality",)),
}
"""How copies are spoilt, and the questions that a careful rater then answers with the intact clip.

Only these count: that a scrambled dance looks more complex is no mistake. Together they check each
question.
"""
