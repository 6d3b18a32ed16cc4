"""Joints that are known: a file of their places beside a video.

The file is JSON. Its field ``joints`` holds numbers of shape (T, J, D), or (P, T, J, D) for P
people, with T the frames of the clip, J joints and D of 2 or 3 coordinates in any unit: x, y
downwards in pictures, or x, y upwards, z. The truth files of the small world are such files, with
their names in ``joint_names``, and places as shares of the frame's width and height.
`evaluate.py pose` writes more: ``names``, J names of joints, ``seen``, shape (P, T), 0 where a
person was not found in a frame, whose places there mean nothing, ``fps``, and ``frame_size``, width
and height of the frames in pixels, the unit of the places. People who are seen most and largest
come first, and nobody is two people: a jump from one to the other ends the first. Where nobody was
found, ``joints`` is empty and ``num_frames`` says T.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from musicinfuser.errors import UserError

JOINTS_SUFFIX = ".joints.json"


def file_beside(folder: Path, stem: str) -> Path:
    """Where the joints of a video are in a folder: ``<stem>.joints.json``, else ``<stem>.json``."""
    found = folder / f"{stem}{JOINTS_SUFFIX}"
    return found if found.is_file() else folder / f"{stem}.json"


@dataclass(frozen=True, eq=False)
class Joints:
    """Places of the joints of the people in a clip."""

    places: torch.Tensor
    """float64, shape (P, T, J, D); NaN where a person is not seen."""
    names: tuple[str, ...] | None = None
    """Of the J joints, where the file says them."""
    source: str = "joints"
    """The file, for messages."""
    fps: float | None = None
    """Of the frames, where the file says it."""
    frame_size: tuple[float, float] | None = None
    """Width and height of the frames in the unit of the places, where the file says it."""

    def index(self, *names: str) -> list[int]:
        """Numbers of joints; `UserError` if the file does not name them."""
        known = self.names or ()
        if lacking := [name for name in names if name not in known]:
            raise UserError(
                f"{self.source}: names no joint {lacking[0]!r}, which is needed here; its field "
                f"names holds {', '.join(known) or 'nothing'}."
            )
        return [known.index(name) for name in names]


def read_numbers(path: Path | str, field: str, form: str) -> torch.Tensor:
    """The list of numbers in a field of a JSON file, float64; `UserError` if there is none."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return torch.tensor([*content[field]], dtype=torch.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path}: cannot be read as {{"{field}": [...]}} {form} ({type(error).__name__}).'
        ) from error


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
    named = None if names is None else tuple(map(str, names))
    size, fps = content.get("frame_size"), content.get("fps")
    return Joints(joints.double(), named, str(path), fps, None if size is None else tuple(size))
