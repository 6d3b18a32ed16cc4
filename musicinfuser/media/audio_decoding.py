"""A sound track as a file holds it, at its own rate, put on the clock of the picture."""

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import dropwhile, islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from musicinfuser.media.decoding import MediaFile
from musicinfuser.media.errors import MediaError, reason
from musicinfuser.media.sample_clock import Piece, grid_of, placed

if TYPE_CHECKING:
    from av import AudioFrame
    from av.packet import Packet

Channel = Literal["mean", "first"]

# What damaged headers state beyond these would fill the memory with silence or with interpolation.
RATES_HZ = range(1000, 1_000_000)
_MAX_HOLE_SECONDS = 3600.0
# Decoded before what is kept: MP3 needs up to 0.3 s, and the filters of lossy codecs fade slowly.
_PREROLL_SECONDS = 5
# Where the wanted second is not found at once: sound may lie long before its picture in a file.
_SEEK_BACK_SECONDS = (0, 2, 10, 60)
# FFmpeg searches these by their mean rate, which is not exact; their packets are passed over.
_SEARCHED_BY_SIZE = ("mp3", "aac", "ac3", "eac3", "dts", "ogg")
# Of these only PCM has an exact rate; the stamps of other codecs drift after a search.
_EXACT_FOR_PCM = ("wav", "w64")
_HEAD_PIECES = 12
# Of encoder and decoder together, as FFmpeg counts it in other formats. That of AAC is the choice
# of its encoder; this is FFmpeg's and the most common one.
_DELAY_SAMPLES = {"mp3": 1105, "mp2": 481, "aac": 1024, "ac3": 256, "eac3": 256}


def picture_start_seconds(file: MediaFile) -> Fraction | None:
    """Time stamp of the first video frame on the container's clock; None without a picture."""
    import av

    try:
        stream = file.picture
    except MediaError:
        return None
    if file.container.format.name == "avi":
        return _start_in_avi(file)
    # Sound can be whole where the picture is not; the header still tells the start.
    start = (stream.start_time or 0) * (stream.time_base or Fraction(0))
    try:
        frame = next(file.pictures(), None)
    except av.error.FFmpegError:
        return start
    return start if frame is None or frame.pts is None else frame.pts * frame.time_base


def _start_in_avi(file: MediaFile) -> Fraction:
    """When the first frame is decoded; AVI knows no other time.

    Lossy sound comes out of its decoder some samples late, and AVI cannot say so. FFmpeg, when it
    writes AVI, delays all frames but the first by as much, in whole frames, or not at all.
    """
    stamps = (p.dts for p in file.packets(file.picture) if p.size and p.dts is not None)
    slots, slot_seconds = list(islice(stamps, 3)), file.picture.time_base or Fraction(1, 30)
    start = slots[0] * slot_seconds if slots else Fraction(0)
    sound = file.sound.codec_context
    # Decoders have names such as mp3float.
    num_samples = _DELAY_SAMPLES.get(sound.name.removesuffix("float"), 0)
    if not num_samples:
        return start
    delay = Fraction(num_samples, sound.sample_rate)
    added = math.ceil(delay / slot_seconds)
    is_delayed = len(slots) == 3 and (slots[1] - slots[0]) - (slots[2] - slots[1]) == added
    return start + delay - (added * slot_seconds if is_delayed else 0)


def decode_track(
    file: MediaFile,
    channel: Channel,
    *,
    zero: Fraction | None,
    kept_from: int,
    needed: float,
    until: float,
) -> tuple[Tensor, int]:
    """The track at its own rate from some second on, as one channel, with silence for its holes.

    A span costs the same wherever it lies. Codecs that remember less than 5 s (PCM, FLAC, MP3,
    Vorbis, ...) give the samples of decoding from the start. AAC and AC-3 fill parts of the
    spectrum with random noise, which is another then.

    Args:
        file: Open, nothing decoded yet.
        channel: As in `read_audio`.
        zero: Where time begins, on the container's clock; None is the first sample.
        kept_from: Whole seconds after ``zero`` from which samples are kept.
        needed: Second up to which the track must decode.
        until: Second after which nothing is decoded.

    Returns:
        float32 (S,), full scale 1, from ``kept_from`` on, and the sampling rate in Hz.

    Raises:
        MediaError: If there is no sound, it is damaged shortly before ``needed``, or its header or
            time stamps cannot be true.
    """
    import av

    path, stream = file.path, file.sound
    tick = stream.time_base or Fraction(1, 1000)
    found, grid, forgiven_until = file.packets(stream), None, None
    kept: list[Tensor] = []
    rate_hz, filled, reached = 0, None, float(kept_from)
    try:
        if kept_from > _PREROLL_SECONDS:
            head = list(placed(islice(_pieces(file, found, channel), _HEAD_PIECES), tick))
            if any(piece.seconds is not None for _, piece in head):
                grid, rate_hz = grid_of(head), head[0][1].rate_hz
                zero = Fraction(head[0][0], rate_hz) if zero is None else zero
                forgiven_until = zero + kept_from
                found = _packets_from(file, forgiven_until - _PREROLL_SECONDS, found)
            else:
                found = _packets_again(file)
        pieces = _pieces(file, found, channel, forgiven_until=forgiven_until)
        for position, piece in placed(pieces, tick, grid):
            if filled is None:
                rate_hz = piece.rate_hz
                start = position if zero is None else round(zero * rate_hz)
                filled = kept_from * rate_hz
            hole = int(min(position - start - filled, until * rate_hz))
            if hole > _MAX_HOLE_SECONDS * rate_hz:
                raise MediaError(
                    f"{path}: the time stamps of its sound leap by {hole / rate_hz:.0f} s."
                )
            # An empty slice would keep its whole frame in memory.
            if len(piece.samples) + hole > 0:
                samples = piece.samples
                kept.append(functional.pad(samples, (hole, 0)) if hole > 0 else samples[-hole:])
                filled += len(kept[-1])
            reached = filled / rate_hz
            if reached >= until:
                break
    except av.error.FFmpegError as error:
        file.deadline.check()
        if reached <= needed:
            raise MediaError(
                f"{path}: its sound is damaged near second {reached:.2f} ({reason(error)})."
            ) from error
    if not rate_hz:
        raise MediaError(f"{path}: its audio stream holds no sound.")
    if not kept and zero is not None:
        # Of a download cut short nothing is there to be decoded, so nothing fails.
        end = float(((stream.start_time or 0) + (stream.duration or 0)) * tick - zero)
        if end > needed:
            raise MediaError(
                f"{path}: its sound is cut off before second {needed:.2f}; it should last until "
                f"second {end:.2f}."
            )
    return torch.cat([torch.zeros(0), *kept]), rate_hz


def _packets_from(
    file: MediaFile, second: Fraction, found: Iterator["Packet"]
) -> Iterator["Packet"]:
    """The packets of the sound from a second on; ``found`` are those from an earlier one on."""
    import av

    def is_early(packet: "Packet") -> bool:
        return packet.pts is None or packet.pts * packet.time_base < second

    kind = file.container.format.name
    is_exact = kind not in _EXACT_FOR_PCM or file.sound.codec_context.name.startswith("pcm_")
    if kind not in _SEARCHED_BY_SIZE and is_exact:
        for back in _SEEK_BACK_SECONDS:
            try:
                # By the default stream, the picture: indexes often know no other.
                file.container.seek(int((second - back) * av.time_base))
            except av.error.FFmpegError:
                break
            found = file.packets(file.sound)
            first = next((packet for packet in found if packet.pts is not None), None)
            if first is not None and is_early(first):
                return dropwhile(is_early, found)
        found = _packets_again(file)
    return dropwhile(is_early, found)


def _packets_again(file: MediaFile) -> Iterator["Packet"]:
    with file.again() as again:
        yield from again.packets(again.sound)


def _pieces(
    file: MediaFile,
    found: Iterable["Packet"],
    channel: Channel,
    *,
    forgiven_until: Fraction | None = None,
) -> Iterator[Piece]:
    """Decode packets; errors before a second count for nothing, decoders may need a start."""
    import av

    rate_hz = 0
    for packet in found:
        try:
            decoded: list[Any] = packet.decode()
        except av.error.FFmpegError:
            if forgiven_until is None or packet.pts is None:
                raise
            if packet.pts * packet.time_base >= forgiven_until:
                raise
            continue
        for frame in decoded:
            if rate_hz not in (0, frame.sample_rate):
                raise MediaError(f"{file.path}: the sampling rate of its sound changes on the way.")
            rate_hz = frame.sample_rate
            if rate_hz not in RATES_HZ:
                raise MediaError(f"{file.path}: states a sampling rate of {rate_hz} Hz.")
            samples = torch.from_numpy(_mono(frame, channel))
            if not samples.isfinite().all():
                raise MediaError(f"{file.path}: its sound holds values that are no numbers.")
            seconds = None if frame.pts is None else frame.pts * frame.time_base
            yield Piece(samples, rate_hz, seconds)


def _mono(frame: "AudioFrame", channel: Channel) -> np.ndarray:
    """float32 (S,) with full scale 1 from a frame of any sample format and layout."""
    samples = frame.to_ndarray()
    if frame.format.is_packed:
        samples = samples.reshape(-1, len(frame.layout.channels)).T
    # FFmpeg's own downmix would weigh the channels of 5.1 unequally.
    signal = samples[0] if channel == "first" else samples.mean(axis=0, dtype=np.float64)
    if samples.dtype == np.uint8:
        return ((signal - np.float64(128)) / 128).astype(np.float32)
    if np.issubdtype(samples.dtype, np.integer):
        signal = signal / 2.0 ** (8 * samples.dtype.itemsize - 1)
    return np.ascontiguousarray(signal, dtype=np.float32)
