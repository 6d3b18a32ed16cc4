"""The movement vocabulary: four key poses per genre, one per beat of the bar.

Poses 0 and 2 fall on the even beats (kick) and are low and closed, poses 1 and 3 on the odd beats
(snare) and are high or open, so that tempo, beat phase and parity tell most of a pose; which poses
these are is the genre's. Left and right are those of the picture, seen from the front.
"""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musicinfuser.label_files import read_yaml

Array = NDArray[np.float64]

UPRIGHT: dict[str, Any] = {
    "arms": (0, 0, 0, 0), "reach": (0, 0), "stance": (0.03, 0.03), "lift": (0, 0),
    "stride": (0, 0), "shift": 0, "drop": 0.02, "lean": 0, "twist": 0, "tilt": 0,
}  # fmt: skip
"""What a key pose is where moves.yaml does not say; the order is that of pose vectors."""

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


def _vector(pose: dict[str, Any]) -> Array:
    values = (UPRIGHT | pose).values()
    return np.concatenate([np.atleast_1d(np.array(value, float)) for value in values])


VOCABULARIES = {
    genre: SimpleNamespace(poses=np.stack([_vector(pose) for pose in poses]), **manner)
    for genre, manner in read_yaml(Path(__file__).with_name("moves.yaml")).items()
    for poses in [manner.pop("poses")]
}
"""How each genre is danced, see moves.yaml; the key poses of beats 0 to 3 have shape (4, 17)."""


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
"""Few, because mirroring cannot be predicted from the music."""


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

    Takes the position in the music per frame, in beats from a downbeat, increasing, shape (T,), to
    pose vectors (T, 17). Small differences between bars are drawn.
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
    vocabulary: SimpleNamespace, first: int, last: int, manner: Manner, draw: np.random.Generator
) -> Array:
    table = vocabulary.poses
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
