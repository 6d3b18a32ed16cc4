"""What finds the joints of people in frames: one interface for all of them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from dance_eval.metrics.skeletons import COCO17


@dataclass(frozen=True, eq=False)
class Person:
    """Somebody in one frame."""

    joints: np.ndarray
    """float64, shape (J, 2), x before y, in pixels of the frame."""
    confidences: np.ndarray
    """float64, shape (J,), in [0, 1]: how sure the finder is of each."""


class PoseFinder(ABC):
    """Finds the joints of all people in single frames; who is who is not its concern.

    Attributes:
        joint_names: Of the joints that it finds.
    """

    joint_names: ClassVar[tuple[str, ...]] = COCO17

    @property
    @abstractmethod
    def identity(self) -> str:
        """What its joints depend on, weights and settings; files of another one are made anew."""

    @abstractmethod
    def find(self, frames: torch.Tensor) -> list[list[Person]]:
        """The people in each frame of a clip, uint8 RGB, shape (T, H, W, 3).

        The frames follow each other, so a finder may look at them in turn. `UserError` if it fails.
        """

    @abstractmethod
    def check(self) -> None:
        """See that it can work, before the first clip is decoded; `UserError` if not."""
