"""MediaPipe's pose, in an environment of its own; its package brings the model."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from dance_eval.external_worker import ExternalWorker, WorkerError
from dance_eval.pose.finder import Person, PoseFinder
from musicinfuser.setting_checks import check_choice, check_number

MODELS = {"lite": 0, "full": 1, "heavy": 2}
VERSION = "0.10.21"


class MediaPipe(PoseFinder):
    """BlazePose (Bazarevsky et al. 2020) by a worker; one person in each frame.

    Of several people it may jump from one to another; the tracking notices.

    Args:
        python: Of the environment that `dance_eval.workers.mediapipe_pose` says how to make.
        model: ``"lite"``, ``"full"`` or ``"heavy"``; the package brings the first two.
        least_confidence: Of a person, in (0, 1).
        time_limit_seconds: For one clip.
    """

    def __init__(
        self,
        *,
        python: Path,
        model: str = "full",
        least_confidence: float = 0.5,
        time_limit_seconds: float = 1800.0,
    ) -> None:
        check_choice("model", model, MODELS)
        check_number("least_confidence", least_confidence, above=0, below=1)
        self.model = model
        self.least_confidence = least_confidence
        self._worker = ExternalWorker(
            [
                *(str(python), "-m", "dance_eval.workers.mediapipe_pose"),
                *("--complexity", str(MODELS[model])),
                *("--confidence", str(least_confidence)),
            ],
            name="MediaPipe",
            time_limit_seconds=time_limit_seconds,
        )

    @property
    def identity(self) -> str:
        """The version that is asked for and the settings."""
        return f"mediapipe {VERSION} {self.model} {self.least_confidence:g}"

    def find(self, frames: torch.Tensor) -> list[list[Person]]:
        """As in `PoseFinder`; `WorkerError` if the worker fails or answers something else."""
        if not len(frames):
            return []
        with tempfile.TemporaryDirectory(prefix="pose-") as folder:
            file = Path(folder, "frames.npy")
            np.save(file, frames.numpy(), allow_pickle=False)
            answer = self._worker.ask({"frames": str(file)})
        found = answer.get("people")
        if not isinstance(found, list) or len(found) != len(frames):
            raise WorkerError(f"MediaPipe: gave no list of {len(frames)} frames.")
        try:
            return [[_person(one)] if one is not None else [] for one in found]
        except (TypeError, ValueError) as error:
            raise WorkerError(f"MediaPipe: gave joints that are none ({error}).") from error

    def check(self) -> None:
        """Start the worker on a small picture."""
        self.find(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))


def _person(one: list[list[float]]) -> Person:
    numbers = np.array(one, dtype=np.float64)
    if numbers.shape != (len(MediaPipe.joint_names), 3) or not np.isfinite(numbers).all():
        raise ValueError(f"numbers of shape {numbers.shape}")
    return Person(numbers[:, :2], numbers[:, 2].clip(0, 1))
