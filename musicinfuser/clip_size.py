"""Which clip shapes a backbone can take, and which of several sizes suits a video."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from musicinfuser.errors import UserError


@dataclass(frozen=True)
class LatentGeometry:
    """How clips become latents and latents tokens; the first latent frame stands for one frame."""

    title: str
    """For sentences."""
    temporal: int
    """Frames that each further latent frame stands for."""
    spatial: int
    """Pixels per latent along a side."""
    channels: int
    """Of the latents."""
    fps: float
    """Frame rate of the videos the backbone was trained on."""
    patch: int = 2
    """Latents per token along a side."""
    takes_image: bool = False
    """Whether a clip can begin with a given picture."""

    @property
    def unit(self) -> int:
        """Heights and widths in pixels are multiples of it."""
        return self.spatial * self.patch


GEOMETRIES = {
    "mochi": LatentGeometry("Mochi", temporal=6, spatial=8, channels=12, fps=30.0),
    "wan": LatentGeometry("Wan", temporal=4, spatial=8, channels=16, fps=16.0),
    "wan_5b": LatentGeometry(
        "Wan's 5B", temporal=4, spatial=16, channels=48, fps=24.0, takes_image=True
    ),
    "wan_on_mochi": LatentGeometry(
        "Wan on Mochi's latents", temporal=6, spatial=8, channels=12, fps=30.0, takes_image=True
    ),
}
"""By family, as in ``model.backbone.family``; `musicinfuser.networks.backbones` has the rest.
Sources: Genmo's and Wan's configs (``vae_stride``, ``sample_fps``)."""
MOCHI = GEOMETRIES["mochi"]
FRAMES_PER_LATENT = MOCHI.temporal


def geometry_of(family: str) -> LatentGeometry:
    """The geometry of a family.

    Raises:
        UserError: There is none of that name.
    """
    if family not in GEOMETRIES:
        raise UserError(f"there is no backbone {family!r}; choose {', '.join(GEOMETRIES)}.")
    return GEOMETRIES[family]


def check_takes_image(geometry: LatentGeometry, what: str = "an image is given") -> None:
    """Refuse a first picture that ``what`` asks for where there can be none (`UserError`)."""
    if not geometry.takes_image:
        able = " or ".join(name for name, other in GEOMETRIES.items() if other.takes_image)
        raise UserError(
            f"{what}, but {geometry.title} cannot begin a clip with a picture; leave it out, or "
            f"take a backbone of the family {able}."
        )


ClipSize = tuple[int, int]
"""Height and width in pixels."""
ClipShape = tuple[int, int, int]
"""Frames, and height and width in pixels."""
Bucket = Sequence[int]
"""Of ``data.buckets``: height and width, or frames, height and width."""


@dataclass(frozen=True)
class LatentTimes:
    """When latent frames are on screen: the first for one frame, each other one for several."""

    frames_per_latent: int = FRAMES_PER_LATENT
    frame_seconds: float = 1 / 30
    """Mochi: 30 frames per second."""


def check_frames(num_frames: int, geometry: LatentGeometry = MOCHI) -> None:
    """Refuse frame counts that do not become latent frames: Mochi's are 6k + 1 (`UserError`)."""
    temporal = geometry.temporal
    if num_frames < 1 or num_frames % temporal != 1:
        lower = max((num_frames - 1) // temporal, 0) * temporal + 1
        raise UserError(
            f"num_frames is {num_frames}; {geometry.title} takes {temporal}k + 1 frames, e.g. "
            f"{lower} or {lower + temporal}."
        )


def check_clip_size(
    num_frames: int, height: int, width: int, *, geometry: LatentGeometry = MOCHI
) -> None:
    """Refuse frame counts and sides that cannot become patches: Mochi's sides are multiples of 16.

    Args:
        num_frames: Frames of a clip.
        height: Pixels.
        width: Pixels.
        geometry: Of the backbone that takes the clip.

    Raises:
        ValueError: Names the offending number and the nearest ones that work.
    """
    check_frames(num_frames, geometry)
    unit = geometry.unit
    for name, value in (("height", height), ("width", width)):
        if value < unit or value % unit:
            nearest = max(round(value / unit), 1) * unit
            raise UserError(f"{name} is {value} px; it must be a multiple of {unit}: {nearest}.")


def num_latent_frames(num_frames: int, *, geometry: LatentGeometry = MOCHI) -> int:
    """Latent frames of a clip: 73 -> 13 of Mochi."""
    return (num_frames - 1) // geometry.temporal + 1


def frames_within(seconds: float, *, fps: float, geometry: LatentGeometry = MOCHI) -> int:
    """The most frames that a backbone can take and that last at most so long; at least 1."""
    # A rounding error must not cost a latent frame.
    most = max(math.floor(seconds * fps + 1e-6) - 1, 0)
    return most - most % geometry.temporal + 1


def latent_shape(
    num_frames: int, height: int, width: int, *, geometry: LatentGeometry = MOCHI
) -> tuple[int, int, int, int]:
    """``(C, T, H, W)`` of a clip's latents: 73x480x848 -> 12x13x60x106 of Mochi."""
    side = geometry.spatial
    frames = num_latent_frames(num_frames, geometry=geometry)
    return geometry.channels, frames, height // side, width // side


def num_visual_tokens(
    num_frames: int, height: int, width: int, *, geometry: LatentGeometry = MOCHI
) -> int:
    """Tokens of a clip in the transformer: 73x480x848 -> 20,670 of Mochi."""
    _, frames, rows, columns = latent_shape(num_frames, height, width, geometry=geometry)
    return frames * (rows // geometry.patch) * (columns // geometry.patch)


def named_shapes(
    num_frames: int, height: int, width: int, buckets: Sequence[Bucket] | None
) -> tuple[ClipShape, ...]:
    """The shapes that ``data.buckets`` names, or where it is None the one of the other settings.

    Args:
        num_frames: Frames of a clip, where a bucket names none.
        height: Pixels; not looked at if there are buckets, nor is the width.
        width: Pixels.
        buckets: Height and width of each shape, or its frames, height and width.

    Raises:
        UserError: No bucket, or one of neither two nor three numbers.
    """
    if buckets is None:
        return ((num_frames, height, width),)
    if not buckets:
        raise UserError(
            "data.buckets is empty; name at least one [height, width], or give null to take "
            "data.height and data.width."
        )
    for bucket in buckets:
        if len(bucket) not in (2, 3):
            raise UserError(
                f"data.buckets names {list(bucket)}; a bucket is [height, width], or [frames, "
                "height, width]."
            )
    frames = ((bucket[0] if len(bucket) == 3 else num_frames) for bucket in buckets)
    return tuple((n, bucket[-2], bucket[-1]) for n, bucket in zip(frames, buckets, strict=True))


def clip_shapes(
    num_frames: int,
    height: int,
    width: int,
    buckets: Sequence[Bucket] | None,
    *,
    geometry: LatentGeometry = MOCHI,
) -> tuple[ClipShape, ...]:
    """As `named_shapes`, of which a backbone must be able to take every one.

    Raises:
        UserError: No shape, one twice, or one that the backbone cannot take.
    """
    shapes = named_shapes(num_frames, height, width, buckets)
    if buckets is None:
        check_clip_size(num_frames, height, width, geometry=geometry)
        return shapes
    for shape, name in zip(shapes, names_of(shapes), strict=True):
        try:
            check_clip_size(*shape, geometry=geometry)
        except UserError as error:
            raise UserError(f"data.buckets, {name}: {error}") from error
        if shapes.count(shape) > 1:
            raise UserError(f"data.buckets names {name} twice; name it once.")
    return shapes


def names_of(shapes: Iterable[ClipShape]) -> list[str]:
    """A name for each shape: ``480x848``, and ``73x480x848`` where they differ in frames.

    Height before width, as in the paper.
    """
    shapes = list(shapes)
    first = 0 if len({frames for frames, _, _ in shapes}) > 1 else 1
    return ["x".join(map(str, shape[first:])) for shape in shapes]


def nearest_size(width: int, height: int, sizes: Sequence[ClipSize]) -> ClipSize:
    """The size, of at least one, whose aspect is nearest to that of a frame as it is displayed.

    So a crop cuts least away. Nearest by the ratio of the two aspects, whichever is wider; of
    equals the first.
    """

    def ratio(size: ClipSize) -> Fraction:
        aspects = Fraction(width * size[0], height * size[1])
        return max(aspects, 1 / aspects)

    return min(sizes, key=ratio)
