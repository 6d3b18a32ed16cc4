"""The movement vocabulary: four key poses per genre, one per beat of the bar.

Poses 0 and 2 fall on the even beats (kick) and are low and closed, poses 1 and 3 on the odd beats
(snare) and are high or open, so that tempo, beat phase and parity tell most of a pose; which poses
these are is the genre's. Left and right are those of the picture, seen from the front.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Two = tuple[float, float]
Four = tuple[float, float, float, float]


@dataclass(frozen=True)
class KeyPose:
    """A pose held for an instant on a beat; lengths in body heights, angles in degrees.

    Attributes:
        arms: Direction of left upper arm, left forearm, right upper arm, right forearm: 0 hangs
            down, 90 points away from the body, 180 up, negative crosses in front of the body.
        reach: How far the left and right arm point at the camera: 0 not at all, 90 straight at it.
        stance: How far outside its hip the left and the right foot stands.
        lift: Height of the left and the right foot above the floor.
        stride: How far forward the left and the right foot stands.
        shift: Hips to the right of the middle.
        drop: Hips below their height when standing straight.
        lean: Torso tipped to the right.
        twist: Shoulders turned so that the left one comes forward.
        tilt: Head tipped to the right, on top of the lean.
    """

    arms: Four
    reach: Two = (0, 0)
    stance: Two = (0.03, 0.03)
    lift: Two = (0, 0)
    stride: Two = (0, 0)
    shift: float = 0.0
    drop: float = 0.02
    lean: float = 0.0
    twist: float = 0.0
    tilt: float = 0.0

    def vector(self) -> Array:
        """All numbers in the order of the fields, shape (17,)."""
        body = (self.shift, self.drop, self.lean, self.twist, self.tilt)
        return np.array(
            (*self.arms, *self.reach, *self.stance, *self.lift, *self.stride, *body), float
        )


ARMS, REACH, STANCE, LIFT, STRIDE = (
    slice(0, 4), slice(4, 6), slice(6, 8), slice(8, 10), slice(10, 12),
)  # fmt: skip
SHIFT, DROP, LEAN, TWIST, TILT = range(12, 17)
POSE_SIZE = 17
ANGLES = np.array([*range(0, 6), LEAN, TWIST, TILT])
_MIRROR = np.array([2, 3, 0, 1, 5, 4, 7, 6, 9, 8, 11, 10, *range(12, 17)])
_MIRROR_SIGN = np.ones(POSE_SIZE)
_MIRROR_SIGN[[SHIFT, LEAN, TWIST, TILT]] = -1.0


def mirrored(poses: Array) -> Array:
    """Swap left and right in pose vectors, shape (..., 17)."""
    return poses[..., _MIRROR] * _MIRROR_SIGN


@dataclass(frozen=True)
class Vocabulary:
    """How a genre is danced.

    Attributes:
        poses: The key poses of beats 0 to 3.
        bounce: Half the depth of the torso's bounce, down on every beat, in body heights.
        sharpness: 0 moves evenly from beat to beat, 1 snaps in the middle between them.
        flick: Degrees the forearms add half a beat after an odd beat in an advanced dance.
    """

    poses: tuple[KeyPose, KeyPose, KeyPose, KeyPose]
    bounce: float
    sharpness: float
    flick: float


VOCABULARIES: dict[str, Vocabulary] = {
    "BR": Vocabulary(  # top-rock: down with a hand to the floor, then a kick with open arms
        (
            KeyPose((15, -10, 55, 95), stance=(0.13, 0.15), drop=0.2, lean=-24, shift=-0.02),
            KeyPose((85, 130, 80, 60), stance=(0.02, 0.22), lift=(0, 0.16), lean=-8, shift=-0.04),
            KeyPose((40, 20, 60, 105), stance=(0.16, 0.13), drop=0.18, lean=-14, shift=0.0),
            KeyPose((95, 120, 60, 20), stance=(0.06, 0.16), lift=(0, 0.08), drop=-0.01, lean=-5),
        ),
        bounce=0.023, sharpness=0.35, flick=50,
    ),
    "PO": Vocabulary(  # right angles, hit and held
        (
            KeyPose((25, 0, 25, 90), stance=(0.04, 0.04), drop=0.04, lean=5, tilt=12),
            KeyPose((90, 180, 90, 0), stance=(0.08, 0.08), drop=-0.01, lean=-4, tilt=-10),
            KeyPose((25, 0, 40, 90), stance=(0.05, 0.05), drop=0.06, lean=4, tilt=8),
            KeyPose((90, 180, 90, 180), stance=(0.08, 0.08), drop=-0.01, tilt=0),
        ),
        bounce=0.019, sharpness=1.0, flick=30,
    ),
    "LO": Vocabulary(  # elbows locked low, then points up and out
        (
            KeyPose((55, -40, 55, -40), stance=(0.10, 0.10), drop=0.1),
            KeyPose((60, -30, 150, 160), stance=(0.10, 0.06), drop=-0.01, lean=8, tilt=8),
            KeyPose((60, -20, 60, -20), stance=(0.13, 0.13), drop=0.12),
            KeyPose((95, 100, 150, 150), stance=(0.07, 0.12), lift=(0, 0.06), drop=-0.01, lean=3),
        ),
        bounce=0.023, sharpness=0.7, flick=45,
    ),
    "MH": Vocabulary(  # a rocking groove, arms swing low, then chest up with elbows out
        (
            KeyPose((10, -35, 15, -25), stance=(0.08, 0.08),
                drop=0.11, shift=-0.03, lean=-5, tilt=-6),
            KeyPose((60, 75, 45, 30), stance=(0.08, 0.10), drop=-0.01, shift=0.03, lean=6, tilt=6),
            KeyPose((15, -25, 10, -40), stance=(0.09, 0.08),
                drop=0.12, shift=-0.02, lean=-3, tilt=-6),
            KeyPose((50, 60, 60, 85), stance=(0.08, 0.10), drop=-0.01, shift=0.03, lean=4, tilt=4),
        ),
        bounce=0.029, sharpness=0.2, flick=35,
    ),
    "LH": Vocabulary(  # wide and low with crossed arms, then both arms thrown to one side
        (
            KeyPose((20, -75, 20, -75), stance=(0.14, 0.14), drop=0.14),
            KeyPose((20, 60, 100, 110), stance=(0.12, 0.16),
                drop=0.02, shift=0.04, lean=12, tilt=8),
            KeyPose((35, -95, 35, -95), stance=(0.15, 0.15), drop=0.16),
            KeyPose((45, 85, 125, 100), stance=(0.12, 0.15), drop=0.01, shift=0.03, lean=8),
        ),
        bounce=0.026, sharpness=0.5, flick=50,
    ),
    "HO": Vocabulary(  # quick feet: together and low, then a shuffle apart with a lifted knee
        (
            KeyPose((20, 45, 20, 45), stance=(-0.03, -0.03), drop=0.08, stride=(0.05, -0.05)),
            KeyPose((35, 75, 45, 10), stance=(0.15, 0.12), lift=(0.11, 0),
                drop=-0.01, shift=0.03, lean=5),
            KeyPose((15, 60, 15, 40), stance=(-0.05, -0.02), drop=0.07, stride=(-0.05, 0.05)),
            KeyPose((40, 60, 55, 20), stance=(0.20, 0.10), lift=(0.04, 0),
                drop=0.01, shift=0.02, lean=4),
        ),
        bounce=0.031, sharpness=0.25, flick=25,
    ),
    "WA": Vocabulary(  # forearms whip from behind the head to straight out
        (
            KeyPose((60, 10, 60, 15), stance=(0.03, 0.06), drop=0.04, shift=-0.03, lean=-4),
            KeyPose((125, 205, 105, 90), stance=(0.02, 0.10),
                drop=-0.01, shift=0.03, lean=5, tilt=8),
            KeyPose((75, -25, 50, 20), stance=(0.04, 0.06), drop=0.05, shift=-0.02, lean=-3),
            KeyPose((145, 215, 140, 170), stance=(0.02, 0.10),
                drop=-0.01, shift=0.02, lean=4, tilt=4),
        ),
        bounce=0.021, sharpness=0.55, flick=70,
    ),
    "KR": Vocabulary(  # stomp with fists down, then chest out and arms swung up wide
        (
            KeyPose((45, -15, 45, -15), (20, 20), stance=(0.17, 0.17), drop=0.18, lean=-3),
            KeyPose((110, 165, 75, 30), stance=(0.17, 0.15), lift=(0, 0.15),
                drop=0.04, lean=-10, tilt=-8),
            KeyPose((60, -30, 60, -30), (25, 25), stance=(0.18, 0.18), drop=0.2, lean=2),
            KeyPose((125, 180, 95, 140), stance=(0.17, 0.17), lift=(0, 0.05),
                drop=0.03, lean=-6, tilt=-6),
        ),
        bounce=0.027, sharpness=0.6, flick=55,
    ),
    "JS": Vocabulary(  # hips to one side with a hand on them, then a long diagonal line
        (
            KeyPose((50, -50, 20, 10), stance=(0.02, 0.08), drop=0.05, shift=-0.05, lean=8, tilt=6),
            KeyPose((55, -45, 150, 165), stance=(0.18, 0.02),
                drop=-0.01, shift=0.05, lean=10, tilt=6),
            KeyPose((50, -50, 35, 60), stance=(0.02, 0.10),
                drop=0.06, shift=-0.05, lean=6, tilt=-4),
            KeyPose((90, 90, 145, 150), stance=(0.20, 0.02), drop=0, shift=0.05, lean=6, tilt=8),
        ),
        bounce=0.021, sharpness=0.4, flick=40,
    ),
    "JB": Vocabulary(  # plie with rounded low arms, then a tall line with a raised leg
        (
            KeyPose((30, -20, 30, -20), stance=(0.05, 0.05), drop=0.11),
            KeyPose((80, 100, 150, 190), stance=(0.30, 0.0), lift=(0.20, 0),
                drop=-0.01, lean=9, tilt=-5),
            KeyPose((40, -5, 40, -5), stance=(0.09, 0.09), drop=0.13),
            KeyPose((145, 195, 145, 195), stance=(0.10, 0.0), lift=(0.13, 0), drop=-0.01, lean=3),
        ),
        bounce=0.019, sharpness=0.1, flick=25,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Manner:
    """How one dancer dances one choreography; drawn per clip.

    Attributes:
        amplitude: Size of the moves, 1 as written.
        is_mirrored: Whether left and right are swapped.
        pose_jitter: Spread of the key poses from bar to bar, 1 as usual.
        is_advanced: Larger and faster moves, half-beat flicks and a turn of the pattern every
            fourth bar.
    """

    amplitude: float
    is_mirrored: bool
    pose_jitter: float
    is_advanced: bool


MIRRORED_SHARE = 0.15
"""Few, because no music tells it: mirroring is what a listener could never predict."""


def draw_manner(draw: np.random.Generator, *, is_advanced: bool) -> Manner:
    """Draw how a clip is danced."""
    return Manner(
        amplitude=float(draw.uniform(0.85, 1.1)) * (1.12 if is_advanced else 1.0),
        is_mirrored=bool(draw.random() < MIRRORED_SHARE),
        pose_jitter=float(draw.uniform(0.6, 1.2)),
        is_advanced=is_advanced,
    )


def choreograph(genre: str, beats: Array, manner: Manner, draw: np.random.Generator) -> Array:
    """Poses of a dance.

    Every joint comes to rest on every beat: the way from pose to pose has zero speed at both ends,
    and the bounce turns there.

    Args:
        genre: A key of :data:`VOCABULARIES`.
        beats: Position in the music per frame, in beats from a downbeat, increasing; shape (T,).
        manner: How it is danced.
        draw: Source of the small differences between bars.

    Returns:
        Pose vectors, shape (T, 17).
    """
    vocabulary = VOCABULARIES[genre]
    numbers = np.floor(beats).astype(int)
    first = int(numbers.min())
    keys = _key_poses(vocabulary, first, int(numbers.max()) + 2, manner, draw)
    phase = beats - numbers
    here, there = keys[numbers - first], keys[numbers - first + 1]
    poses = here + (there - here) * _ease(phase, vocabulary.sharpness)[:, None]
    down = np.cos(2 * np.pi * phase)
    accent = 1.0 + 0.35 * np.cos(np.pi * beats) * np.cos(np.pi * phase) ** 2
    poses[:, DROP] += vocabulary.bounce * manner.amplitude * (1.0 + down) * accent
    poses[:, TILT] += 3.0 * down
    if manner.is_advanced:
        flick = vocabulary.flick * np.sin(np.pi * phase) ** 2 * (numbers % 2)
        poses[:, 1] += flick
        poses[:, 3] += flick
    poses[:, SHIFT] += _drift(beats, draw, size=0.012)
    return mirrored(poses) if manner.is_mirrored else poses


def _key_poses(
    vocabulary: Vocabulary, first: int, last: int, manner: Manner, draw: np.random.Generator
) -> Array:
    table = np.stack([pose.vector() for pose in vocabulary.poses])
    rest = table.mean(axis=0)
    bar_beat = np.arange(first, last + 1) % 4
    keys = rest + manner.amplitude * (table[bar_beat] - rest)
    if manner.is_advanced:
        # The last bar of four turns the pattern round, the way dancers close a phrase.
        closing = np.arange(first, last + 1) // 4 % 4 == 3
        keys[closing] = mirrored(keys[closing])
    spread = np.full(POSE_SIZE, 0.008)
    spread[ANGLES] = 5.0
    keys += manner.pose_jitter * spread * draw.standard_normal(keys.shape)
    keys[:, LIFT] = np.where(keys[:, LIFT] > 0.025, keys[:, LIFT], 0.0)
    return keys


def _ease(phase: Array, sharpness: float) -> Array:
    smooth = phase - np.sin(2 * np.pi * phase) / (2 * np.pi)
    snapped = smooth - np.sin(2 * np.pi * smooth) / (2 * np.pi)
    return (1 - sharpness) * smooth + sharpness * snapped


def _drift(beats: Array, draw: np.random.Generator, *, size: float) -> Array:
    periods, phases = draw.uniform(9, 23, 3), draw.uniform(0, 2 * np.pi, 3)
    waves = np.sin(2 * np.pi * beats[:, None] / periods + phases)
    return size * waves.sum(axis=1)
