"""Feet that slide: EDGE's physical foot contact score, and what is left of it in pictures."""

import torch

from dance_eval.metrics.clip import ClipMetric, ScoredClip
from dance_eval.metrics.features import shuffled_order
from dance_eval.metrics.joint_track import JointTrack
from dance_eval.metrics.motion_features import Up
from dance_eval.metrics.skeletons import SMPL24, named_as, torso_lengths
from musicinfuser.errors import UserError
from musicinfuser.joint_files import Joints

EDGE_FPS = 30.0
PFC_FACTOR = 10_000.0
"""EDGE prints its mean times this."""


def physical_foot_contact(places: torch.Tensor, *, fps: float, up: Up = "y") -> float:
    """EDGE's PFC (Tseng et al. 2022, arXiv 2211.10658, eval/eval_pfc.py) of one dance.

    A body accelerates, but upwards only by pushing: so where the root accelerates one foot should
    stand. Mean over frames of (speed of the left foot) (speed of the right foot) (acceleration of
    the root over its maximum), times 10,000. A foot's speed is the smaller of ankle and toes, in
    the plane and in metres per frame at 30 fps; the root's acceleration loses its part downwards.

    Takes SMPL's 24 joints in metres, shape (T, 24, 3), T of 3 or more; 0 for a root that never
    accelerates.
    """
    places = places.double()
    vertical = {"y": 1, "z": 2}[up]
    flat = [axis for axis in range(3) if axis != vertical]
    push = places[:, SMPL24.index("pelvis")].diff(dim=0).diff(dim=0) * fps**2
    push[:, vertical] = push[:, vertical].clamp(min=0)
    push = push.norm(dim=-1)
    if not len(push) or float(push.max()) == 0.0:
        return 0.0
    feet = []
    for side in ("left", "right"):
        parts = [SMPL24.index(f"{side}_{part}") for part in ("ankle", "foot")]
        steps = places[1:][:, parts][..., flat].diff(dim=0).norm(dim=-1) * fps / EDGE_FPS
        feet.append(steps.amin(dim=1))
    return float((feet[0] * feet[1] * push / push.max()).mean()) * PFC_FACTOR


class PhysicalFootContact(ClipMetric):
    """`physical_foot_contact` of the first person; lower is better.

    Joints of pictures are refused: it needs the root's acceleration in space.

    Values per clip, of which `compute` gives the means:
        score: PFC.
        shuffled: PFC with the frames shuffled.

    Args:
        joints: Where the joints lie.
        up: Their vertical; EDGE's is z.
    """

    value_names = ("score", "shuffled")

    def __init__(
        self,
        *,
        joints: JointTrack | None = None,
        up: Up = "y",
        name: str = "physical_foot_contact",
    ) -> None:
        self.joints = joints or JointTrack(people="first")
        super().__init__(name=name, part=self.joints)
        self.up = up

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """The values; `UserError` for joints other than SMPL's in space."""
        joints = self.joints.stretch_of(clip).joints
        named_as(joints, SMPL24, num_dimensions=3, what="PFC")
        return {
            value: physical_foot_contact(places, fps=clip.fps, up=self.up)
            for value, places in _with_shuffled(joints, clip)
        }


def slower_foot_speed(joints: Joints, *, fps: float) -> float:
    """Mean speed of the ankle that moves less, of the first person, in torso lengths per second.

    A dancer stands on one foot at least, so it is near 0 unless the feet slide, the dancer jumps or
    the camera moves. Takes joints that are seen throughout, in two coordinates or three.
    """
    ankles = joints.places[0][:, joints.index("left_ankle", "right_ankle")]
    if len(ankles) < 2:
        raise UserError(f"{joints.source}: one frame has no speed.")
    steps = ankles.double().diff(dim=0).norm(dim=-1).amin(dim=1)
    return float(steps.mean() * fps / torso_lengths(joints)[0].median())


class FootSliding(ClipMetric):
    """`slower_foot_speed`: the part of PFC that pictures allow, for cameras that stand still.

    Values per clip, of which `compute` gives the means:
        score: Torso lengths per second; lower is better, and 0 too where nobody moves.
        shuffled: The same with the frames shuffled.

    Args:
        joints: Where the joints lie.
    """

    value_names = ("score", "shuffled")

    def __init__(self, *, joints: JointTrack | None = None, name: str = "foot_sliding") -> None:
        self.joints = joints or JointTrack(people="first")
        super().__init__(name=name, part=self.joints)

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """The values; `UserError` if the joints have no ankles."""
        joints = self.joints.stretch_of(clip).joints
        return {
            value: slower_foot_speed(
                Joints(places[None], joints.names, joints.source), fps=clip.fps
            )
            for value, places in _with_shuffled(joints, clip)
        }


def _with_shuffled(joints: Joints, clip: ScoredClip) -> list[tuple[str, torch.Tensor]]:
    """Places of the first person, (T, J, D), in order and in a random one."""
    places = joints.places[0]
    order = shuffled_order(clip)
    return [("score", places), ("shuffled", places[order[order < len(places)]])]
