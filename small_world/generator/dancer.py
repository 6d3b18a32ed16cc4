"""A dancer: bones that turn poses into joints, and the capsules that are drawn for them."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from small_world.generator import moves
from small_world.generator.drawing import Colour

Array = NDArray[np.float64]

JOINTS = (
    "pelvis", "neck", "head",
    "left_shoulder", "left_elbow", "left_hand", "right_shoulder", "right_elbow", "right_hand",
    "left_hip", "left_knee", "left_foot", "right_hip", "right_knee", "right_foot",
)  # fmt: skip
"""Left and right are those of the picture, seen from the front."""

INDEX = {name: number for number, name in enumerate(JOINTS)}
SIDES = (("left", -1.0), ("right", 1.0))

# Body heights. The head is larger and the limbs thicker than a real dancer's: they must survive
# 64 rows.
HIP_HEIGHT, ANKLE_HEIGHT, THIGH, SHIN = 0.50, 0.035, 0.24, 0.235
TORSO, NECK_TO_HEAD, UPPER_ARM, FOREARM = 0.30, 0.125, 0.165, 0.185
HALF_HIPS = 0.06


@dataclass(frozen=True)
class Looks:
    """What a dancer looks like; colours are RGB in [0, 1], the body's height is in frame heights.

    Long hair goes with a narrower build.
    """

    skin: Colour
    hair: Colour
    top: Colour
    bottom: Colour
    shoes: Colour
    has_long_hair: bool
    height: float

    @property
    def shoulder(self) -> float:
        """Half the width of the shoulders, in body heights."""
        return 0.095 if self.has_long_hair else 0.115


class Capsule(NamedTuple):
    """A stroke with round ends whose width changes evenly; all in body heights.

    The ends are given per frame, shape (T, 2), x to the right, y up; the colour is RGB in [0, 1].
    """

    start: Array
    end: Array
    start_radius: float
    end_radius: float
    colour: Colour


def body_joints(poses: Array, looks: Looks) -> Array:
    """Joints of a body in space, of pose vectors as in `moves`, shape (T, 17).

    Shape (T, 15, 3) in the order of `JOINTS`, in body heights: x to the right of the picture, y up
    from the floor, z towards a front camera.
    """
    joints = np.zeros((len(poses), len(JOINTS), 3))
    shift, drop = poses[:, moves.SHIFT], poses[:, moves.DROP]
    pelvis = np.stack([shift, HIP_HEIGHT - drop, np.zeros_like(shift)], axis=1)
    joints[:, INDEX["pelvis"]] = pelvis
    lean, twist = np.radians(poses[:, moves.LEAN]), np.radians(poses[:, moves.TWIST])
    tilt = lean + np.radians(poses[:, moves.TILT])
    neck = pelvis + TORSO * _direction(np.pi - lean, 0.0 * lean)
    joints[:, INDEX["neck"]] = neck
    joints[:, INDEX["head"]] = neck + NECK_TO_HEAD * _direction(np.pi - tilt, 0.0 * tilt)
    for side, (name, sign) in enumerate(SIDES):
        sides = [np.cos(lean) * np.cos(twist), -np.sin(lean), -np.sin(twist)]
        across = sign * np.stack(sides, axis=1)
        shoulder = neck + looks.shoulder * across
        shoulder[:, 1] -= 0.02
        upper, fore = np.radians(poses[:, moves.ARMS][:, 2 * side : 2 * side + 2]).T
        reach = np.radians(poses[:, moves.REACH][:, side])
        # A forearm that crosses the body passes in front of it.
        crossing = np.maximum(0.0, -np.sin(fore)) * 0.6
        outward = np.array([sign, 1.0, 1.0])
        elbow = shoulder + UPPER_ARM * outward * _direction(upper, reach)
        hand = elbow + FOREARM * outward * _direction(fore, np.maximum(reach, crossing))
        hip = pelvis + np.array([sign * HALF_HIPS, 0.0, 0.0])
        foot = np.stack(
            [
                sign * (HALF_HIPS + poses[:, moves.STANCE][:, side]) + 0.0 * shift,
                ANKLE_HEIGHT + np.maximum(poses[:, moves.LIFT][:, side], 0.0),
                poses[:, moves.STRIDE][:, side],
            ],
            axis=1,
        )
        knee, foot = _bend(hip, foot, np.array([0.6 * sign, 0.0, 0.8]))
        for part, place in (
            ("shoulder", shoulder), ("elbow", elbow), ("hand", hand),
            ("hip", hip), ("knee", knee), ("foot", foot),
        ):  # fmt: skip
            joints[:, INDEX[f"{name}_{part}"]] = place
    return joints


def turn(joints: Array, yaw_degrees: float) -> Array:
    """Turn joints about the vertical; at 90 a front camera sees the body's left side."""
    cosine, sine = np.cos(np.radians(yaw_degrees)), np.sin(np.radians(yaw_degrees))
    x, y, z = joints[..., 0], joints[..., 1], joints[..., 2]
    return np.stack([cosine * x + sine * z, y, cosine * z - sine * x], axis=-1)


def body_capsules(joints: Array, looks: Looks, *, yaw_degrees: float) -> list[Capsule]:
    """What to draw for a body, from back to front; its turn decides what hides what.

    The joints, shape (T, 15, 3), are turned already.
    """

    def at(name: str) -> Array:
        return joints[:, INDEX[name], :2]

    facing = np.cos(np.radians(yaw_degrees))
    sideways = np.sin(np.radians(yaw_degrees))
    slim = 0.85 if looks.has_long_hair else 1.0
    head, neck, pelvis = at("head"), at("neck"), at("pelvis")
    up = (head - neck) / np.linalg.norm(head - neck, axis=1, keepdims=True).clip(1e-6)
    nape = neck + 0.02 * up - np.array([0.05 * sideways, 0.0])

    def arm(side: str) -> list[Capsule]:
        sleeve = _shade(looks.top, 0.82)
        return [
            Capsule(at(f"{side}_shoulder"), at(f"{side}_elbow"), 0.043 * slim, 0.036, sleeve),
            Capsule(at(f"{side}_elbow"), at(f"{side}_hand"), 0.034, 0.032, looks.skin),
        ]

    def leg(side: str) -> list[Capsule]:
        foot = at(f"{side}_foot")
        toe = foot + np.array([0.03 * sideways + (-0.02 if side == "left" else 0.02), -0.008])
        return [
            Capsule(at(f"{side}_hip"), at(f"{side}_knee"), 0.060, 0.048, looks.bottom),
            Capsule(at(f"{side}_knee"), foot, 0.047, 0.036, _shade(looks.bottom, 0.9)),
            Capsule(foot, toe, 0.033, 0.03, looks.shoes),
        ]

    # In a turned view the side further from the camera is drawn first.
    far, near = ("right", "left") if sideways > 0 else ("left", "right")
    waist = pelvis + 0.3 * (neck - pelvis)
    shoulders = 0.5 * (at("left_shoulder") + at("right_shoulder"))
    torso = [
        Capsule(at("left_hip"), at("right_hip"), 0.058, 0.058, looks.bottom),
        Capsule(waist, shoulders - 0.06 * up, 0.072 * slim, 0.088 * slim, looks.top),
        Capsule(at("left_shoulder"), at("right_shoulder"), 0.045, 0.045, looks.top),
    ]
    long_hair = [Capsule(head, nape, 0.078, 0.062, looks.hair)] if looks.has_long_hair else []
    face_shift = np.array([0.035 * sideways, 0.0]) - 0.018 * up
    skull = [
        Capsule(neck, head, 0.03, 0.03, _shade(looks.skin, 0.85)),
        Capsule(head, head + 0.012 * up, 0.074, 0.074, looks.hair),
    ]
    face = Capsule(head + face_shift, head + face_shift - 0.012 * up, 0.058, 0.052, looks.skin)
    if facing > -0.25:
        behind_arms = arm(far) if abs(sideways) > 0.3 else []
        front_arms = arm(near) if abs(sideways) > 0.3 else arm(far) + arm(near)
        return [*long_hair, *behind_arms, *leg(far), *leg(near), *torso, *skull, face, *front_arms]
    return [*arm(far), *leg(far), *leg(near), *torso, *arm(near), *skull, *long_hair]


def _direction(angle: Array, reach: Array) -> Array:
    """Unit vectors: angle 0 down, pi / 2 to the right, pi up; reach turns them at the camera."""
    flat = np.cos(reach)
    return np.stack([np.sin(angle) * flat, -np.cos(angle) * flat, np.sin(reach)], axis=-1)


def _bend(hip: Array, foot: Array, outward: Array) -> tuple[Array, Array]:
    """Place the knee of a leg, and pull back a foot that is out of reach."""
    way = foot - hip
    distance = np.linalg.norm(way, axis=1, keepdims=True)
    reachable = np.clip(distance, 0.12, 0.995 * (THIGH + SHIN))
    way = way / distance
    along = (reachable**2 + THIGH**2 - SHIN**2) / (2 * reachable)
    height = np.sqrt(np.maximum(THIGH**2 - along**2, 0.0))
    pole = outward - (way @ outward)[:, None] * way
    pole = pole / np.linalg.norm(pole, axis=1, keepdims=True)
    return hip + along * way + height * pole, hip + reachable * way


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = colour
    return (red * factor, green * factor, blue * factor)
