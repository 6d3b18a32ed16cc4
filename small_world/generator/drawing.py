"""Anti-aliased strokes and backdrops; numbers in, pixels out.

Lengths are in frame heights, with the origin in the middle of the frame and y down, so that a scene
looks the same at any resolution.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Pixels = NDArray[np.float32]
Colour = tuple[float, float, float]
BackdropKind = Literal["studio", "plain", "gradient", "checker", "stripes", "stage"]

MARGIN = 0.25
"""How far a backdrop is painted beyond the frame, for cameras that move."""


@dataclass(frozen=True)
class Backdrop:
    """What is behind the dancers; colours are RGB in [0, 1].

    Attributes:
        kind: ``studio`` (a white cyclorama), ``plain`` (wall and floor of one colour),
            ``gradient`` (from ``colour`` at the top to ``second`` below), ``checker`` and
            ``stripes`` (of both), or ``stage`` (dark, with a cone of light in ``colour``).
        colour: Main colour.
        second: Other colour.
        floor_y: Where wall and floor meet.
    """

    kind: BackdropKind
    colour: Colour
    second: Colour
    floor_y: float


@dataclass(frozen=True, eq=False)
class Camera:
    """Where the camera looks, per frame."""

    zoom: Array
    """Magnification, shape (T,)."""
    pan: Array
    """The point in the middle of the picture, shape (T, 2)."""

    @property
    def is_still(self) -> bool:
        """Whether all frames share one view."""
        return bool(np.ptp(self.zoom) == 0 and np.ptp(self.pan, axis=0).max() == 0)

    def project(self, points: Array) -> Array:
        """Scene points to points in the picture, shape (T, ..., 2)."""
        extra = (1,) * (points.ndim - 2)
        zoom, pan = self.zoom.reshape(-1, *extra, 1), self.pan.reshape(-1, *extra, 2)
        return zoom * (points - pan)


def paint_backdrop(backdrop: Backdrop, x: Array, y: Array) -> Pixels:
    """Colours of a backdrop at scene points of any shape, RGB in [0, 255], shape (..., 3)."""
    main, second = np.array(backdrop.colour), np.array(backdrop.second)
    depth = np.clip((y - backdrop.floor_y) / 0.02 + 0.5, 0, 1)[..., None]
    if backdrop.kind == "studio":
        wall = main * (1.0 - 0.10 * np.clip(np.abs(x) / 0.9, 0, 1) ** 2)[..., None]
        picture = wall + depth * (second - wall)
    elif backdrop.kind == "plain":
        wall = main * (1.0 - 0.12 * np.clip(y + 0.5, 0, 1))[..., None]
        picture = wall * (1.0 - 0.30 * depth)
    elif backdrop.kind == "gradient":
        share = np.clip((y + 0.5), 0, 1)[..., None]
        picture = main + share * (second - main)
    elif backdrop.kind == "checker":
        cells = np.floor(x / 0.16) + np.floor(y / 0.16)
        picture = np.where((cells % 2 == 0)[..., None], main, second) * (1.0 - 0.3 * depth)
    elif backdrop.kind == "stripes":
        bands = np.floor((x + 0.06) / 0.12)
        picture = np.where((bands % 2 == 0)[..., None], main, second) * (1.0 - 0.3 * depth)
    else:
        half_width = 0.10 + 0.34 * np.clip((y + 0.6) / 1.0, 0, 1)
        light = 1.0 / (1.0 + np.exp((np.abs(x) - half_width) / 0.025))
        pool = np.exp(-(((x / 0.42) ** 2) + ((y - backdrop.floor_y - 0.06) / 0.09) ** 2) * 1.5)
        glow = np.clip(0.10 + 0.62 * light + 0.5 * pool, 0, 1)[..., None]
        picture = second + glow * (main - second)
    return (255.0 * np.clip(picture, 0, 1)).astype(np.float32)


def backdrop_frames(backdrop: Backdrop, camera: Camera, *, height: int, width: int) -> Pixels:
    """The empty scene as seen by a camera, float32 in [0, 255], shape (T, height, width, 3)."""
    y, x = (np.indices((height, width)) + 0.5 - np.array([[[height]], [[width]]]) / 2) / height
    num_frames = len(camera.zoom)
    frames = np.empty((num_frames, height, width, 3), np.float32)
    if camera.is_still:
        zoom, (pan_x, pan_y) = camera.zoom[0], camera.pan[0]
        frames[:] = paint_backdrop(backdrop, x / zoom + pan_x, y / zoom + pan_y)
        return frames
    # Moving cameras look at one painted canvas, so that edges stay smooth and cost little.
    margin = round(MARGIN * height)
    rows, columns = height + 2 * margin, width + 2 * margin
    y, x = (np.indices((rows, columns)) + 0.5 - np.array([[[rows]], [[columns]]]) / 2) / height
    canvas = paint_backdrop(backdrop, x, y)
    row_0 = np.arange(height) + 0.5 - height / 2
    column_0 = np.arange(width) + 0.5 - width / 2
    for frame, (zoom, (pan_x, pan_y)) in enumerate(zip(camera.zoom, camera.pan, strict=True)):
        stretched = _sample_rows(canvas, row_0 / zoom + pan_y * height + rows / 2 - 0.5)
        across = column_0 / zoom + pan_x * height + columns / 2 - 0.5
        frames[frame] = _sample_rows(stretched.swapaxes(0, 1), across).swapaxes(0, 1)
    return frames


def _sample_rows(picture: Pixels, at: Array) -> Pixels:
    at = np.clip(at, 0, len(picture) - 1.001)
    low = at.astype(int)
    share = (at - low).astype(np.float32)[:, None, None]
    return picture[low] * (1 - share) + picture[low + 1] * share


def draw_stroke(
    frames: Pixels,
    start: Array,
    end: Array,
    start_radius: Array,
    end_radius: Array,
    colour: Colour,
    *,
    opacity: float = 1.0,
    softness_px: float = 1.0,
) -> None:
    """Draw a stroke with round ends into every frame, float32 in [0, 255], (T, H, W, 3), in place.

    The ends are given per frame in pixels from the top left corner, shape (T, 2) as (x, y), their
    radii in pixels, shape (T,), the colour as RGB in [0, 1]. An opacity of 1 covers what is below;
    the softness is the width of the edge.
    """
    num_frames, height, width, _ = frames.shape
    radius = np.maximum(start_radius, end_radius)[:, None] + softness_px / 2 + 1
    low = np.floor(np.minimum(start, end) - radius).astype(int)
    high = np.ceil(np.maximum(start, end) + radius).astype(int)
    size_x, size_y = (high - low).max(axis=0) + 1
    size_x, size_y = min(int(size_x), width), min(int(size_y), height)
    columns = np.clip(low[:, 0], 0, width - size_x)[:, None] + np.arange(size_x)
    rows = np.clip(low[:, 1], 0, height - size_y)[:, None] + np.arange(size_y)

    def column(values: Array) -> Pixels:
        return values.astype(np.float32)[:, None, None]

    way = end - start
    x = (columns + 0.5).astype(np.float32)[:, None, :] - column(start[:, 0])
    y = (rows + 0.5).astype(np.float32)[:, :, None] - column(start[:, 1])
    way_x, way_y = column(way[:, 0]), column(way[:, 1])
    length = np.maximum(way_x**2 + way_y**2, 1e-6)
    along = np.clip((x * way_x + y * way_y) / length, 0, 1)
    distance = np.sqrt((x - along * way_x) ** 2 + (y - along * way_y) ** 2)
    distance -= column(start_radius) + along * column(end_radius - start_radius)
    cover = opacity * np.clip(0.5 - distance / softness_px, 0, 1)[..., None]
    where = (np.arange(num_frames)[:, None, None], rows[:, :, None], columns[:, None, :])
    below = frames[where]
    paint = 255.0 * np.asarray(colour, np.float32)
    frames[where] = below + cover * (paint - below)
