"""Joints that are known: a file of their places beside a clip, as a motion curve.

The file is JSON with one field that counts, ``joints``: numbers of shape (T, J, D), or
(P, T, J, D) for P dancers, with T the frames of the clip, J joints and D of 2 or 3 coordinates in
any unit. The truth files of the small world are such files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dance_eval.metrics.clip import MotionCurve, ScoredClip
from dance_eval.metrics.music_beats import read_numbers
from musicinfuser.errors import UserError


def read_joints(path: Path | str) -> torch.Tensor:
    """Places of joints in a JSON file (see the module), float64, shape (P, T, J, D).

    `UserError` if it is missing or holds no finite numbers of such a shape.
    """
    joints = read_numbers(path, "joints", "of shape (frames, joints, 2 or 3)")
    if joints.ndim == 3:
        joints = joints[None]
    if joints.ndim != 4 or joints.shape[-1] not in (2, 3) or not joints.isfinite().all():
        raise UserError(
            f"{path}: holds joints of shape {tuple(joints.shape)}; (frames, joints, 2 or 3) with "
            "finite numbers was expected."
        )
    return joints


def joint_speed(joints: torch.Tensor) -> torch.Tensor:
    """Mean speed of joints (P, T, J, D) per frame, as AIST++ has it, float64, shape (T - 1,)."""
    return joints.double().diff(dim=1).norm(dim=-1).mean(dim=(0, 2))


@dataclass(frozen=True)
class JointTrack(MotionCurve):
    """Mean speed of joints that lie in a file per clip.

    Args:
        folder: Where ``<stem of the clip>.json`` lies; None: beside the clip.
    """

    folder: str | None = None

    def file_of(self, path: Path) -> Path:
        """The file of joints of a clip."""
        beside = path.with_suffix(".json")
        return beside if self.folder is None else Path(self.folder) / beside.name

    def files_of(self, path: Path) -> Sequence[Path]:
        """The file of joints."""
        return (self.file_of(path),)

    def of_clip(self, clip: ScoredClip) -> torch.Tensor:
        """Speed of the joints of a clip, float64, shape (T - 1,).

        `UserError` if it is no file, or its joints cannot be read or are of other frames.
        """
        if clip.path is None:
            raise UserError(f"{clip.name}: is no file, so no joints lie beside it.")
        path = self.file_of(clip.path)
        joints = read_joints(path)
        if joints.shape[1] != len(clip.frames):
            raise UserError(
                f"{path}: holds joints of {joints.shape[1]} frames, but the clip has "
                f"{len(clip.frames)}; cut them alike."
            )
        return joint_speed(joints)

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Joints cannot be had from frames; use `of_clip`."""
        raise UserError("A joint track belongs to a clip on disk; score a clip, not its frames.")
