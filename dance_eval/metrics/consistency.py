"""VBench's consistency of subject and background (Huang et al. 2023, arXiv 2311.17982)."""

from torch import Tensor
from torch.nn.functional import normalize

from dance_eval.metrics.clip import ClipMetric, ScoredClip
from dance_eval.metrics.features import shuffled_order
from dance_eval.metrics.image_encoders import ClipEncoder, DinoEncoder, ImageEncoder
from musicinfuser.errors import UserError


def frame_consistency(features: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of every frame but the first with the first frame and with the one before.

    Takes one vector per frame, shape (T, D), T of 2 or more, else `UserError`, to two of shape
    (T - 1,), float64, in [0, 1]: negative cosines count as 0 (VBench's code).
    """
    if len(features) < 2:
        raise UserError(
            f"{len(features)} frames have nothing to be consistent with; give at least 2."
        )
    unit = normalize(features.double(), dim=-1)
    to_first = (unit[1:] * unit[:1]).sum(dim=-1)
    to_previous = (unit[1:] * unit[:-1]).sum(dim=-1)
    return to_first.clamp(0, 1), to_previous.clamp(0, 1)


class _Consistency(ClipMetric):
    """What the two share.

    Values per clip, of which `compute` gives the means:
        score: Mean of the two below, in [0, 1].
        to_first: Mean cosine of the frames with the first one.
        to_previous: Mean cosine of the frames with the one before.
        shuffled: The score with the frames shuffled: what comes of their likeness alone.
    """

    value_names = ("score", "to_first", "to_previous", "shuffled")

    def __init__(self, *, encoder: ImageEncoder, name: str) -> None:
        super().__init__(name=name, part=encoder)
        self.encoder = encoder

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """The values; `UserError` for fewer than two frames."""
        features = self.encoder.embed_images(clip.frames)
        first, previous = (float(values.mean()) for values in frame_consistency(features))
        others = frame_consistency(features[shuffled_order(clip)])
        return {
            "score": (first + previous) / 2,
            "to_first": first,
            "to_previous": previous,
            "shuffled": float(sum(values.mean() for values in others)) / 2,
        }


class SubjectConsistency(_Consistency):
    """Whether the subject stays itself: DINO's view of all frames, as VBench computes it.

    VBench averages over all frames of all clips; means over clips of one length are the same.

    Args:
        encoder: Which DINO; VBench's is ``facebook/dino-vitb16``.
    """

    def __init__(self, *, encoder: DinoEncoder, name: str = "subject_consistency") -> None:
        super().__init__(encoder=encoder, name=name)


class BackgroundConsistency(_Consistency):
    """Whether the scene stays itself: CLIP's view of all frames, as VBench computes it.

    Args:
        encoder: Which CLIP; VBench's is ``openai/clip-vit-base-patch32``.
    """

    def __init__(self, *, encoder: ClipEncoder, name: str = "background_consistency") -> None:
        super().__init__(encoder=encoder, name=name)
