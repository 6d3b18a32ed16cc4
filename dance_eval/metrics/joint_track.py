"""Joints that are known (`musicinfuser.joint_files`), as a motion curve."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from dance_eval.metrics.clip import MotionCurve, ScoredClip
from musicinfuser.errors import UserError
from musicinfuser.joint_files import JOINTS_SUFFIX, Joints, file_beside, read_people
from musicinfuser.setting_checks import check_choice, check_number

People = Literal["all", "first"]
"""Whose joints count: everybody's, or those of who is seen most and largest."""


@dataclass(frozen=True, eq=False)
class Stretch:
    """The longest part of a clip in which all people who count are seen in every frame."""

    joints: Joints
    first_frame: int
    num_frames: int


def joint_speed(joints: torch.Tensor) -> torch.Tensor:
    """Mean speed of joints (P, T, J, D) per frame, as AIST++ has it, float64, shape (T - 1,)."""
    return joints.double().diff(dim=1).norm(dim=-1).mean(dim=(0, 2))


def longest_stretch(joints: Joints, *, least_frames: int = 2) -> Stretch:
    """The longest run of frames in which everybody is seen, the first of several.

    `UserError` if it is shorter than ``least_frames``.
    """
    seen = joints.places.isfinite().all(dim=-1).all(dim=-1).all(dim=0).tolist()
    best, start = (0, 0), None
    for frame, is_seen in enumerate([*seen, False]):
        if is_seen and start is None:
            start = frame
        elif not is_seen and start is not None:
            best = max(best, (frame - start, -start))
            start = None
    length, first = best[0], -best[1]
    if length < least_frames:
        raise UserError(
            f"{joints.source}: the dancer is followed for {length} frames at a time; at least "
            f"{least_frames} are needed."
        )
    part = joints.places[:, first : first + length]
    return Stretch(Joints(part, joints.names, joints.source), first, length)


@dataclass(frozen=True)
class JointTrack(MotionCurve):
    """Mean speed of joints that lie in a file per clip.

    Args:
        folder: Where ``<stem of the clip>.joints.json`` lies, or, without one, ``<stem>.json``;
            None: beside the clip.
        people: ``"first"``: the person who is seen most and largest.
        least_seconds: What `stretch_of` takes for too little.
    """

    folder: str | None = None
    people: People = "all"
    least_seconds: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice("people", self.people, get_args(People))
        check_number("least_seconds", self.least_seconds, above=0)

    def file_of(self, path: Path) -> Path:
        """The file of joints of a clip."""
        return file_beside(self.own_file_of(path).parent, path.stem)

    def own_file_of(self, path: Path) -> Path:
        """Where `evaluate.py pose` writes; `predict` keeps other things in ``<stem>.json``."""
        folder = path.parent if self.folder is None else Path(self.folder)
        return folder / f"{path.stem}{JOINTS_SUFFIX}"

    def files_of(self, path: Path) -> Sequence[Path]:
        """The file of joints."""
        return (self.file_of(path),)

    def joints_of(self, clip: ScoredClip) -> Joints:
        """Joints of a clip and of the people who count.

        `UserError` if it is no file, or its joints cannot be read or are of other frames.
        """
        if clip.path is None:
            raise UserError(f"{clip.name}: is no file, so no joints lie beside it.")
        path = self.file_of(clip.path)
        joints = clip.remembered(("joints", path), lambda: read_people(path))
        if joints.places.shape[1] != len(clip.frames):
            raise UserError(
                f"{path}: holds joints of {joints.places.shape[1]} frames, but the clip has "
                f"{len(clip.frames)}; cut them alike."
            )
        if not len(joints.places):
            raise UserError(f"{path}: nobody was found in this clip.")
        places = joints.places if self.people == "all" else joints.places[:1]
        return Joints(places, joints.names, joints.source)

    def stretch_of(self, clip: ScoredClip) -> Stretch:
        """What of a clip is scored where people are not always seen (`longest_stretch`)."""
        least = max(round(self.least_seconds * clip.fps), 3)
        return longest_stretch(self.joints_of(clip), least_frames=min(least, len(clip.frames)))

    def of_clip(self, clip: ScoredClip) -> torch.Tensor:
        """Speed of the joints of a clip, float64, shape (T - 1,).

        `UserError` as for `joints_of`, and if somebody is not seen in some frame.
        """
        joints = self.joints_of(clip)
        if num_unseen := int((~joints.places.isfinite().flatten(2).all(dim=-1)).any(dim=0).sum()):
            raise UserError(
                f"{joints.source}: in {num_unseen} of {len(clip.frames)} frames not everybody is "
                "seen; metrics of dance_eval/configs/pose_metrics.yaml score the rest."
            )
        return joint_speed(joints.places)

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Joints cannot be had from frames; use `of_clip`."""
        raise UserError("A joint track belongs to a clip on disk; score a clip, not its frames.")
