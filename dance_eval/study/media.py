"""Clips made alike: one codec, size, rate, length and loudness, the same sound, no metadata."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dance_eval.metrics.clip_folder import ClipEntry, file_digest
from dance_eval.study.spoiling import SPOILINGS
from musicinfuser.errors import UserError
from musicinfuser.media.audio import fit_length, read_audio
from musicinfuser.media.loudness import likeness, with_loudness
from musicinfuser.media.video import VideoInfo, centre_crop, probe_video, read_clip
from musicinfuser.media.video_writing import write_video

AUDIO_RATE_HZ = 48000
_ALIKE = 0.9
_COMPARED_RATE_HZ = 8000


@dataclass(frozen=True)
class Source:
    """A clip as it came.

    Attributes:
        entry: Its line in the list.
        info: What its file holds.
        digest: SHA-256 of the file.
    """

    entry: ClipEntry
    info: VideoInfo
    digest: str

    def num_frames(self, fps: float) -> int:
        """Frames at another rate, by its length in seconds."""
        seconds = self.info.duration_seconds
        if self.entry.num_frames is not None:
            seconds = min(
                seconds, self.entry.num_frames / (self.entry.fps or self.info.average_fps)
            )
        return max(round(seconds * fps), 1)


@dataclass(frozen=True)
class Form:
    """What all clips of a study have in common.

    Attributes:
        height: Pixels, even.
        width: Pixels, even.
        fps: Frames per second.
    """

    height: int
    width: int
    fps: float


@dataclass(frozen=True)
class Picture:
    """One clip of the page.

    Attributes:
        source: Whose frames are shown.
        sound: Whose sound is heard.
        num_frames: How many frames are shown, at the study's rate.
        spoiling: How its frames are spoilt; empty for intact clips.
    """

    source: Source
    sound: Source
    num_frames: int
    spoiling: str = ""

    def identity(self) -> str:
        """A text that is equal for clips of one system that look and sound the same."""
        shown = f"{self.source.entry.system}/{self.source.digest}/{self.sound.digest}"
        return f"{shown}/{self.num_frames}/{self.spoiling}"


def open_source(entry: ClipEntry) -> Source:
    """Look at a clip's header and content.

    Raises:
        ValueError: If it cannot be read or is not the file that its list describes.
    """
    if entry.problem is not None:
        raise UserError(f"{entry.path}: {entry.problem}.")
    try:
        digest = file_digest(entry.path)
    except OSError as error:
        raise UserError(f"{entry.path}: cannot be opened ({error.strerror}).") from error
    if entry.sha256 and entry.sha256 != digest:
        raise UserError(f"{entry.path}: is not the file that its list describes (sha256 differs).")
    return Source(entry, probe_video(entry.path), digest)


def common_form(
    sources: Sequence[Source], *, height: int | None, width: int | None, fps: float | None
) -> Form:
    """The size and rate of a study.

    Args:
        sources: All its clips, at least one.
        height: Pixels, or None for that of the clip with the fewest pixels, so that nothing is
            enlarged and sharpness does not tell systems apart.
        width: Pixels, or None likewise; with a height alone, in that clip's proportions.
        fps: Frames per second, or None for the highest rate, so that no frame is lost.
    """
    least = min(sources, key=lambda source: source.info.width * source.info.height).info
    if height is None and width is not None:
        height = width * least.height // least.width
    if width is None and height is not None:
        width = height * least.width // least.height
    rows, columns = height or least.height, width or least.width
    rate = fps or max(source.info.average_fps for source in sources)
    return Form(max(rows // 2 * 2, 2), max(columns // 2 * 2, 2), round(rate, 3))


def sounds_differ(first: Source, second: Source) -> bool:
    """Whether two clips that should have the same sound do not; a missing sound is not looked at.

    Raises:
        MediaError: If a sound cannot be decoded.
    """
    if not (first.info.has_audio and second.info.has_audio):
        return False
    one, other = (
        read_audio(source.info.path, rate_hz=_COMPARED_RATE_HZ) for source in (first, second)
    )
    return likeness(one, other) < _ALIKE


def write_picture(path: Path, picture: Picture, *, form: Form, seed: int) -> None:
    """Re-encode one clip; an existing file is left as it is.

    The largest box of the study's proportions is cut from the middle and resized. The file carries
    no metadata and its time stamp is the same for all.

    Args:
        path: The mp4 to write.
        picture: What it shows.
        form: How.
        seed: The study's seed, for clips whose frames are scrambled.

    Raises:
        ValueError: If a source cannot be read to its end or the file cannot be written.
    """
    if path.exists():
        return
    info = picture.source.info
    crop = centre_crop(info.width, info.height, target_height=form.height, target_width=form.width)
    frames = read_clip(
        info.path,
        start_seconds=0.0,
        num_frames=picture.num_frames,
        height=form.height,
        width=form.width,
        fps=form.fps,
        crop=crop,
    )
    if picture.spoiling:
        spoil, _ = SPOILINGS[picture.spoiling]
        frames = spoil(frames, seed=seed, name=picture.source.digest)
    sound = _sound(picture, fps=form.fps)
    write_video(path, frames, fps=form.fps, audio=sound, audio_rate_hz=AUDIO_RATE_HZ)
    os.utime(path, (0, 0))


def _sound(picture: Picture, *, fps: float) -> Tensor:
    """The sound of a clip at the study's loudness, as long as its frames."""
    seconds = picture.num_frames / fps
    sound = read_audio(picture.sound.info.path, rate_hz=AUDIO_RATE_HZ, duration_seconds=seconds)
    loud = with_loudness(sound, rate_hz=AUDIO_RATE_HZ)
    return fit_length(loud, round(seconds * AUDIO_RATE_HZ)).to(torch.float32)
