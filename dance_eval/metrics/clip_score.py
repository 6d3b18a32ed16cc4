"""CLIPScore: how well the frames go with the prompt, as CLIP sees it."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dance_eval.metrics.clip import ClipMetric, ScoredClip
from dance_eval.metrics.image_encoders import ClipEncoder

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
        prompt_cut: 1 if CLIP read only the first 77 tokens of the prompt, else 0.

    Args:
        encoder: Which CLIP; frames are resized as its own code does.
    """

    value_names = ("score", "prompt_cut")

    def __init__(self, *, encoder: ClipEncoder, name: str = "clip_score") -> None:
        super().__init__(name=name, part=encoder)
        self.encoder = encoder

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """The values; `UserError` without a prompt or without frames."""
        text, [is_cut] = self.encoder.embed_texts([PREFIX + clip.known_prompt])
        scores = clip_score(self.encoder.embed_images(clip.frames, antialias=True), text)
        return {"score": float(scores.to(torch.float64).mean()), "prompt_cut": float(is_cut)}
