"""Whether a clip runs smoothly: VBench's temporal flickering and motion smoothness.

VBench (Huang et al. 2023, arXiv 2311.17982) interpolates every second frame from its neighbours by
AMT-S. No package holds AMT's weights (amt-s.pth, lalala125/AMT on the Hub; code and weights for
noncommercial use), so the interpolator here is optical flow, and the metric has another name:
`FlowSmoothness`. With the weights, `MotionSmoothness` asks VBench's own code, in an environment of
its own. Both are highest where nothing moves: read them beside a measure of motion.
"""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dance_eval.external_worker import ExternalWorker, WorkerError
from dance_eval.metrics.clip import ClipMetric, ScoredClip
from dance_eval.metrics.features import shuffled_order
from dance_eval.metrics.motion import require_frames
from dance_eval.metrics.optical_flow import flow_fields, load_cv2
from musicinfuser.errors import UserError
from musicinfuser.fingerprint import file_digest
from musicinfuser.setting_checks import check_file, check_number


def flickering(frames: torch.Tensor) -> float:
    """1 minus the mean absolute difference of neighbouring frames, of 255; VBench's formula.

    Takes uint8 RGB, shape (T, H, W, 3); `UserError` for fewer than two frames.
    """
    require_frames(frames)
    _at_least(frames, 2)
    pairs = zip(frames[:-1], frames[1:], strict=True)
    gaps = [float((b.float() - a.float()).abs().double().mean()) for a, b in pairs]
    return 1 - math.fsum(gaps) / len(gaps) / 255


def _at_least(frames: torch.Tensor, number: int) -> None:
    if len(frames) < number:
        raise UserError(f"{len(frames)} frames are too few to judge motion; give {number} or more.")


class TemporalFlickering(ClipMetric):
    """VBench's temporal flickering: high where neighbouring frames are alike.

    VBench asks it of static scenes only. Of a dance it falls with motion as well.

    Values per clip, of which `compute` gives the means:
        score: `flickering`, in [0, 1].
        shuffled: The same with the frames shuffled.
    """

    value_names = ("score", "shuffled")

    def __init__(self, *, name: str = "temporal_flickering") -> None:
        super().__init__(name=name)

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """The values; `UserError` for fewer than two frames."""
        shuffled = clip.frames[shuffled_order(clip)]
        return {"score": flickering(clip.frames), "shuffled": flickering(shuffled)}


def middle_frames(frames: torch.Tensor, *, short_side: int | None = 240) -> np.ndarray:
    """What lies half-way between every two neighbouring frames, by optical flow.

    Half of the first frame moved on by half of the flow and half of the second moved back by it.
    Takes uint8 RGB, shape (T, H, W, 3), to float32 (T - 1, H, W, 3) in [0, 255]; ``short_side`` as
    in `flow_fields`.
    """
    cv2 = load_cv2()
    height, width = frames.shape[1:3]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    pictures = frames.numpy().astype(np.float32)
    middles = np.zeros((max(len(frames) - 1, 0), height, width, 3), np.float32)
    for index, field in enumerate(flow_fields(frames, short_side=short_side)):
        half = cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR) / 2
        sides = [
            cv2.remap(picture, place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for picture, place in (
                (pictures[index], grid - half),
                (pictures[index + 1], grid + half),
            )
        ]
        middles[index] = (sides[0] + sides[1]) / 2
    return middles


def flow_smoothness(frames: torch.Tensor, *, short_side: int | None = 240) -> float:
    """VBench's formula with optical flow as the interpolator, in [0, 1].

    Every second frame is compared with what its two neighbours say of it: 1 minus the mean absolute
    difference, of 255. Takes uint8 RGB, shape (T, H, W, 3); `UserError` for fewer than 3 frames.
    """
    require_frames(frames)
    _at_least(frames, 3)
    guesses = np.rint(middle_frames(frames[::2], short_side=short_side))
    true = frames[1::2].numpy()
    gaps = [
        float(np.abs(guess - frame.astype(np.float32)).mean(dtype=np.float64))
        for guess, frame in zip(guesses, true, strict=False)
    ]
    return 1 - math.fsum(gaps) / len(gaps) / 255


class FlowSmoothness(ClipMetric):
    """Motion smoothness as VBench has it, but interpolated by Farneback's optical flow, not AMT.

    Its values compare with each other, not with those printed for VBench.

    Values per clip, of which `compute` gives the means:
        score: `flow_smoothness`.
        shuffled: The same with the frames shuffled.

    Args:
        short_side: As in `optical_flow.flow_fields`.
    """

    value_names = ("score", "shuffled")

    def __init__(self, *, short_side: int | None = 240, name: str = "flow_smoothness") -> None:
        super().__init__(name=name)
        check_number("short_side", short_side, at_least=1, hint=" px, or null for full size")
        load_cv2()
        self.short_side = short_side

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """The values; `UserError` for fewer than three frames."""
        shuffled = clip.frames[shuffled_order(clip)]
        return {
            "score": flow_smoothness(clip.frames, short_side=self.short_side),
            "shuffled": flow_smoothness(shuffled, short_side=self.short_side),
        }


class MotionSmoothness(ClipMetric):
    """VBench's motion smoothness, by its own code and AMT-S in an environment of its own.

    Values per clip, of which `compute` gives the means:
        score: In [0, 1]; SingDance prints 0.988 for ground truth.
        shuffled: The same with the frames shuffled.

    Args:
        command: What starts the worker, such as ``[ENV/bin/python, -m, dance_eval.workers.amt]``,
            see there for how ENV is made.
        weights: amt-s.pth; given to the command as ``--weights``.
        time_limit_seconds: For one clip.
    """

    value_names = ("score", "shuffled")

    def __init__(
        self,
        *,
        command: Sequence[str],
        weights: str,
        time_limit_seconds: float = 600.0,
        name: str = "motion_smoothness",
    ) -> None:
        super().__init__(name=name)
        hint = "; how to get them is in dance_eval/workers/amt.py"
        check_file(f"{name}: weights", weights, hint=hint)
        self.weights = weights
        self._worker = ExternalWorker(
            [*command, "--weights", weights], name=name, time_limit_seconds=time_limit_seconds
        )

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """The values; `UserError` for fewer than three frames or if the worker fails."""
        _at_least(clip.frames, 3)
        order = shuffled_order(clip)
        return {"score": self._ask(clip.frames), "shuffled": self._ask(clip.frames[order])}

    def _ask(self, frames: torch.Tensor) -> float:
        with tempfile.TemporaryDirectory(prefix="amt-") as folder:
            file = Path(folder, "frames.npy")
            np.save(file, frames.numpy(), allow_pickle=False)
            score = self._worker.ask({"frames": str(file)}).get("score")
        if not isinstance(score, float) or not math.isfinite(score):
            raise WorkerError(f"{self.name}: gave {score!r} for a score.")
        return score

    def fingerprints(self) -> dict[str, str]:
        """A hash of the weights, as they are now."""
        return {"weights": file_digest(Path(self.weights))[:16]}
