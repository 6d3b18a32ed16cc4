"""Clips made alike: one codec, size, rate, length and loudness, the same sound, no metadata.

And copies for catch items, spoilt so that a careful rater tells them from the intact clips.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from dance_eval.metrics.clip_folder import ClipEntry
from musicinfuser.errors import UserError
from musicinfuser.fingerprint import file_digest
from musicinfuser.keyed_random import generator
from musicinfuser.media.audio import filtered, fit_length, read_audio
from musicinfuser.media.video import VideoInfo, centre_crop, probe_video, read_clip
from musicinfuser.media.video_writing import write_video

AUDIO_RATE_HZ = 48000
_ALIKE = 0.9
_COMPARED_RATE_HZ = 8000
_COARSE_BLOCKS = 24  # along the shorter side
_SPAN_FRAMES = 5
_TARGET_LUFS = -23.0  # EBU R 128
# The measure needs blocks of 0.4 s; shorter sounds are repeated until there are enough.
_MEASURED_SECONDS = 3.0
_SILENCE_LUFS = -70.0
_HIGHEST_PEAK = 0.99


@dataclass(frozen=True)
class Source:
    """A clip as it came: its line in the list, what its file holds, and the file's SHA-256."""

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
    """What all clips of a study have in common: even sides in pixels, frames per second."""

    height: int
    width: int
    fps: float


@dataclass(frozen=True)
class Picture:
    """One clip of the page.

    Attributes:
        source: Whose frames are shown.
        sound: Whose sound is played.
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
    """Look at a clip; `UserError` if it cannot be read or is not what its list describes."""
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
    """The size and rate of a study of one clip or more.

    Sides that are None are those of the clip with the fewest pixels, so that nothing is enlarged
    and sharpness does not tell systems apart; of one alone, the other is in that clip's
    proportions. A rate of None is the highest, so that no frame is lost.
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
    """Whether two clips that should have the same sound do not; a missing one is not looked at.

    `MediaError` if a sound cannot be decoded.
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
    no metadata and its time stamp is the same for all. The study's seed is for clips whose frames
    are scrambled; `UserError` if a source cannot be read to its end or the file not be written.
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
        frames = spoilt(frames, picture.spoiling, seed=seed, name=picture.source.digest)
    seconds = picture.num_frames / form.fps
    sound = read_audio(picture.sound.info.path, rate_hz=AUDIO_RATE_HZ, duration_seconds=seconds)
    loud = with_loudness(sound, rate_hz=AUDIO_RATE_HZ)
    loud = fit_length(loud, round(seconds * AUDIO_RATE_HZ)).to(torch.float32)
    write_video(path, frames, fps=form.fps, audio=loud, audio_rate_hz=AUDIO_RATE_HZ)
    os.utime(path, (0, 0))


def integrated_lufs(waveform: Tensor, *, rate_hz: int) -> float:
    """Integrated loudness after ITU-R BS.1770, by FFmpeg's ``ebur128`` filter.

    Takes float32 (S,), full scale 1, to LUFS of one channel (a full-scale sine of 1 kHz has -3);
    minus infinity where it is silent by the standard's gate of -70 LUFS. Less than 3 s are measured
    repeated end to end.
    """
    if not waveform.numel():
        return -math.inf
    num_copies = math.ceil(_MEASURED_SECONDS * rate_hz / len(waveform))
    measured = _SILENCE_LUFS
    for frame in filtered(waveform.repeat(num_copies), rate_hz, ("ebur128", "metadata=1")):
        # The last frames are shorter than a block and carry no measure.
        text = frame.metadata.get("lavfi.r128.I")
        measured = measured if text is None else float(text)
    return measured if measured > _SILENCE_LUFS else -math.inf


def with_loudness(waveform: Tensor, *, rate_hz: int) -> Tensor:
    """The same sound, float32 (S,) of full scale 1, at the loudness of EBU R 128.

    Silence stays silent, and where the highest peak would leave full scale, the result is as loud
    as the peak allows: it is never clipped.
    """
    measured = integrated_lufs(waveform, rate_hz=rate_hz)
    if math.isinf(measured):
        return waveform
    gain = 10 ** ((_TARGET_LUFS - measured) / 20)
    peak = float(waveform.abs().max())
    return waveform * min(gain, _HIGHEST_PEAK / peak)


def likeness(first: Tensor, second: Tensor) -> float:
    """Correlation of two sounds at no delay, over the length of the shorter one; 0 for silence.

    Both are float32, (S,) and (S',), at one rate.
    """
    num_samples = min(len(first), len(second))
    both = torch.stack([fit_length(sound, num_samples) for sound in (first, second)]).double()
    norms = both.norm(dim=1).prod()
    return float(both[0] @ both[1] / norms) if norms > 0 else 0.0


SPOILINGS = {
    "frozen": ("music", "complexity"),
    "scrambled": ("realism",),
    "coarse": ("quality",),
}
"""How copies are spoilt, and the questions that a careful rater then answers with the intact clip.

Only these count: that a scrambled dance looks more complex is no mistake. Together they check each
question.
"""


def spoilt(frames: Tensor, way: str, *, seed: int, name: str) -> Tensor:
    """Frames, uint8 (F, H, W, 3), of a copy that a careful rater tells from the intact clip.

    ``frozen`` is the middle frame all the time: nobody dances. ``scrambled`` is spans of five
    frames, or a fifth of a shorter clip's, in an order drawn by the study's seed and the clip's
    name, half of them backwards: motion leaps. ``coarse`` is blocks in place of pixels, 24 along
    the shorter side.
    """
    if way == "frozen":
        return frames[len(frames) // 2].expand_as(frames).contiguous()
    if way == "scrambled":
        stream = generator(seed, name, "study scramble")
        spans = torch.arange(len(frames)).split(max(min(_SPAN_FRAMES, len(frames) // 5), 1))
        order = torch.randperm(len(spans), generator=stream).tolist()
        turned = torch.randint(2, (len(spans),), generator=stream).tolist()
        return frames[torch.cat([spans[n].flip(0) if turned[n] else spans[n] for n in order])]
    height, width = frames.shape[1:3]
    block = max(min(height, width) // _COARSE_BLOCKS, 2)
    planes = frames.permute(0, 3, 1, 2).float()
    size = max(height // block, 1), max(width // block, 1)
    small = functional.interpolate(planes, size, mode="area")
    large = functional.interpolate(small, (height, width), mode="nearest")
    return large.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
