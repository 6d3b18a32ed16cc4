"""The picture of a video with another sound, as judges get it."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from musicinfuser.errors import UserError
from musicinfuser.media.audio import audio_packets
from musicinfuser.media.decoding import TIME_LIMIT_SECONDS, reading
from musicinfuser.media.errors import MediaError, reason
from musicinfuser.media.video_writing import mux

if TYPE_CHECKING:
    from av.packet import Packet


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
                mux(target, streams)
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
