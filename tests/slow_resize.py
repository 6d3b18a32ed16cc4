"""Resizing written out pixel by pixel, as an independent word on what libraries do."""

import math

import numpy as np


def linear_kernel(x):
    return max(0.0, 1 - abs(x))


def cubic_kernel(x, a=-0.75):
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def resize_line(values, size, kernel, step=None):
    """The first axis to ``size`` points, each from the 4 nearest, without smoothing."""
    step = step or len(values) / size
    lines = []
    for i in range(size):
        middle = (i + 0.5) * step - 0.5
        if kernel is linear_kernel:
            middle = max(middle, 0.0)
        first = math.floor(middle) - 1
        lines.append(
            sum(
                kernel(middle - j) * values[min(max(j, 0), len(values) - 1)]
                for j in range(first, first + 4)
            )
        )
    return np.stack(lines)


def resize_picture(picture, height, width, kernel):
    """``(H, W, C)`` to ``(height, width, C)``, float64."""
    rows = resize_line(picture.astype(np.float64), height, kernel)
    return resize_line(rows.swapaxes(0, 1), width, kernel).swapaxes(0, 1)


def short_side_size(height, width, side):
    if height <= width:
        return side, int(side * width / height)
    return int(side * height / width), side


def centre_of(picture, side):
    top = round((picture.shape[0] - side) / 2)
    left = round((picture.shape[1] - side) / 2)
    return picture[top : top + side, left : left + side]


def normalised(picture, mean, std):
    """``(H, W, 3)`` in [0, 255] to ``(3, H, W)``."""
    return ((picture / 255 - np.array(mean)) / np.array(std)).transpose(2, 0, 1)


CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def vbench_clip(picture, side):
    size = short_side_size(*picture.shape[:2], side)
    return normalised(centre_of(resize_picture(picture, *size, cubic_kernel), side), *CLIP)


def vbench_dino(picture, side):
    size = short_side_size(*picture.shape[:2], side)
    return normalised(resize_picture(picture, *size, linear_kernel), *IMAGENET)
