"""One recording: music, dancers and a camera put together, with the truth about it."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from small_world.generator.dancer import JOINTS, Looks
from small_world.generator.drawing import Backdrop, Camera
from small_world.generator.moves import Manner, choreograph
from small_world.generator.music import BEATS_PER_BAR, NUM_BEATS, Piece
from small_world.generator.scene import Actor, film

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Stand:
    """Where a dancer stands and how large, relative to a dancer who stands alone.

    Attributes:
        x: Place across, in heights of a lone dancer.
        scale: Size.
        raised: How far up the picture the feet are, in heights of a lone dancer.
    """

    x: float
    scale: float
    raised: float


STANDS: dict[int, tuple[Stand, ...]] = {
    1: (Stand(0.0, 1.0, 0.0),),
    2: (Stand(-0.22, 0.72, 0.05), Stand(0.22, 0.72, 0.05)),
    3: (Stand(-0.33, 0.62, 0.12), Stand(0.33, 0.62, 0.12), Stand(0.0, 0.72, 0.0)),
}
"""Places by number of dancers, from back to front; three fit a box of 3:4 with little overlap."""


@dataclass(frozen=True, eq=False)
class Performance:
    """Everything that decides a recording.

    Attributes:
        piece: The music.
        start_beat: Place in the music where the recording starts, in beats.
        num_frames: Length.
        fps: Frame rate.
        manner: How it is danced.
        dancers: Looks of one to three dancers, each with the height of a lone dancer.
        backdrop: What is behind them.
        camera: How it is filmed.
        yaw_degrees: How far the dancers are turned from the camera.
        floor_y: Where a lone dancer's feet are, in frame heights below the middle.
        height: Rows.
        width: Columns.
    """

    piece: Piece
    start_beat: float
    num_frames: int
    fps: float
    manner: Manner
    dancers: tuple[Looks, ...]
    backdrop: Backdrop
    camera: Camera
    yaw_degrees: float
    floor_y: float
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class Recording:
    """What was filmed.

    Attributes:
        frames: uint8 RGB, shape (T, H, W, 3).
        fps: Frame rate.
        audio: float32 in [-1, 1], shape (C, S), or None for a video without sound.
        audio_rate_hz: Sample rate.
        truth: What an evaluation may check against; plain JSON values.
        caption: A sentence about it, or None where the file name says it all.
    """

    frames: NDArray[np.uint8]
    fps: float
    audio: NDArray[np.float32] | None
    audio_rate_hz: int
    truth: dict[str, Any] = field(default_factory=dict)
    caption: str | None = None


def record(performance: Performance, draw: np.random.Generator) -> Recording:
    """Dance and film.

    Args:
        performance: What to record.
        draw: Source of the small differences between bars and between dancers.

    Returns:
        A recording whose truth holds the tempo, the times of the beats on the video's clock, their
        place in the bar (0 is the downbeat) and every dancer's joints in every frame.
    """
    piece, fps = performance.piece, performance.fps
    beats_per_second = 1.0 / piece.beat_seconds
    beats = performance.start_beat + np.arange(performance.num_frames) / fps * beats_per_second
    stands = STANDS[len(performance.dancers)]
    actors = []
    for stand, looks in zip(stands, performance.dancers, strict=True):
        size = looks.height
        actors.append(
            Actor(
                looks=_resized(looks, stand.scale),
                poses=choreograph(piece.genre, beats, performance.manner, draw),
                x=stand.x * size,
                floor_y=performance.floor_y - stand.raised * size,
            )
        )
    frames, joints = film(
        actors,
        performance.backdrop,
        performance.camera,
        yaw_degrees=performance.yaw_degrees,
        height=performance.height,
        width=performance.width,
    )
    duration_seconds = performance.num_frames / fps
    numbers, times = _beats_within(piece, performance.start_beat, duration_seconds)
    start_seconds = performance.start_beat * piece.beat_seconds
    truth = {
        "music": piece.name,
        "genre": piece.genre,
        "bpm": piece.bpm,
        "music_start_seconds": round(start_seconds, 5),
        "beats_seconds": [round(time, 5) for time in times],
        "beat_in_bar": [number % BEATS_PER_BAR for number in numbers],
        "fps": fps,
        "num_frames": performance.num_frames,
        "height": performance.height,
        "width": performance.width,
        "num_dancers": len(actors),
        "yaw_degrees": performance.yaw_degrees,
        "is_mirrored": performance.manner.is_mirrored,
        "is_advanced": performance.manner.is_advanced,
        "joint_names": list(JOINTS),
        "joints": np.round(joints, 4).tolist(),
    }
    return Recording(
        frames=frames,
        fps=fps,
        audio=piece.excerpt(start_seconds, duration_seconds),
        audio_rate_hz=piece.rate_hz,
        truth=truth,
    )


def joined(parts: list[Recording]) -> Recording:
    """Recordings of one size and frame rate one after another, as a cypher changes dancers.

    The truth keeps one entry per part under ``"parts"``, each on its own clock, and the beats of
    all on the common clock.
    """
    beats: list[float] = []
    places: list[int] = []
    passed_seconds = 0.0
    for part in parts:
        beats += [round(time + passed_seconds, 5) for time in part.truth["beats_seconds"]]
        places += part.truth["beat_in_bar"]
        passed_seconds += len(part.frames) / part.fps
    truth = {
        "parts": [part.truth for part in parts],
        "beats_seconds": beats,
        "beat_in_bar": places,
        "fps": parts[0].fps,
        "num_frames": sum(len(part.frames) for part in parts),
        "height": parts[0].truth["height"],
        "width": parts[0].truth["width"],
    }
    audio = [part.audio for part in parts if part.audio is not None]
    return Recording(
        frames=np.concatenate([part.frames for part in parts]),
        fps=parts[0].fps,
        audio=np.concatenate(audio, axis=1) if audio else None,
        audio_rate_hz=parts[0].audio_rate_hz,
        truth=truth,
    )


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
    """A camera held in a hand.

    Args:
        num_frames: Length.
        fps: Frame rate.
        size: How far it wanders, in frame heights.
        draw: Source of the motion.
    """
    seconds = np.arange(num_frames) / fps

    def wander() -> Array:
        periods, phases = draw.uniform(0.7, 4.0, 4), draw.uniform(0, 2 * np.pi, 4)
        waves = np.sin(2 * np.pi * seconds[:, None] / periods + phases)
        return (waves * periods / periods.sum()).sum(axis=1)

    return Camera(1.0 + 1.5 * size * wander(), size * np.stack([wander(), wander()], axis=1))


def _beats_within(
    piece: Piece, start_beat: float, duration_seconds: float
) -> tuple[list[int], list[float]]:
    numbers, times = [], []
    for number in range(max(0, math.ceil(start_beat)), NUM_BEATS):
        time = (number - start_beat) * piece.beat_seconds
        if time >= duration_seconds:
            break
        numbers.append(number)
        times.append(time)
    return numbers, times


def _resized(looks: Looks, scale: float) -> Looks:
    return replace(looks, height=looks.height * scale)
