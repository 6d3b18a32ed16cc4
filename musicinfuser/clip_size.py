"""Which clip sizes Mochi can take, and which of several sizes suits a video."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from musicinfuser.errors import UserError

PATCH = 2
FRAMES_PER_LATENT = 6
"""Of Mochi's VAE; the first latent frame of a video stands for one frame only."""

ClipSize = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class LatentTimes:
    """When latent frames are on screen: the first for one frame, each other one for several."""

    frames_per_latent: int = FRAMES_PER_LATENT
    frame_seconds: float = 1 / 30
    """Mochi: 30 frames per second."""


def check_clip_size(
    num_frames: int, height: int, width: int, *, temporal: int = FRAMES_PER_LATENT, spatial: int = 8
) -> None:
    """Refuse frame counts that are not 6k + 1 and sizes that cannot become patches.

    Args:
        num_frames: Frames of a clip.
        height: Pixels.
        width: Pixels.
        temporal: Frames per latent frame (Mochi's VAE: 6).
        spatial: Pixels per latent along a side (8); the transformer then takes 2x2 patches.

    Raises:
        ValueError: Names the offending number and the nearest ones that work.
    """
    if num_frames < 1 or num_frames % temporal != 1:
        lower = max((num_frames - 1) // temporal, 0) * temporal + 1
        raise UserError(
            f"num_frames is {num_frames}; Mochi takes {temporal}k + 1 frames, e.g. {lower} or "
            f"{lower + temporal}."
        )
    unit = spatial * PATCH
    for name, value in (("height", height), ("width", width)):
        if value < unit or value % unit:
            nearest = max(round(value / unit), 1) * unit
            raise UserError(f"{name} is {value} px; it must be a multiple of {unit}: {nearest}.")


def num_latent_frames(num_frames: int, *, temporal: int = FRAMES_PER_LATENT) -> int:
    """Latent frames of a clip: 73 -> 13."""
    return (num_frames - 1) // temporal + 1


def frames_within(seconds: float, *, fps: float) -> int:
    """The most frames that Mochi can take, 6k + 1, and that last at most so long; at least 1."""
    # A rounding error must not cost six frames.
    most = max(math.floor(seconds * fps + 1e-6) - 1, 0)
    return most - most % FRAMES_PER_LATENT + 1


def latent_shape(
    num_frames: int, height: int, width: int, *, channels: int = 12
) -> tuple[int, int, int, int]:
    """``(C, T, H, W)`` of a clip's latents: 73x480x848 -> 12x13x60x106."""
    return channels, num_latent_frames(num_frames), height // 8, width // 8


def num_visual_tokens(num_frames: int, height: int, width: int) -> int:
    """Tokens of a clip in the transformer: 73x480x848 -> 20,670."""
    _, frames, rows, columns = latent_shape(num_frames, height, width)
    return frames * (rows // PATCH) * (columns // PATCH)


def size_name(size: ClipSize) -> str:
    """Height before width, as in the paper: ``480x848``."""
    return f"{size[0]}x{size[1]}"


def clip_sizes(
    num_frames: int, height: int, width: int, buckets: Sequence[ClipSize] | None
) -> tuple[ClipSize, ...]:
    """The sizes of ``data.buckets``, or where it is None the one of ``data.height`` and ``width``.

    Args:
        num_frames: Frames of a clip, 6k + 1.
        height: Pixels; not looked at if there are buckets, nor is the width.
        width: Pixels.
        buckets: Height and width of each size.

    Raises:
        ValueError: No size, one twice, or one that Mochi cannot take.
    """
    if buckets is None:
        check_clip_size(num_frames, height, width)
        return ((height, width),)
    if not buckets:
        raise UserError(
            "data.buckets is empty; name at least one [height, width], or give null to take "
            "data.height and data.width."
        )
    sizes = tuple((rows, columns) for rows, columns in buckets)
    for size in sizes:
        try:
            check_clip_size(num_frames, *size)
        except UserError as error:
            raise UserError(f"data.buckets, {size_name(size)}: {error}") from error
        if sizes.count(size) > 1:
            raise UserError(f"data.buckets names {size_name(size)} twice; name it once.")
    return sizes


def nearest_size(width: int, height: int, sizes: Sequence[ClipSize]) -> ClipSize:
    """The size, of at least one, whose aspect is nearest to that of a frame as it is displayed.

    So a crop cuts least away. Nearest by the ratio of the two aspects, whichever is wider; of
    equals the first.
    """

    def ratio(size: ClipSize) -> Fraction:
        aspects = Fraction(width * size[0], height * size[1])
        return max(aspects, 1 / aspects)

    return min(sizes, key=ratio)
