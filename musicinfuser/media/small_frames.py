"""All frames of a video in order, shrunk: for whoever looks at a whole file, not at clips of it."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from musicinfuser.media.decoding import Deadline
from musicinfuser.media.errors import picture_stream, reading
from musicinfuser.media.seeking import first_frame, frame_seconds, frames_around


def small_frames(
    path: Path | str, *, longest_side: int, time_limit_seconds: float
) -> Iterator[tuple[float, Tensor]]:
    """Decode a video from its first frame to its last.

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
    deadline = Deadline(path, time_limit_seconds)
    with reading(path, "video", deadline) as container:
        stream = picture_stream(container, path)
        # As in `read_clip`: threads over frames miss damage at times.
        stream.thread_type = "SLICE"
        frame = first_frame(container, stream, path, deadline)
        zero = frame_seconds(frame, path)
        shrink = min(1.0, longest_side / max(frame.width, frame.height))
        width, height = (max(1, round(side * shrink)) for side in (frame.width, frame.height))
        for seconds, frame in frames_around(container, stream, zero, zero, path, deadline):
            small = reformatter.reformat(
                frame,
                width=width,
                height=height,
                format="rgb24",
                interpolation=Interpolation.AREA,
                threads=1,
            )
            yield seconds - zero, torch.from_numpy(small.to_ndarray())
