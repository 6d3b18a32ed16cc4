"""BRISQUE: quality of pictures without a reference and without a download.

Mittal et al. 2012: statistics of a picture's local contrast, and a support vector machine that
knows from people's votes how blur, noise and blocks change them. The package brings its weights.
"""

import math
from typing import Any

import numpy as np
import torch

from dance_eval.metrics.clip import ClipMetric, ScoredClip
from dance_eval.metrics.features import scrambled_frame
from dance_eval.metrics.motion import require_frames
from musicinfuser.errors import UserError
from musicinfuser.setting_checks import check_number


def load_brisque() -> Any:
    """The package's scorer; `UserError` if it is not installed."""
    try:
        from brisque import BRISQUE
    except ImportError as error:
        raise UserError(
            "BRISQUE needs the package brisque, which is not installed; run `pip install "
            f"'brisque[opencv-python-headless]==0.2.0'`. ({error})"
        ) from error

    class Scorer(BRISQUE):
        """Its features are arrays of one number, which numpy 2.4 no longer takes for numbers."""

        def scale_features(self, features: Any) -> Any:
            return super().scale_features([np.asarray(number).item() for number in features])

    return Scorer(url=False)


class Brisque(ClipMetric):
    """BRISQUE of a clip, mean over frames that are spread evenly over it.

    Values per clip, of which `compute` gives the means:
        score: About 0 to 100, lower is better; a sharp frame of a film has about 30, a blurred or
            noisy one 55 to 60. Values depend on the size of the frames.
        scrambled: Of the middle frame with its pixels in random order: noise of its colours.

    Args:
        num_frames: So many are scored; each takes a tenth of a second at 480x848.
    """

    value_names = ("score", "scrambled")

    def __init__(self, *, num_frames: int = 8, name: str = "brisque") -> None:
        super().__init__(name=name)
        check_number("num_frames", num_frames, at_least=1)
        load_brisque()  # now and not at the first clip
        self.num_frames = num_frames

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """The values; `UserError` without frames or for frames without any contrast."""
        require_frames(clip.frames)
        if not len(clip.frames):
            raise UserError(f"{clip.name}: has no frames.")
        scorer = load_brisque()
        places = torch.linspace(0, len(clip.frames) - 1, self.num_frames).round().long().unique()
        scores = [_score(scorer, frame, clip) for frame in clip.frames[places]]
        return {
            "score": math.fsum(scores) / len(scores),
            "scrambled": _score(scorer, scrambled_frame(clip), clip),
        }


def _score(scorer: Any, frame: torch.Tensor, clip: ScoredClip) -> float:
    # A picture of one colour has no statistics to fit.
    if int(frame.max()) == int(frame.min()):
        raise UserError(f"{clip.name}: a frame of one colour has no quality.")
    return float(scorer.score(frame.numpy()))
