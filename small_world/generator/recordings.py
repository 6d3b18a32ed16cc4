"""One recording: music, dancers before a backdrop and a camera, with the truth about it."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from small_world.generator.dancer import INDEX, JOINTS, Looks, body_capsules, body_joints, turn
from small_world.generator.drawing import Backdrop, Camera, backdrop_frames, draw_stroke
from small_world.generator.moves import Manner, choreograph
from small_world.generator.music import BEATS_PER_BAR, NUM_BEATS, Piece

Array = NDArray[np.float64]
CHUNK_FRAMES = 128
"""Frames drawn at a time; long videos would not fit in memory as floats."""


STANDS: dict[int, tuple[tuple[float, float, float], ...]] = {
    1: ((0.0, 1.0, 0.0),),
    2: ((-0.22, 0.72, 0.05), (0.22, 0.72, 0.05)),
    3: ((-0.33, 0.62, 0.12), (0.33, 0.62, 0.12), (0.0, 0.72, 0.0)),
}
"""By number of dancers, from back to front: place across, size, and how far up the picture the feet
are, relative to a dancer who stands alone; three fit a box of 3:4 with little overlap."""


@dataclass(frozen=True, eq=False)
class Recording:
    """What was filmed.

    Attributes:
        frames: uint8 RGB, shape (T, H, W, 3).
        fps: Frame rate.
        audio: float32 in [-1, 1], shape (C, S), or None for a video without sound.
        audio_rate_hz: Sample rate.
        truth: What an evaluation may check against; plain JSON values.
    """

    frames: NDArray[np.uint8]
    fps: float
    audio: NDArray[np.float32] | None
    audio_rate_hz: int
    truth: dict[str, Any]


def record(
    piece: Piece, draw: np.random.Generator, *, start_beat: float, num_frames: int, fps: float,
    manner: Manner, dancers: Sequence[Looks], backdrop: Backdrop, camera: Camera,
    yaw_degrees: float, floor_y: float, height: int, width: int,
) -> Recording:  # fmt: skip
    """Dance to a piece from a beat on, and film; small differences between bars are drawn.

    There are one to three dancers, each with the height of a lone one, turned from the camera by
    ``yaw_degrees``; ``floor_y`` is where a lone dancer's feet are, in frame heights below the
    middle.

    Returns:
        A recording whose truth holds the tempo, the times of the beats on the video's clock, their
        place in the bar (0 is the downbeat) and every dancer's joints in every frame.
    """
    beats = start_beat + np.arange(num_frames) / fps * (1.0 / piece.beat_seconds)
    actors = [
        Actor(
            looks=replace(looks, height=looks.height * scale),
            poses=choreograph(piece.genre, beats, manner, draw),
            x=x * looks.height,
            floor_y=floor_y - raised * looks.height,
        )
        for (x, scale, raised), looks in zip(STANDS[len(dancers)], dancers, strict=True)
    ]
    frames, joints = film(
        actors, backdrop, camera, yaw_degrees=yaw_degrees, height=height, width=width
    )
    duration_seconds = num_frames / fps
    of_beats = [
        (number, time)
        for number in range(max(0, math.ceil(start_beat)), NUM_BEATS)
        if (time := (number - start_beat) * piece.beat_seconds) < duration_seconds
    ]
    start_seconds = start_beat * piece.beat_seconds
    truth = {
        "music": piece.name,
        "genre": piece.genre,
        "bpm": piece.bpm,
        "music_start_seconds": round(start_seconds, 5),
        "beats_seconds": [round(time, 5) for _, time in of_beats],
        "beat_in_bar": [number % BEATS_PER_BAR for number, _ in of_beats],
        "fps": fps,
        "num_frames": num_frames,
        "height": height,
        "width": width,
        "num_dancers": len(actors),
        "yaw_degrees": yaw_degrees,
        "is_mirrored": manner.is_mirrored,
        "is_advanced": manner.is_advanced,
        "joint_names": list(JOINTS),
        "joints": np.round(joints, 4).tolist(),
    }
    audio = piece.excerpt(start_seconds, duration_seconds)
    return Recording(frames, fps, audio, piece.rate_hz, truth)


def joined(parts: list[Recording]) -> Recording:
    """Recordings of one size and frame rate one after another, as a cypher changes dancers.

    The truth keeps one entry per part under ``"parts"``, each on its own clock, and the beats of
    all on the common clock.
    """
    truths = [part.truth for part in parts]
    starts = itertools.accumulate((len(part.frames) / part.fps for part in parts), initial=0.0)
    frames = np.concatenate([part.frames for part in parts])
    truth = {
        "parts": truths,
        "beats_seconds": [
            round(time + start, 5)
            for start, of_part in zip(starts, truths, strict=False)
            for time in of_part["beats_seconds"]
        ],
        "beat_in_bar": [place for of_part in truths for place in of_part["beat_in_bar"]],
        "fps": parts[0].fps,
        "num_frames": len(frames),
        "height": truths[0]["height"],
        "width": truths[0]["width"],
    }
    audio = np.concatenate([part.audio for part in parts if part.audio is not None], axis=1)
    return Recording(frames, parts[0].fps, audio, parts[0].audio_rate_hz, truth)


def still_camera(num_frames: int, *, zoom: float = 1.0) -> Camera:
    """A camera on a tripod."""
    return Camera(np.full(num_frames, zoom), np.zeros((num_frames, 2)))


def gliding_camera(num_frames: int, *, fps: float, draw: np.random.Generator) -> Camera:
    """A camera that slowly pans and zooms, as AIST's c10 does."""
    seconds = np.arange(num_frames) / fps
    zoom = 1.0 + 0.07 * np.sin(2 * np.pi * seconds / draw.uniform(5, 9) + draw.uniform(0, 6.3))
    across = 0.05 * np.sin(2 * np.pi * seconds / draw.uniform(4, 8) + draw.uniform(0, 6.3))
    return Camera(zoom, np.stack([across, 0.1 * across], axis=1))


def shaking_camera(
    num_frames: int, *, fps: float, size: float, draw: np.random.Generator
) -> Camera:
    """A camera held in a hand, which wanders by ``size`` in frame heights."""
    seconds = np.arange(num_frames) / fps

    def wander() -> Array:
        periods, phases = draw.uniform(0.7, 4.0, 4), draw.uniform(0, 2 * np.pi, 4)
        waves = np.sin(2 * np.pi * seconds[:, None] / periods + phases)
        return (waves * periods / periods.sum()).sum(axis=1)

    return Camera(1.0 + 1.5 * size * wander(), size * np.stack([wander(), wander()], axis=1))


class Actor(NamedTuple):
    """A dancer in a scene; place right of and below the middle of the frame, in frame heights."""

    looks: Looks
    poses: Array
    """Pose vectors, shape (T, 17)."""
    x: float
    floor_y: float


def film(
    actors: list[Actor], backdrop: Backdrop, camera: Camera, *, yaw_degrees: float, height: int,
    width: int,
) -> tuple[NDArray[np.uint8], Array]:  # fmt: skip
    """Draw a scene of actors from back to front.

    They are turned from the camera: 0 degrees show them from the front, 90 their left side, 180
    their back.

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
    return frames, np.stack(picture)


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
