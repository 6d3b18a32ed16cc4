"""Media that a program may choke on, made on the spot: awkward but whole, broken, and mutilated."""

import os
import wave
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from tests.media.conftest import sine, write_media

NUM_FRAMES = 24
SECONDS = NUM_FRAMES / 30
TIMES = [k / 30 for k in range(NUM_FRAMES)]
NAMES = (
    "new\nline.mp4",
    "'quotes' and \"quotes\".mp4",
    "$HOME ${cwd} `id`.mp4",
    "semi;colon & pipe |.mp4",
    "-rf.mp4",
    "%03d.mp4",
    "http:#?.mp4",
    "été 踊り 🕺.mp4",
    os.fsdecode(b"latin-\xe9.mp4"),
    "x" * 251 + ".mp4",
)


def moving(index: int, width: int, height: int) -> np.ndarray:
    """A light square that moves over noise."""
    image = np.random.default_rng(index).integers(0, 60, (height, width, 3), dtype=np.uint8)
    image[height // 4 : height // 2, index : index + height // 4] = 220
    return image


def write(path: Path, *, num_frames: int = NUM_FRAMES, seconds: float = SECONDS, **options) -> Path:
    """A short video with a tone, whole unless ``options`` say otherwise."""
    rate_hz = options.setdefault("rate_hz", 48000)
    options.setdefault("audio", sine(440, seconds, rate_hz) if seconds else None)
    options.setdefault("draw", moving)
    return write_media(path, times=TIMES[:num_frames], **options)


def write_awkward(folder: Path) -> set[str]:
    """Write videos that are odd but whole; returns their paths relative to the folder."""
    plain = write(folder / "plain.mp4")
    write(folder / "real.mkv")
    write(folder / "ten bits.mp4", pix_fmt="yuv420p10le")
    write(folder / "full chroma.mp4", pix_fmt="yuv444p")
    write(folder / "surround.mp4", audio=np.tile(sine(440, SECONDS), (6, 1)), layout="5.1")
    write(folder / "8 kHz.mp4", rate_hz=8000)
    write(folder / "96 kHz.mp4", rate_hz=96000)
    write(folder / "sound ends first.mp4", seconds=0.25)
    write(folder / "sound goes on.mp4", seconds=4.0)
    write(folder / "old.avi", options={"bf": "0"}, time_base=Fraction(1, 30))
    (folder / "folder.mp4").mkdir()
    copies = [*NAMES, "mp4 inside.mkv", "folder.mp4/inside.mp4"]
    for name in copies:
        (folder / name).write_bytes(plain.read_bytes())
    (folder / "linked.mp4").symlink_to(plain)
    (folder / "around").symlink_to(folder)
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.*")
        if path.is_file() and "around" not in path.parts
    }


def write_broken(folder: Path) -> dict[str, str]:
    """Write what is no video to cut clips from; returns a part of the reason by name."""
    plain = write(folder / "whole.mp4").read_bytes()
    (folder / "whole.mp4").unlink()
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("This is no video, whatever its name says.\n" * 50)
    (folder / "half.mp4").write_bytes(plain[: len(plain) // 2])
    (folder / "zeros.mp4").write_bytes(bytes(len(plain)))
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(len(plain)))
    Image.new("RGB", (64, 48)).save(folder / "picture.mp4", format="jpeg")
    with wave.open(str(folder / "sound.mp4"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(bytes(32000))
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile 'tiny.mp4'\n")
    write(folder / "mute.mp4", seconds=0)
    write(folder / "one frame.mp4", num_frames=1)
    write(folder / "tiny.mp4", width=16, height=16)
    not_numbers = np.full(48000, np.nan, np.float32)
    write(folder / "nan.mkv", audio=not_numbers, audio_codec="pcm_f32le")
    (folder / "dangling.mp4").symlink_to(folder / "gone.mp4")
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    (folder / "device.mp4").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.mp4")
    reasons = {
        "empty.mp4": "cannot be read: as video",
        "text.mp4": "cannot be read: as video",
        "half.mp4": "cannot be read: as video",
        "zeros.mp4": "cannot be read: as video",
        "noise.mp4": "cannot be read: as video",
        "picture.mp4": "has no video stream",
        "sound.mp4": "has no video stream",
        "list.mp4": "is a list of other files",
        "mute.mp4": "no sound: the file has no audio stream",
        "one frame.mp4": "too short: 0.03 s",
        "tiny.mp4": "too small: the centre crop of 16x16 px",
        "nan.mkv": "its sound holds values that are no numbers",
        "dangling.mp4": "No such file or directory",
        "loop.mp4": "Too many levels of symbolic links",
        "device.mp4": "is no regular file",
        "pipe.mp4": "is no regular file",
    }
    if os.geteuid():  # root may read everything
        (folder / "locked.mp4").write_bytes(plain)
        (folder / "locked.mp4").chmod(0)
        reasons["locked.mp4"] = "Permission denied"
    return reasons


def mutilated(data: bytes, count: int) -> Iterator[tuple[str, bytes]]:
    """Versions of a file, each with a name: cut off, bits flipped, zeroed, filled with noise.

    A quarter each. Cuts lie evenly; half of the flips hit the first and last parts, where
    containers keep what they say about the rest.
    """
    random = np.random.default_rng(len(data))
    ends = [*range(min(1500, len(data))), *range(max(len(data) - 3000, 0), len(data))]
    for number in range(count):
        kind = ("cut", "flipped", "zeroed", "noise")[number % 4]
        changed = bytearray(data)
        if kind == "cut":
            del changed[len(data) * number // count :]
        elif kind == "flipped":
            for _ in range(1 + number % 16):
                anywhere = random.integers(len(data))
                at = random.choice(ends) if number % 8 == 1 else anywhere
                changed[at] ^= 1 << random.integers(8)
        else:
            first, length = random.integers(len(data)), random.integers(1, 2000)
            span = min(length, len(data) - first)
            changed[first : first + span] = bytes(span) if kind == "zeroed" else random.bytes(span)
        yield f"{kind} {number}", bytes(changed)
