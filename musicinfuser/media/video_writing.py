"""mp4 files with sound, of frames."""

import heapq
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from musicinfuser.errors import UserError
from musicinfuser.media.audio import audio_packets, fit_length
from musicinfuser.media.errors import atomic_file
from musicinfuser.setting_checks import check_number

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet

# Without macroblock-tree rate control the same frames give the same bytes every time.
X264_OPTIONS = {"crf": "18", "preset": "medium", "x264-params": "mbtree=0"}


def write_video(
    path: Path | str,
    frames: Tensor | Iterable[Tensor],
    *,
    fps: float,
    audio: Tensor | None = None,
    audio_rate_hz: int | None = None,
    comment: str | None = None,
    description: str | None = None,
) -> None:
    """Write an mp4 that plays everywhere: H.264, yuv420p, BT.709 limited range, AAC, faststart.

    The file appears whole or not at all; missing folders are made.

    Args:
        path: Must end in ``.mp4``.
        frames: uint8 (T, H, W, 3), RGB, with even H and W; or pieces of that in order, each taken
            when those before it are written, so that a long video is never held whole.
        fps: Constant frame rate.
        audio: float32 (S,) or (C, S) with one or two channels in [-1, 1]; cut or filled with
            silence to T / fps seconds, unless there are pieces. None writes no sound.
        audio_rate_hz: Sampling rate of ``audio``; rates AAC does not know are resampled.
        comment: Text for the ``comment`` tag, such as the prompt and the seed.
        description: Text for the ``description`` tag, which players show.

    Raises:
        UserError: If an argument does not fit.
        MediaError: If the file system or an encoder refuses.
    """
    import av

    if Path(path).suffix.lower() != ".mp4":
        raise UserError(f"{path}: a video is written as .mp4; change the file name's ending.")
    pieces = iter([frames] if isinstance(frames, Tensor) else frames)
    first = next(pieces)
    _check_frames(first)
    check_number("fps", fps, above=0)
    if (audio is None) != (audio_rate_hz is None):
        raise UserError("audio and audio_rate_hz must be given together.")
    rate = Fraction(fps).limit_denominator(1001)

    with atomic_file(path) as temporary:
        options = {"movflags": "+faststart"}
        with av.open(os.path.abspath(temporary), "w", format="mp4", options=options) as container:
            for tag, text in (("comment", comment), ("description", description)):
                if text is not None:
                    container.metadata[tag] = text
            packets: list[Iterable[Packet]] = [_video_packets(container, first, pieces, rate)]
            if audio is not None and audio_rate_hz is not None:
                sound = torch.atleast_2d(audio.detach().to("cpu", torch.float32))
                if isinstance(frames, Tensor):
                    sound = fit_length(sound, round(len(frames) / rate * audio_rate_hz))
                packets.append(audio_packets(container, sound, audio_rate_hz))
            mux(container, packets)


def mux(container: "OutputContainer", streams: list[Iterable["Packet"]]) -> None:
    """Write packets of several streams in the order in which they are decoded."""
    for packet in heapq.merge(*streams, key=lambda p: (p.dts or 0) * p.time_base):
        container.mux(packet)


def _check_frames(frames: Tensor) -> None:
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise UserError(
            f"frames must be uint8 (T, H, W, 3), got {frames.dtype} {tuple(frames.shape)}."
        )
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise UserError(
            f"frames must have even sides for yuv420p, got {frames.shape[1]}x{frames.shape[2]} "
            "pixels; crop or pad one row or column."
        )


def _video_packets(
    container: "OutputContainer", first: Tensor, later: Iterable[Tensor], rate: Fraction
) -> Iterator["Packet"]:
    """Add an H.264 stream to a container, then give its packets in order."""
    import av
    from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

    stream = container.add_stream("libx264", rate=rate, options=X264_OPTIONS)
    stream.height, stream.width, stream.pix_fmt = first.shape[1], first.shape[2], "yuv420p"
    context = stream.codec_context
    context.color_primaries = context.color_trc = context.colorspace = 1  # BT.709
    context.color_range = ColorRange.MPEG
    reformatter = VideoReformatter()

    def packets() -> Iterator["Packet"]:
        images = (image for piece in chain([first], later) for image in piece.cpu())
        for number, image in enumerate(images):
            rgb = av.VideoFrame.from_ndarray(image.contiguous().numpy(), format="rgb24")
            frame = reformatter.reformat(
                rgb,
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
                interpolation=Interpolation.BILINEAR | Interpolation.ACCURATE_RND,
                threads=1,
            )
            frame.pts, frame.time_base = number, 1 / rate
            yield from stream.encode(frame)
        yield from stream.encode(None)

    return packets()
