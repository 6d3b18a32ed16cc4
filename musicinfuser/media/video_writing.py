"""mp4 files with sound: of frames, or of the picture of another video."""

import heapq
import io
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
from musicinfuser.media.decoding import TIME_LIMIT_SECONDS, reading
from musicinfuser.media.errors import MediaError, atomic_file, reason
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
            _mux(container, packets)


def _mux(container: "OutputContainer", streams: list[Iterable["Packet"]]) -> None:
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


def with_sound(path: Path | str, waveform: Tensor | None, *, rate_hz: int | None = None) -> bytes:
    """An mp4 in memory with the picture of a file and a given sound, or none.

    Pictures are not encoded again, so they stay what they are to the bit.

    Args:
        path: Any video whose codec mp4 can hold; its own sound, tags and other streams are dropped.
        waveform: float32 (S,) in [-1, 1], or None for a silent file.
        rate_hz: Sampling rate of the waveform.

    Raises:
        MediaError: If the file cannot be read or its codec does not go into an mp4.
    """
    import av

    if (waveform is None) != (rate_hz is None):
        raise UserError("waveform and rate_hz must be given together.")
    memory = io.BytesIO()
    with reading(path, "video", TIME_LIMIT_SECONDS) as source:
        picture = [packet for packet in source.packets(source.picture) if packet.size]
        try:
            _retime(picture)
            with av.open(memory, "w", format="mp4") as target:
                copied = target.add_stream_from_template(source.picture)
                for packet in picture:
                    packet.stream = copied
                streams: list[Iterable[Packet]] = [picture]
                if waveform is not None and rate_hz is not None:
                    streams.append(audio_packets(target, waveform[None], rate_hz))
                _mux(target, streams)
        except (av.error.FFmpegError, ValueError) as error:
            raise MediaError(f"{path}: its picture goes into no mp4 ({reason(error)}).") from error
    return memory.getvalue()


def _retime(picture: list["Packet"]) -> None:
    """Let a picture begin at 0, with decoding times where the container states none."""
    stamps = [packet.pts for packet in picture if packet.pts is not None]
    if len(stamps) < len(picture):
        raise UserError("a frame does not say when it is shown")
    shown = sorted(stamps)
    # Decoded in the order they stand in, each no later than it is shown.
    delay = max((due - stamp for due, stamp in zip(shown, stamps, strict=True)), default=0)
    for packet, due, stamp in zip(picture, shown, stamps, strict=True):
        packet.pts, packet.dts = stamp - shown[0], due - shown[0] - delay
