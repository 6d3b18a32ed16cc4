"""Video clips by exact time stamps, turned upright.

Frame numbers times a nominal rate name the wrong frames in files of variable rate, so everything
here goes by presentation time stamps. Time zero of a file is its first video frame.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from musicinfuser.media.colours import (
    Decoding,
    full_range_rgb,
    require_known_colours,
    sdr_from_hdr,
)
from musicinfuser.media.decoding import TIME_LIMIT_SECONDS, reading
from musicinfuser.media.errors import MediaError
from musicinfuser.media.seeking import (
    PTS_TOLERANCE_SECONDS,
    deinterlaced,
    first_frame,
    frames_around,
    length_seconds,
    shown_for_seconds,
)
from musicinfuser.setting_checks import check_choice, check_number

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.stream import VideoStream

# One flipped bit in a header can make years of a second.
MAX_HOURS = 24


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        path: The file.
        width: Pixels of the upright frame as players show it: stored pixels that are not square
            are made so by stretching their width.
        height: Pixels of the upright frame as players show it.
        rotation_degrees: 0, 90, 180 or 270: how far the stored pixels are turned
            counterclockwise to stand upright.
        duration_seconds: From the first frame to the end of the last.
        average_fps: As the container states it; mp4 states frames over seconds, Matroska and
            transport streams the nominal rate even where the true one varies.
        has_audio: Whether there is a sound track with a known codec.
    """

    path: Path
    width: int
    height: int
    rotation_degrees: int
    duration_seconds: float
    average_fps: float
    has_audio: bool


@dataclass(frozen=True)
class CropBox:
    """A box in pixels of the upright frame as players show it."""

    left: int
    top: int
    width: int
    height: int


def probe_video(path: Path | str, *, time_limit_seconds: float = TIME_LIMIT_SECONDS) -> VideoInfo:
    """Read size, rotation, length and rate of a video; one frame is decoded.

    Raises:
        MediaError: If the file is missing, damaged, longer than a day, not read in time, or has no
            moving picture (a cover image of a song does not count).
    """
    with reading(path, "video", time_limit_seconds) as file:
        stream = file.picture
        require_known_colours(stream, path)
        zero, frame = first_frame(file)
        width, height = _shown_size(stream, frame)
        duration_seconds = length_seconds(file, zero)
        rate = stream.average_rate or stream.guessed_rate
        if not rate or duration_seconds <= 0:
            raise MediaError(f"{path}: states no length or no frame rate.")
        if duration_seconds > MAX_HOURS * 3600:
            raise MediaError(
                f"{path}: states a length of {duration_seconds / 3600:.0f} hours; at most "
                f"{MAX_HOURS} are taken."
            )
        return VideoInfo(
            path=Path(path),
            width=width,
            height=height,
            rotation_degrees=90 * _quarter_turns(frame),
            duration_seconds=duration_seconds,
            average_fps=float(rate),
            has_audio=any(s.codec_context is not None for s in file.container.streams.audio),
        )


def aist_crop(width: int, height: int, *, target_height: int, target_width: int) -> CropBox:
    """The authors' box for AIST's fixed cameras, which drops the ceiling above the dancers.

    They cut 1272x720 pixels at ``x = (w - 1272) // 2, y = (h - 720 + 180) // 2`` from 1080p video
    for 480x848 clips (authors' code). Here the box is 2/3 of the height, has the target's aspect,
    and its centre lies 1/12 of the height below the middle: the same box at 1080p, and the same
    view at any other size.

    Args:
        width: Pixels of the upright frame.
        height: Pixels of the upright frame.
        target_height: Pixels of the clip to be made; only the aspect counts.
        target_width: Pixels of the clip to be made.

    Returns:
        A box inside the frame; where the frame is too narrow it shrinks with its aspect kept.
    """
    _check_sizes(width=width, height=height, target=min(target_height, target_width))
    box_height = height * 720 / 1080
    shrink = min(1.0, width / (box_height * target_width / target_height))
    box_height *= shrink
    rows, columns = round(box_height), round(box_height * target_width / target_height)
    top = round((height - rows) / 2 + height * 90 / 1080)
    return _clamped(CropBox((width - columns) // 2, top, columns, rows), width, height)


def centre_crop(width: int, height: int, *, target_height: int, target_width: int) -> CropBox:
    """The largest box of the target's aspect, in the middle of the frame."""
    _check_sizes(width=width, height=height, target=min(target_height, target_width))
    columns = min(width, round(height * target_width / target_height))
    rows = min(height, round(width * target_height / target_width))
    return _clamped(
        CropBox((width - columns) // 2, (height - rows) // 2, columns, rows), width, height
    )


def read_clip(
    path: Path | str,
    *,
    start_seconds: float,
    num_frames: int,
    height: int,
    width: int,
    fps: float = 30.0,
    crop: CropBox | None,
    decoding: Decoding = "corrected",
    time_limit_seconds: float = TIME_LIMIT_SECONDS,
) -> Tensor:
    """Sample a clip by time stamps: frame i is what a player shows at ``start + i / fps``.

    Colours are converted to full-range RGB with the file's own matrix; where it names none, with
    BT.709 from 720 lines or 1280 columns on and BT.601 below. HDR becomes SDR, interlaced frames
    become pictures of their first field. Rotation is applied, then the crop, then an antialiased
    bilinear resize.

    Args:
        path: Any file with a video stream FFmpeg can decode, of constant or variable rate.
        start_seconds: Counted from the first video frame, at least 0.
        num_frames: Frames to return.
        height: Pixels of the returned frames.
        width: Pixels of the returned frames.
        fps: Rate of the returned frames; slower sources repeat frames, faster ones skip some.
        crop: Box of the upright frame, or None for the whole frame (aspect is then not kept).
        decoding: ``"plain"`` reads all untagged video by BT.601, HDR as if it were SDR and
            interlaced frames with both fields, as the authors' code does.
        time_limit_seconds: When to give the file up.

    Returns:
        uint8 (num_frames, height, width, 3), RGB.

    Raises:
        MediaError: If the file cannot be read, or not in time, ends before the clip does, is
            damaged at or shortly before it, or changes its size so that the crop does not fit.
    """
    from av.video.reformatter import VideoReformatter

    _check_sizes(num_frames=num_frames, height=height, width=width, fps=fps)
    check_number("start_seconds", start_seconds, at_least=0)
    check_choice("decoding", decoding, get_args(Decoding))
    clip = torch.empty(num_frames, height, width, 3, dtype=torch.uint8)
    reformatter = VideoReformatter()

    def fill(first: int, last: int, seconds: float, frame: "VideoFrame") -> None:
        size = _shown_size(stream, frame)
        is_same = size == first_size and stream.codec_context.sample_aspect_ratio == pixel_aspect
        if crop is not None and not is_same:
            raise MediaError(
                f"{path}: its picture changes near second {seconds - zero:.2f} from "
                f"{first_size[0]}x{first_size[1]} to {size[0]}x{size[1]} pixels or in the shape of "
                "its pixels; split the file there."
            )
        rgb = full_range_rgb(frame, reformatter, decoding)
        image = np.rot90(rgb, _quarter_turns(frame))
        pixels = cropped(image, size, crop, height, width, path)
        clip[first:last] = (
            sdr_from_hdr(pixels, frame.color_trc) if pixels.is_floating_point() else pixels
        )

    with reading(path, "video", time_limit_seconds) as file:
        stream = file.picture
        zero, frame = first_frame(file)
        first_size = _shown_size(stream, frame)
        pixel_aspect = stream.codec_context.sample_aspect_ratio
        times = [zero + start_seconds + i / fps for i in range(num_frames)]
        filled, shown, shown_at, end = 0, None, zero, zero
        around = frames_around(file, times[0], zero)
        if decoding == "corrected":
            around = deinterlaced(around, stream)
        for seconds, frame in around:
            due = filled
            while due < num_frames and times[due] < seconds - PTS_TOLERANCE_SECONDS:
                due += 1
            if due > filled and shown is not None:
                fill(filled, due, shown_at, shown)
                filled = due
            if filled == num_frames:
                return clip
            shown, shown_at = frame, seconds
            end = seconds + shown_for_seconds(frame, stream)
        # The last frame of a file stays on screen for its own duration, not for ever.
        if shown is None or times[-1] > end - PTS_TOLERANCE_SECONDS:
            raise MediaError(
                f"{path}: ends at second {end - zero:.2f}, but {num_frames} frames from second "
                f"{start_seconds:.2f} at {fps:g} fps were asked for."
            )
        fill(filled, num_frames, shown_at, shown)
    return clip


def small_frames(
    path: Path | str, *, longest_side: int, time_limit_seconds: float
) -> Iterator[tuple[float, Tensor]]:
    """Decode a whole video from its first frame to its last, shrunk.

    Args:
        path: Any file with a video stream FFmpeg can decode.
        longest_side: Pixels of the longer side; smaller videos are not enlarged.
        time_limit_seconds: When to give the file up; what is done with the frames counts.

    Yields:
        Seconds since the first frame, and uint8 (height, width, 3), RGB, as it is stored (not
        turned upright); all frames have one size.

    Raises:
        MediaError: If the file cannot be read, or not in time, or is damaged anywhere.
    """
    from av.video.reformatter import Interpolation, VideoReformatter

    reformatter = VideoReformatter()
    with reading(path, "video", time_limit_seconds) as file:
        zero, frame = first_frame(file)
        shrink = min(1.0, longest_side / max(frame.width, frame.height))
        width, height = (max(1, round(side * shrink)) for side in (frame.width, frame.height))
        for seconds, frame in frames_around(file, zero, zero):
            small = reformatter.reformat(
                frame, width=width, height=height, format="rgb24",
                interpolation=Interpolation.AREA, threads=1,
            )  # fmt: skip
            yield seconds - zero, torch.from_numpy(small.to_ndarray())


def _check_sizes(**sizes: float) -> None:
    for name, size in sizes.items():
        check_number(name, size, above=0)


def _clamped(box: CropBox, width: int, height: int) -> CropBox:
    """The box moved and cut to lie inside a frame."""
    columns, rows = max(1, min(box.width, width)), max(1, min(box.height, height))
    left = min(max(box.left, 0), width - columns)
    top = min(max(box.top, 0), height - rows)
    return CropBox(left, top, columns, rows)


def _quarter_turns(frame: "VideoFrame") -> int:
    """Counterclockwise quarter turns (0 to 3) that set a frame upright."""
    return round(frame.rotation / 90) % 4


def _shown_size(stream: "VideoStream", frame: "VideoFrame") -> tuple[int, int]:
    """Width and height of the upright frame as players show it."""
    pixel_aspect = stream.sample_aspect_ratio or 1
    width, height = max(1, round(frame.width * pixel_aspect)), frame.height
    return (height, width) if _quarter_turns(frame) % 2 else (width, height)


def cropped(
    image: np.ndarray,
    shown: tuple[int, int],
    crop: CropBox | None,
    height: int,
    width: int,
    path: Path | str,
) -> Tensor:
    """The box of an upright image (H, W, 3) shown at a size, resized to (height, width, 3)."""
    box = crop or CropBox(0, 0, *shown)
    bottom, right = box.top + box.height, box.left + box.width
    if min(box.left, box.top) < 0 or right > shown[0] or bottom > shown[1]:
        raise MediaError(
            f"{path}: {box} does not lie inside its frame of {shown[0]}x{shown[1]} pixels."
        )
    rows = _stored(box.top, bottom, shown=shown[1], stored=image.shape[0])
    columns = _stored(box.left, right, shown=shown[0], stored=image.shape[1])
    pixels = torch.from_numpy(np.ascontiguousarray(image[rows, columns]))
    if pixels.shape[:2] == (height, width):
        return pixels
    planes = pixels.permute(2, 0, 1)[None]
    resized = functional.interpolate(planes, (height, width), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0)


def _stored(first: int, end: int, *, shown: int, stored: int) -> slice:
    """The stored pixels behind a stretch of shown ones, at least one of them."""
    start = min(round(first * stored / shown), stored - 1)
    return slice(start, max(round(end * stored / shown), start + 1))
