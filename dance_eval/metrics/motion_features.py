"""Kinetic and geometric features of joints, in which AIST++ compares sets of dances.

Kinetic (Onuma et al. 2008) and geometric (Mueller et al. 2005) features as fairmotion has them and
AIST++ took them over (google/aistplusplus_api, aist_plusplus/features: kinetic.py, manual.py,
utils.py). `frechet.FrechetDistance` in them is FID_k and FID_g, `diversity.Diversity` DIV_k and
DIV_g. Joints of pictures have no depth: their kinetic features are in torso lengths and compare
with no printed value, and they have no geometric ones.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.features import FrameFeatures
from dance_eval.metrics.joint_track import JointTrack
from dance_eval.metrics.skeletons import SMPL24, named_as, torso_lengths
from musicinfuser.errors import UserError
from musicinfuser.joint_files import Joints
from musicinfuser.setting_checks import check_choice

Up = Literal["y", "z"]
WINDOW = 2
"""Steps to both sides over which velocities and accelerations are averaged (AIST++'s code)."""


def kinetic_features(places: torch.Tensor, *, fps: float, up: Up = "y") -> torch.Tensor:
    """Energies of every joint: horizontal, vertical, and what it spends.

    Velocities and accelerations are means over up to five neighbouring steps. The first two are the
    mean squares of their lengths in the plane and along the vertical, the third the mean length of
    the acceleration. Takes places of shape (T, J, 3), or (T, J, 2) with y vertical, T of 3 or more,
    to float64 (3 J,), joint by joint.
    """
    check_choice("up", up, get_args(Up))
    if len(places) < 3:
        raise UserError(f"{len(places)} frames have no acceleration; at least 3 are needed.")
    places = places.double()
    steps = places.diff(dim=0) * fps
    bends = steps.diff(dim=0) * fps
    velocity = _windowed(steps, first=1, num=len(places))
    acceleration = _windowed(bends, first=1, num=len(places))
    vertical = 2 if up == "z" and places.shape[-1] == 3 else 1
    flat = [axis for axis in range(places.shape[-1]) if axis != vertical]
    energies = [
        velocity[..., flat].square().sum(dim=-1).mean(dim=0),
        velocity[..., vertical].square().mean(dim=0),
        acceleration.norm(dim=-1).mean(dim=0),
    ]
    return torch.stack(energies, dim=1).flatten()


def _windowed(steps: torch.Tensor, *, first: int, num: int) -> torch.Tensor:
    """For frames 1 to num - 1 the mean of the steps that lie within `WINDOW` frames.

    ``steps[0]`` belongs to the frame ``first``; shape (S, ...) to (num - 1, ...).
    """
    sums = torch.cat([torch.zeros_like(steps[:1]), steps.cumsum(dim=0)])
    frames = torch.arange(1, num)
    low = (frames - WINDOW - first).clamp(0, len(steps))
    high = (frames + WINDOW + 1 - first).clamp(0, len(steps))
    sizes = (high - low).clamp(min=1).reshape(-1, *[1] * (steps.ndim - 1))
    return (sums[high] - sums[low]) / sizes


# Of SMPL's mean body, in metres: upper arm, width of the shoulders, width of the hips.
_LENGTHS = {"arm": 0.256838, "shoulders": 0.390848, "hips": 0.119247}
# What is asked, of which joints, and the threshold: a multiple of a length, or degrees.
# moves: the fourth moves away along first -> second, relative to the first. spins: it moves along
# the normal of the first three. beside: it lies so far on one side of the plane of the first three.
# ahead: it lies so far along first -> second, from the third. bent: angle of first -> second and
# third -> fourth. fast: speed.
_QUESTIONS: tuple[tuple[str, tuple[str, ...], float, str], ...] = (
    ("spins", ("neck", "right_hip", "left_hip", "right_wrist"), 1.8, "arm"),
    ("spins", ("neck", "left_hip", "right_hip", "left_wrist"), 1.8, "arm"),
    ("ahead", ("spine3", "neck", "neck", "right_wrist"), 0.2, "arm"),
    ("ahead", ("spine3", "neck", "neck", "left_wrist"), 0.2, "arm"),
    ("moves", ("spine1", "spine3", "spine3", "right_wrist"), 1.8, "arm"),
    ("moves", ("spine1", "spine3", "spine3", "left_wrist"), 1.8, "arm"),
    ("bent", ("right_elbow", "right_shoulder", "right_elbow", "right_wrist"), 0, "110"),
    ("bent", ("left_elbow", "left_shoulder", "left_elbow", "left_wrist"), 0, "110"),
    ("ahead", ("left_shoulder", "right_shoulder", "left_wrist", "right_wrist"), 2.5, "shoulders"),
    ("moves", ("left_wrist", "right_wrist", "right_wrist", "left_wrist"), 1.4, "arm"),
    ("moves", ("right_wrist", "pelvis", "left_wrist", "pelvis"), 1.4, "arm"),
    ("moves", ("left_wrist", "pelvis", "right_wrist", "pelvis"), 1.4, "arm"),
    ("fast", ("right_wrist",), 2.5, "arm"),
    ("fast", ("left_wrist",), 2.5, "arm"),
    ("beside", ("pelvis", "left_hip", "left_foot", "right_ankle"), 0.38, "arm"),
    ("beside", ("pelvis", "right_hip", "right_foot", "left_ankle"), 0.38, "arm"),
    ("ahead", ("origin", "up", "lowest", "right_ankle"), 1.2, "arm"),
    ("ahead", ("origin", "up", "lowest", "left_ankle"), 1.2, "arm"),
    ("ahead", ("left_hip", "right_hip", "left_ankle", "right_ankle"), 2.1, "hips"),
    ("bent", ("right_knee", "right_hip", "right_knee", "right_ankle"), 0, "110"),
    ("bent", ("left_knee", "left_hip", "left_knee", "left_ankle"), 0, "110"),
    ("fast", ("right_ankle",), 2.5, "arm"),
    ("fast", ("left_ankle",), 2.5, "arm"),
    ("bent", ("neck", "pelvis", "right_shoulder", "right_elbow"), 25, "180"),
    ("bent", ("neck", "pelvis", "left_shoulder", "left_elbow"), 25, "180"),
    ("bent", ("neck", "pelvis", "right_hip", "right_knee"), 50, "180"),
    ("bent", ("neck", "pelvis", "left_hip", "left_knee"), 50, "180"),
    ("beside", ("right_ankle", "neck", "left_ankle", "pelvis"), 0.5, "arm"),
    ("bent", ("neck", "pelvis", "origin", "up"), 70, "110"),
    ("ahead", ("origin", "down", "lowest", "right_wrist"), -1.2, "arm"),
    ("ahead", ("origin", "down", "lowest", "left_wrist"), -1.2, "arm"),
    ("fast", ("pelvis",), 2.3, "arm"),
)


def geometric_features(places: torch.Tensor, *, fps: float) -> torch.Tensor:
    """Shares of the frames in which 32 questions about the pose are answered with yes.

    Takes the 24 joints of SMPL in metres, y upwards, shape (T, 24, 3) with T of 2 or more, to
    float64 (32,). The code takes every frame for a 120th of a second although its data has 60 per
    second, so its speeds are doubled; so are these. Its ``nmove`` does not divide by the length of
    the normal; neither does ``spins``.
    """
    if len(places) < 2:
        raise UserError("1 frame has no speed; at least 2 are needed.")
    now = places.double().numpy()[1:]
    before = places.double().numpy()[:-1]
    fixed = {"origin": (0, 0, 0), "up": (0, 1, 0), "down": (0, -1, 0)}

    def of(frames: np.ndarray, name: str) -> np.ndarray:
        if name == "lowest":
            low = np.zeros((len(frames), 3))
            low[:, 1] = frames[..., 1].min(axis=1)
            return low
        if name in fixed:
            return np.broadcast_to(np.array(fixed[name], float), (len(frames), 3))
        return frames[:, SMPL24.index(name)]

    shares = []
    with np.errstate(divide="ignore", invalid="ignore"):
        for kind, names, number, unit in _QUESTIONS:
            points = [of(now, name) for name in names]
            past = [of(before, name) for name in names]
            if kind == "bent":
                first, second = points[1] - points[0], points[3] - points[2]
                lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
                angle = np.degrees(np.arccos((first * second).sum(axis=1) / lengths))
                shares.append(((angle > number) & (angle < float(unit))).mean())
                continue
            limit = number * _LENGTHS[unit]
            if kind == "fast":
                value = np.linalg.norm(points[0] - past[0], axis=1) * 2 * fps
            elif kind == "moves":
                value = _along(points[2] - points[0] - (past[2] - past[0]), points[1] - points[0])
                value = value * 2 * fps
            elif kind == "spins":
                normal = np.cross(points[2] - points[0], points[1] - points[0])
                value = ((points[3] - points[0] - (past[3] - past[0])) * normal).sum(axis=1)
                value = value * 2 * fps
            elif kind == "beside":
                normal = np.cross(points[2] - points[0], points[1] - points[0])
                value = _along(points[3] - points[0], normal)
            else:
                value = _along(points[3] - points[2], points[1] - points[0])
            shares.append((value > limit).mean())
    return torch.tensor(np.array(shares), dtype=torch.float64)


def _along(vectors: np.ndarray, directions: np.ndarray) -> np.ndarray:
    return (vectors * directions).sum(axis=1) / np.linalg.norm(directions, axis=1)


@dataclass(frozen=True)
class _JointFeatures(FrameFeatures, ABC):
    """What the two share: the joints of who is seen most, in the longest stretch."""

    joints: JointTrack = JointTrack(people="first")
    ordered = True

    def files_of(self, path: Path) -> Sequence[Path]:
        """The file of joints."""
        return self.joints.files_of(path)

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        """Joints cannot be had from frames; use `of_clip`."""
        raise UserError("Features of joints belong to a clip on disk, not to its frames.")

    def of_clip(self, clip: ScoredClip, *, order: torch.Tensor | None = None) -> torch.Tensor:
        """Features of the first person, shape (1, D); ``order`` permutes the clip's frames."""
        stretch = self.joints.stretch_of(clip)
        joints = stretch.joints
        if order is not None:
            inside = (order >= stretch.first_frame) & (
                order < stretch.first_frame + stretch.num_frames
            )
            places = joints.places[:, order[inside] - stretch.first_frame]
            joints = Joints(places, joints.names, joints.source)
        return self.of_joints(joints, fps=clip.fps)[None]

    @abstractmethod
    def of_joints(self, joints: Joints, *, fps: float) -> torch.Tensor:
        """Features of joints that are seen throughout, float64, shape (D,)."""


@dataclass(frozen=True)
class KineticFeatures(_JointFeatures):
    """`kinetic_features`; places of two coordinates are divided by the torso's median length.

    Args:
        joints: Where the joints lie and whose count.
        up: The vertical of joints with three coordinates.
    """

    up: Up = "y"

    @property
    def name(self) -> str:  # type: ignore[override]
        """Which features these are."""
        return f"kinetic {self.joints} {self.up}"

    def of_joints(self, joints: Joints, *, fps: float) -> torch.Tensor:
        """`kinetic_features` of the first person, shape (3 J,)."""
        places = joints.places[0]
        if places.shape[-1] == 2:
            places = places / torso_lengths(joints)[0].median()
        return kinetic_features(places, fps=fps, up=self.up)


@dataclass(frozen=True)
class GeometricFeatures(_JointFeatures):
    """`geometric_features`, of SMPL's joints with three coordinates only; others are refused."""

    @property
    def name(self) -> str:  # type: ignore[override]
        """Which features these are."""
        return f"geometric {self.joints}"

    def of_joints(self, joints: Joints, *, fps: float) -> torch.Tensor:
        """`geometric_features` of the first person, shape (32,)."""
        named_as(joints, SMPL24, num_dimensions=3, what="geometric features")
        return geometric_features(joints.places[0], fps=fps)
