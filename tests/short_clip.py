"""Reading a few frames of a test's video, everything usual unless said."""

from musicinfuser.media.video import read_clip


def read(path, *, start=0.0, num_frames=5, height=48, width=64, fps=30.0, crop=None, **options):
    return read_clip(
        path,
        start_seconds=start,
        num_frames=num_frames,
        height=height,
        width=width,
        fps=fps,
        crop=crop,
        **options,
    )
