"""VBench's imaging quality: MUSIQ on every frame, in an environment of its own."""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dance_eval.external_worker import ExternalWorker, WorkerError
from dance_eval.metrics.clip import ClipMetric, ScoredClip
from dance_eval.metrics.features import scrambled_frame
from dance_eval.metrics.frame_pixels import MusiqResize, musiq_pixels, musiq_size
from musicinfuser.errors import UserError
from musicinfuser.fingerprint import file_digest


def musiq_scores(frames: Tensor, *, worker: ExternalWorker, resize: MusiqResize) -> list[float]:
    """MUSIQ's score of every frame, 0 to 100 up to outliers.

    Frames are uint8 RGB in [0, 255], shape (T, H, W, 3), and resized by `musiq_size`. The worker
    runs `dance_eval.workers.musiq`, or anything that answers as it does.

    Raises:
        WorkerError: If the worker fails or answers something else than a number per frame.
    """
    pixels = musiq_pixels(frames, mode=resize)
    with tempfile.TemporaryDirectory(prefix="musiq-") as folder:
        file = Path(folder, "frames.npy")
        np.save(file, pixels.numpy(), allow_pickle=False)
        scores = worker.ask({"pixels": str(file)}).get("scores")
    if not isinstance(scores, list) or len(scores) != len(frames):
        raise WorkerError(f"{worker.name}: gave no list of {len(frames)} scores.")
    if not all(isinstance(score, float | int) and math.isfinite(score) for score in scores):
        raise WorkerError(f"{worker.name}: gave scores that are no finite numbers.")
    return [float(score) for score in scores]


class ImagingQuality(ClipMetric):
    """Imaging quality of a clip as VBench computes it: a hundredth of MUSIQ, mean over all frames.

    Values per clip, of which `compute` gives the means:
        score: About 0 to 1; Mochi on VBench's prompts has 0.52.
        scrambled: Of the middle frame with its pixels in random order.

    Args:
        command: What starts the worker, such as ``[ENV/bin/python, -m,
            dance_eval.workers.musiq]``, see there for how ENV is made.
        weights: MUSIQ's, musiq_spaq_ckpt-358bb6af.pth for VBench; given to the command as
            ``--weights``.
        resize: ``"longer"`` is VBench's default and makes 512x289 of 848x480; ``"shorter"`` leaves
            those as they are. Scores of the two do not compare.
        time_limit_seconds: For one clip.
    """

    value_names = ("score", "scrambled")

    def __init__(
        self,
        *,
        command: Sequence[str],
        weights: str,
        resize: MusiqResize = "longer",
        time_limit_seconds: float = 600.0,
        name: str = "imaging_quality",
    ) -> None:
        super().__init__(name=name)
        musiq_size(1, 1, mode=resize)
        if not Path(weights).is_file():
            raise UserError(
                f"{name}: the weights {weights} do not exist; how to get them is in "
                "dance_eval/workers/musiq.py."
            )
        self.weights = weights
        self.resize = resize
        self._worker = ExternalWorker(
            [*command, "--weights", weights], name=name, time_limit_seconds=time_limit_seconds
        )

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """The values; `UserError` without frames or if the worker fails."""
        frames = torch.cat([clip.frames, scrambled_frame(clip)[None]])
        *scores, scrambled = musiq_scores(frames, worker=self._worker, resize=self.resize)
        return {"score": math.fsum(scores) / len(scores) / 100, "scrambled": scrambled / 100}

    def fingerprints(self) -> dict[str, str]:
        """A hash of the weights, as they are now."""
        return {"weights": file_digest(Path(self.weights))[:16]}
