"""Names of joints: of the sets that files of joints hold, and what they share."""

from collections.abc import Sequence

import torch

from musicinfuser.errors import UserError
from musicinfuser.joint_files import Joints

COCO17 = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
"""What ViTPose finds; MediaPipe's 33 are brought to these names."""

SMPL24 = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle",
    "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar",
    "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist",
    "right_wrist", "left_hand", "right_hand",
)  # fmt: skip
"""SMPL's 24 (Loper et al. 2015) in its order, those of AIST++'s motion."""


def torso_lengths(joints: Joints) -> torch.Tensor:
    """From the middle of the shoulders to the middle of the hips, float64, shape (P, T).

    `UserError` if the joints have no such names or the two middles fall together in every frame.
    """
    shoulders = joints.index("left_shoulder", "right_shoulder")
    hips = joints.index("left_hip", "right_hip")
    middles = [joints.places[:, :, part].mean(dim=2) for part in (shoulders, hips)]
    lengths = (middles[0] - middles[1]).norm(dim=-1)
    if not (lengths > 0).any():
        raise UserError(f"{joints.source}: the torso has no length.")
    return lengths


def named_as(joints: Joints, names: Sequence[str], *, num_dimensions: int, what: str) -> None:
    """`UserError` unless the joints have these names in this order and as many coordinates."""
    found = joints.places.shape[-1]
    if found != num_dimensions:
        raise UserError(
            f"{joints.source}: has {found} coordinates per joint, but {what} needs "
            f"{num_dimensions}: pictures tell nothing of depth; leave it out for joints of videos."
        )
    if tuple(joints.names or ()) != tuple(names):
        raise UserError(
            f"{joints.source}: {what} needs the {len(names)} joints of SMPL in its order, named in "
            "the file's field names (dance_eval/metrics/skeletons.py)."
        )
