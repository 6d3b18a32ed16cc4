"""A scene: dancers placed before a backdrop and filmed by a camera."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from small_world.generator.dancer import INDEX, JOINTS, Looks, body_capsules, body_joints, turn
from small_world.generator.drawing import Backdrop, Camera, backdrop_frames, draw_stroke

Array = NDArray[np.float64]
CHUNK_FRAMES = 128
"""Frames drawn at a time; long videos would not fit in memory as floats."""


@dataclass(frozen=True, eq=False)
class Actor:
    """A dancer in a scene.

    Attributes:
        looks: Colours and build.
        poses: Pose vectors, shape (T, 17).
        x: Where the dancer stands, in frame heights right of the middle of the frame.
        floor_y: Height of the floor there, in frame heights below the middle.
    """

    looks: Looks
    poses: Array
    x: float
    floor_y: float


def film(
    actors: list[Actor],
    backdrop: Backdrop,
    camera: Camera,
    *,
    yaw_degrees: float,
    height: int,
    width: int,
) -> tuple[NDArray[np.uint8], Array]:
    """Draw a scene.

    Args:
        actors: Who dances, from back to front.
        backdrop: What is behind them.
        camera: How it is filmed, T frames.
        yaw_degrees: How far the dancers are turned from the camera: 0 shows them from the front, 90
            their left side, 180 their back.
        height: Rows.
        width: Columns.

    Returns:
        RGB frames, uint8, shape (T, height, width, 3), and joints in the picture, shape
        (num_actors, T, 15, 2), as shares of width and height.
    """
    num_frames = len(camera.zoom)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    turned = [turn(body_joints(actor.poses, actor.looks), yaw_degrees) for actor in actors]
    for first in range(0, num_frames, CHUNK_FRAMES):
        part = slice(first, first + CHUNK_FRAMES)
        shot = Camera(camera.zoom[part], camera.pan[part])
        canvas = backdrop_frames(backdrop, shot, height=height, width=width)
        for actor, joints in zip(actors, turned, strict=True):
            _draw_actor(canvas, actor, joints[part], shot, yaw_degrees)
        frames[part] = np.clip(canvas + 0.5, 0, 255)
    aspect = np.array([width / height, 1.0])
    picture = [
        camera.project(_place(actor, joints[..., :2])) / aspect + 0.5
        for actor, joints in zip(actors, turned, strict=True)
    ]
    return frames, np.stack(picture) if picture else np.zeros((0, num_frames, len(JOINTS), 2))


def _place(actor: Actor, body: Array) -> Array:
    """Body heights with y up to frame heights with y down."""
    return np.array([actor.x, actor.floor_y]) + actor.looks.height * np.array([1.0, -1.0]) * body


def _draw_actor(
    canvas: NDArray[np.float32], actor: Actor, joints: Array, camera: Camera, yaw_degrees: float
) -> None:
    height, width = canvas.shape[1:3]
    middle = np.array([width, height]) / 2

    def pixels(body: Array) -> Array:
        return height * camera.project(_place(actor, body)) + middle

    unit = height * actor.looks.height * camera.zoom
    feet = [
        joints[:, INDEX[name], :2] * np.array([1.0, 0.0]) for name in ("left_foot", "right_foot")
    ]
    shadow = 0.035 * unit
    draw_stroke(
        canvas, pixels(feet[0]), pixels(feet[1]), shadow, shadow, (0.0, 0.0, 0.0),
        opacity=0.28, softness_px=0.06 * float(unit.mean()),
    )  # fmt: skip
    for capsule in body_capsules(joints, actor.looks, yaw_degrees=yaw_degrees):
        draw_stroke(
            canvas, pixels(capsule.start), pixels(capsule.end),
            capsule.start_radius * unit, capsule.end_radius * unit, capsule.colour,
        )  # fmt: skip
