"""CLIP's vectors of frames as features, in which sets of clips are compared."""

from torch import Tensor

from dance_eval.metrics.features import FrameFeatures
from dance_eval.metrics.image_encoders import ClipEncoder


class ClipFrameFeatures(FrameFeatures):
    """CLIP vectors of single frames, for distances between sets of clips.

    Args:
        encoder: Which CLIP. It sees frames as its own code resizes them.
    """

    def __init__(self, encoder: ClipEncoder) -> None:
        self.encoder = encoder
        self.name = f"clip {encoder.weights} {encoder.dtype}"
        self.in_workers = encoder.in_workers

    def fingerprints(self) -> dict[str, str]:
        """Those of the encoder."""
        return self.encoder.fingerprints()

    def features(self, frames: Tensor) -> Tensor:
        """`ClipEncoder.embed_images`, (T, H, W, 3) to float32 (T, D), as CLIP resizes frames."""
        return self.encoder.embed_images(frames, antialias=True)
