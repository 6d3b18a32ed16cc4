"""Joints that are known: a file of their places beside a clip, as a motion curve.

The file is JSON. Its field ``joints`` holds numbers of shape (T, J, D), or (P, T, J, D) for P
people, with T the frames of the clip, J joints and D of 2 or 3 coordinates in any unit: x, y
downwards in pictures, or x, y upwards, z. The truth files of the small world are such files, with
their names in ``joint_names``.
`evaluate.py pose` writes more: ``names``, J names of joints (`skeletons`), and ``seen``, shape
(P, T), 0 where a person was not found in a frame; places there mean nothing. People who are seen
most and largest come first, and nobody is two people: a jump from one to the other ends the first.
Where nobody was found, ``joints`` is empty and ``num_frames`` says T.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from dance_eval.metrics.clip import MotionCurve, ScoredClip
from dance_eval.metrics.music_beats import read_numbers
from musicinfuser.errors import UserError
from musicinfuser.setting_checks import check_choice, check_number

JOINTS_SUFFIX = ".joints.json"
People = Literal["all", "first"]
"""Whose joints count: everybody's, or those of who is seen most and largest."""


@dataclass(frozen=True, eq=False)
class Joints:
    """Places of the joints of the people in a clip."""

    places: torch.Tensor
    """float64, shape (P, T, J, D); NaN where a person is not seen."""
    names: tuple[str, ...] | None = None
    """Of the J joints, where the file says them."""
    source: str = "joints"
    """The file, for messages."""

    def index(self, *names: str) -> list[int]:
        """Numbers of joints; `UserError` if the file does not name them."""
        known = self.names or ()
        if lacking := [name for name in names if name not in known]:
            raise UserError(
                f"{self.source}: names no joint {lacking[0]!r}, which is needed here; its field "
                f"names holds {', '.join(known) or 'nothing'}."
            )
        return [known.index(name) for name in names]


@dataclass(frozen=True, eq=False)
class Stretch:
    """The longest part of a clip in which all people who count are seen in every frame."""

    joints: Joints
    first_frame: int
    num_frames: int


def read_joints(path: Path | str) -> torch.Tensor:
    """Places of joints in a JSON file, float64, shape (P, T, J, D), NaN where nobody is seen.

    `UserError` if it is missing or holds no finite numbers of such a shape.
    """
    return read_people(path).places


def read_people(path: Path | str) -> Joints:
    """Everything that a file of joints says (see the module); `UserError` as `read_joints`."""
    joints = read_numbers(path, "joints", "of shape (frames, joints, 2 or 3)")
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    if not len(joints) and content.get("num_frames"):
        joints = torch.zeros(0, content["num_frames"], len(content.get("names", ())) or 1, 2)
    if joints.ndim == 3:
        joints = joints[None]
    if joints.ndim != 4 or joints.shape[-1] not in (2, 3) or not joints.isfinite().all():
        raise UserError(
            f"{path}: holds joints of shape {tuple(joints.shape)}; (frames, joints, 2 or 3) with "
            "finite numbers was expected."
        )
    names = content.get("names", content.get("joint_names"))
    if names is not None and len(names) != joints.shape[2]:
        raise UserError(f"{path}: has {len(names)} names for {joints.shape[2]} joints.")
    if len(joints) and "seen" in content:
        seen = read_numbers(path, "seen", "of shape (people, frames)")
        if seen.shape != joints.shape[:2]:
            raise UserError(
                f"{path}: seen has shape {tuple(seen.shape)}, joints those of "
                f"{tuple(joints.shape[:2])} people and frames."
            )
        joints = torch.where(seen[..., None, None] > 0, joints, torch.nan)
    return Joints(joints.double(), None if names is None else tuple(map(str, names)), str(path))


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
        found = self.own_file_of(path)
        return found if found.is_file() else found.with_name(f"{path.stem}.json")

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
