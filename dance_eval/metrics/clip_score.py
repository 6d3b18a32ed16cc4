"""CLIPScore: how well the frames go with the prompt, as CLIP sees it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dance_eval.metrics.clip import ClipMetric, ScoredClip
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.image_encoders import ClipEncoder
from dance_eval.metrics.matching import strangers

PREFIX = "A photo depicts "
WEIGHT = 2.5


def clip_score(image_vectors: Tensor, text_vectors: Tensor) -> Tensor:
    """2.5 max(cos, 0) of pictures and sentences (Hessel et al. 2021, arXiv 2104.08718, eq. 1).

    Takes shapes (..., D), broadcast against each other, to (...), in [0, 2.5].
    """
    cosine = (normalize(image_vectors, dim=-1) * normalize(text_vectors, dim=-1)).sum(dim=-1)
    return WEIGHT * cosine.clamp_min(0.0)


class ClipScore(ClipMetric):
    """CLIPScore of a clip's prompt, mean over its frames.

    The published score is that of ``openai/clip-vit-base-patch32``.

    Values per clip, of which `compute` gives the means:
        score: In [0, 2.5]; 0.6 to 0.9 for pictures with their captions.
        to_other: With the prompt of the next clip that has another one: what a stranger's prompt
            would have. Missing where all have the same.
        prompt_cut: 1 if CLIP read only the first 77 tokens of the prompt, else 0.

    Args:
        encoder: Which CLIP; frames are resized as its own code does.
    """

    value_names = ("score", "to_other", "prompt_cut")
    optional_names = frozenset({"to_other"})

    def __init__(self, *, encoder: ClipEncoder, name: str = "clip_score") -> None:
        super().__init__(name=name, part=encoder)
        self.encoder = encoder
        self._others: dict[Path, str] = {}

    def prepare(self, entries: Sequence[ClipEntry], *, seed: int) -> None:
        """Choose another clip's prompt for every clip."""
        prompted = [(entry, entry.prompt) for entry in entries if entry.prompt is not None]
        others = strangers(prompted)
        self._others = {path: other.prompt for path, other in others.items() if other.prompt}

    def clip_key(self, entry: ClipEntry) -> Any:
        """The other prompt."""
        return self._others.get(entry.path)

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """The values; `UserError` without a prompt or without frames."""
        prompts = [clip.known_prompt]
        if clip.path in self._others:
            prompts.append(self._others[clip.path])
        texts, is_cut = self.encoder.embed_texts([PREFIX + prompt for prompt in prompts])
        images = self.encoder.embed_images(clip.frames, antialias=True)
        scores = clip_score(images[:, None], texts).to(torch.float64).mean(dim=0).tolist()
        found = dict(zip(("score", "to_other"), scores, strict=False))
        return found | {"prompt_cut": float(is_cut[0])}
