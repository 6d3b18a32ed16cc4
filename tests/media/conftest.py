"""Real media files, made on the spot with PyAV: small, exact, and awkward on purpose."""

import struct
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

RATE_HZ = 48000


def numbered(index, width, height):
    """A flat left and right half whose brightness spells the frame number, 0 to 255."""
    image = np.empty((height, width, 3), np.uint8)
    image[:, : width // 2] = 8 + 15 * (index // 16)
    image[:, width // 2 :] = 8 + 15 * (index % 16)
    return image


def read_numbers(clip):
    """The frame numbers of a uint8 (T, H, W, 3) clip of `numbered` images."""
    middle = clip[:, clip.shape[1] // 2].float().mean(dim=2)
    half = middle.shape[1] // 2
    quarter = half // 2
    digits = torch.stack([middle[:, quarter], middle[:, half + quarter]], dim=1)
    high, low = ((digits - 8) / 15).round().int().T
    return (16 * high + low).tolist()


def shown_at(times, start, num_frames, fps):
    """The numbers of the frames a player shows, by the plain rule."""
    at = [times[0] + start + i / fps for i in range(num_frames)]
    return [max(k for k, t in enumerate(times) if t <= moment + 1e-3) for moment in at]


def sine(frequency_hz, seconds, rate_hz=RATE_HZ, amplitude=0.5):
    return amplitude * np.sin(
        2 * np.pi * frequency_hz * np.arange(round(seconds * rate_hz)) / rate_hz
    )


def _mux_audio(container, stream, samples, layout, rate_hz, start_seconds, hole):
    for first in range(0, samples.shape[1], 1024):
        if hole is not None and hole[0] <= first / rate_hz < hole[1]:
            continue
        block = np.ascontiguousarray(samples[:, first : first + 1024], np.float32)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
        frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
        frame.pts = round(start_seconds * rate_hz) + first
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def write_media(
    path,
    *,
    times=(),
    draw=numbered,
    width=64,
    height=48,
    codec="libx264",
    pix_fmt="yuv420p",
    options=None,
    time_base=Fraction(1, 60000),
    color=None,
    pixel_aspect=None,
    audio=None,
    audio_codec="aac",
    layout="mono",
    rate_hz=RATE_HZ,
    audio_start_seconds=0.0,
    audio_hole=None,
    cover=False,
):
    """Write frame k of ``draw`` at ``times[k]`` and float audio (C, S) as FFmpeg's muxers do.

    Two groups of pictures to the second and three B-frames unless ``options`` say otherwise.
    ``audio_hole=(from, to)`` leaves a hole of seconds in the time stamps of the sound.
    """
    with av.open(str(path), "w") as container:
        if len(times):
            defaults = {"g": "12", "bf": "3", "crf": "10", "preset": "ultrafast"}
            stream = container.add_stream(codec, rate=30, options={**defaults, **(options or {})})
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            stream.codec_context.time_base = time_base
            if color is not None:
                stream.codec_context.colorspace, stream.codec_context.color_range = color
            if pixel_aspect is not None:
                stream.codec_context.sample_aspect_ratio = pixel_aspect
        if audio is not None:
            sound = container.add_stream(audio_codec, rate=rate_hz, layout=layout)
        if cover:
            picture = container.add_stream("png", rate=1)
            picture.width, picture.height, picture.pix_fmt = 16, 16, "rgb24"
            picture.disposition = av.stream.Disposition.attached_pic
            image = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            container.mux(picture.encode(image))
            container.mux(picture.encode(None))
        if len(times):
            for index, time in enumerate(times):
                image = av.VideoFrame.from_ndarray(draw(index, width, height), format="rgb24")
                tags = (
                    {} if color is None else dict(dst_colorspace=color[0], dst_color_range=color[1])
                )
                frame = image.reformat(format=pix_fmt, **tags)
                frame.time_base, frame.pts = time_base, round(time / time_base)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        if audio is not None:
            samples = np.atleast_2d(audio)
            _mux_audio(container, sound, samples, layout, rate_hz, audio_start_seconds, audio_hole)
    return path


def rotate_mp4(path, clockwise_degrees, width, height):
    """Write the display matrix of ISO 14496-12 that turns the picture clockwise."""
    one = 1 << 16
    turns = {
        90: (0, one, 0, -one, 0, 0, height * one, 0, 1 << 30),
        180: (-one, 0, 0, 0, -one, 0, width * one, height * one, 1 << 30),
        270: (0, -one, 0, one, 0, 0, 0, width * one, 1 << 30),
    }
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    assert struct.unpack(">9i", data[at : at + 36]) == (one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", *turns[clockwise_degrees])
    path.write_bytes(data)


def damage_packet(path, kind, number, *, whole=False):
    """Overwrite a packet, or its middle third, which the container does not notice.

    Returns the packet's time stamp in seconds.
    """
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        packet = [p for p in container.demux(stream) if p.size][number]
        first, size, time = packet.pos, packet.size, float(packet.pts * packet.time_base)
    if not whole:
        first, size = first + size // 3, size // 3
    data = bytearray(path.read_bytes())
    data[first : first + size] = bytes(255 if whole else (37 * i + 11) % 256 for i in range(size))
    path.write_bytes(data)
    return time


def _bad_files(folder):
    whole = write_media(folder / "whole.mp4", times=[k / 30 for k in range(30)])
    (folder / "empty.mp4").touch()
    (folder / "truncated.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (folder / "text.mp4").write_text("This is no video, whatever its name says.\n" * 50)
    (folder / "folder.mp4").mkdir()


@pytest.fixture(params=["empty.mp4", "truncated.mp4", "text.mp4", "folder.mp4", "missing.mp4"])
def bad_file(request, tmp_path):
    """A path that looks like a video and is none."""
    _bad_files(tmp_path)
    return tmp_path / request.param


@pytest.fixture
def media(tmp_path):
    """The makers and readers of test media as one object; ``write`` takes a file name."""

    def write(name="clip.mp4", **options):
        return write_media(tmp_path / name, **options)

    return SimpleNamespace(
        write=write,
        numbers=read_numbers,
        shown_at=shown_at,
        sine=sine,
        rotate_mp4=rotate_mp4,
        damage_packet=damage_packet,
        rate_hz=RATE_HZ,
    )
