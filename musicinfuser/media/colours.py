"""The colours of a decoded frame as standard RGB: which matrix, and bright pictures made dark."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from musicinfuser.media.errors import MediaError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

Decoding = Literal["corrected", "plain"]
"""``"plain"`` is what FFmpeg's scaler gives without being told more, as in the authors' code: video
without colour tags by BT.601, HDR with the code values of SDR, interlaced frames with both fields.
``"corrected"`` reads untagged HD by BT.709, maps HDR to SDR and joins no two fields."""

# Codes of ITU-T H.273, which FFmpeg shares.
_UNSPECIFIED = 2
_BT601_PRIMARIES, _BT2020_PRIMARIES = (4, 5, 6), 9
_PQ, _HLG = 16, 18
_HD_WIDTH, _HD_HEIGHT = 1280, 720
# Dolby Vision whose picture means nothing to other decoders (profile 5).
_DOLBY_TAGS = ("dvh1", "dvhe", "dva1", "dvav")

REFERENCE_WHITE_NITS = 203.0
"""White of HDR that stands for white of SDR (ITU-R BT.2408)."""
_HLG_PEAK_NITS = 1000.0
_SDR_GAMMA = 2.4
# ITU-R BT.2087: linear BT.2020 to linear BT.709.
_TO_BT709 = (
    (1.6605, -0.5876, -0.0728),
    (-0.1246, 1.1329, -0.0083),
    (-0.0182, -0.1006, 1.1187),
)


def require_known_colours(stream: "VideoStream", path: Path | str) -> None:
    """Refuse Dolby Vision that has no base layer of usual colours.

    Raises:
        MediaError: It would come out green and violet.
    """
    if stream.codec_context.codec_tag in _DOLBY_TAGS:
        raise MediaError(
            f"{path}: its colours are Dolby Vision without a usual base layer; convert it to SDR."
        )


def is_hdr(frame: "VideoFrame") -> bool:
    """Whether a frame's values stand for more light than SDR knows."""
    return frame.color_trc in (_PQ, _HLG)


def full_range_rgb(
    frame: "VideoFrame", reformatter: "VideoReformatter", decoding: Decoding
) -> np.ndarray:
    """A frame as RGB (H, W, 3): uint8, or float32 with the frame's own transfer where it is HDR."""
    from av.video.reformatter import ColorRange, Interpolation

    # FFmpeg's fast paths repeat chroma pixels and darken the picture by one to two levels of 255.
    exact = Interpolation.BILINEAR | Interpolation.ACCURATE_RND
    exact |= Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
    # One scaler for all frames and one thread: PyAV otherwise starts a pool per frame.
    return reformatter.reformat(
        frame,
        # Of the formats with packed pixels of 16 bits FFmpeg fills the later lines wrongly.
        format="gbrpf32le" if decoding == "corrected" and is_hdr(frame) else "rgb24",
        src_colorspace=_matrix(frame) if decoding == "corrected" else None,
        dst_color_range=ColorRange.JPEG,
        interpolation=exact,
        threads=1,
    ).to_ndarray()


def _matrix(frame: "VideoFrame") -> int | None:
    """The matrix of a frame that names none; None where it does."""
    from av.video.reformatter import Colorspace

    if frame.colorspace != _UNSPECIFIED:
        return None
    if frame.color_primaries == _BT2020_PRIMARIES:
        return Colorspace.BT2020
    # HD is BT.709 by its standards, players take it so, and cameras and screen recorders that
    # leave out the tags mean it.
    is_large = frame.height >= _HD_HEIGHT or frame.width >= _HD_WIDTH
    is_hd = is_large and frame.color_primaries not in _BT601_PRIMARIES
    return Colorspace.ITU709 if is_hd else None


def sdr_from_hdr(pixels: Tensor, transfer: int) -> Tensor:
    """HDR values as SDR: light up to `REFERENCE_WHITE_NITS` stays in proportion, more is white.

    Args:
        pixels: Float (H, W, 3), full scale 1, BT.2020 with PQ or HLG.
        transfer: Which of the two, as ``frame.color_trc``.

    Returns:
        uint8 (H, W, 3), BT.709 for a display of gamma 2.4 (ITU-R BT.1886).
    """
    values = pixels.clamp(0, 1)
    nits = _nits_of_pq(values) if transfer == _PQ else _nits_of_hlg(values)
    light = (nits / REFERENCE_WHITE_NITS) @ pixels.new_tensor(_TO_BT709).T
    return (light.clamp(0, 1) ** (1 / _SDR_GAMMA) * 255).round().to(torch.uint8)


def _nits_of_pq(values: Tensor) -> Tensor:
    """SMPTE ST 2084."""
    m1, m2, c1, c2, c3 = 1305 / 8192, 2523 / 32, 107 / 128, 2413 / 128, 2392 / 128
    power = values ** (1 / m2)
    return 10000 * ((power - c1).clamp(min=0) / (c2 - c3 * power)) ** (1 / m1)


def _nits_of_hlg(values: Tensor) -> Tensor:
    """ITU-R BT.2100 for a display of 1000 nits."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = torch.where(values <= 0.5, values**2 / 3, (((values - c) / a).exp() + b) / 12)
    luma = scene @ scene.new_tensor((0.2627, 0.6780, 0.0593))
    return _HLG_PEAK_NITS * luma[..., None] ** 0.2 * scene
