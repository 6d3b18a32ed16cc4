"""Lists of requests, csv files with one clip to generate per line, and lengths in seconds."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from musicinfuser.clip_size import (
    MOCHI,
    LatentGeometry,
    check_clip_size,
    check_takes_image,
    frames_within,
)
from musicinfuser.errors import UserError
from musicinfuser.generation_requests import NO_AUDIO, SILENCE, GenerationRequest
from musicinfuser.label_files import read_csv
from musicinfuser.media.audio import clip_audio_seconds, read_audio, starts_too_late
from musicinfuser.setting_checks import check_file

REQUIRED_COLUMNS = ("track", "prompt", "seed")
SOUND = "an audio file or a video"
OPTIONAL_COLUMNS = (
    "track_offset_seconds", "num_frames", "heard", "heard_offset_seconds", "image",
)  # fmt: skip


def read_requests(
    lists: Sequence[str | Path],
    default: GenerationRequest,
    *,
    num_seconds: float | None = None,
    fps: float = 30.0,
    geometry: LatentGeometry = MOCHI,
) -> list[GenerationRequest]:
    """Read lists of requests.

    Args:
        lists: csv files in UTF-8 whose first line names the columns: ``track``, ``prompt``,
            ``seed`` and, if wanted, ``track_offset_seconds``, ``num_frames``, ``heard`` (an audio
            file or video that conditions in place of the track, ``silence`` or ``nothing``),
            ``heard_offset_seconds`` (the offset in the track, where left empty) and ``image`` (a
            picture that becomes the first frame). Files are looked for from the list's folder, then
            from the working directory.
        default: What a line leaves out.
        num_seconds: In place of its ``num_frames``, for clips in windows.
        fps: Frame rate of the clips.
        geometry: Of the backbone that takes them.

    Raises:
        UserError: With file and line: text that is no such list, a file that does not exist, a
            number out of its range, or a line that repeats another.
    """
    paths = [Path(path) for path in lists]
    for path in paths:
        check_file("data.generation.requests", path)
    requests: list[GenerationRequest] = []
    seen: dict[str, str] = {}
    listed = [
        (path, *row)
        for path in paths
        for row in read_csv(path, required=REQUIRED_COLUMNS, optional=OPTIONAL_COLUMNS)
    ]
    for path, line, row in listed:
        try:
            start_seconds = default.track_offset_seconds
            request = replace(
                default,
                track=_listed_file(path.parent, "track", row["track"], SOUND),
                prompt=row["prompt"],
                seed=_number(row, "seed", int),
                num_frames=_number(row, "num_frames", int, default.num_frames),
                track_offset_seconds=_number(row, "track_offset_seconds", float, start_seconds),
                heard=_heard(path.parent, row.get("heard", "")),
                heard_offset_seconds=_number(row, "heard_offset_seconds", float),
                image=_image(path.parent, row.get("image", "")) or default.image,
            )
            if request.image is not None:
                check_takes_image(geometry)
            if num_seconds is not None and not row.get("num_frames"):
                frames = frames_of(request, num_seconds=num_seconds, fps=fps, geometry=geometry)
                request = replace(request, num_frames=frames, in_windows=True)
            check_clip_size(request.num_frames, request.height, request.width, geometry=geometry)
            place = f"line {line}" if len(paths) == 1 else f"line {line} of {path}"
            if (first := seen.setdefault(request.file_stem(), place)) != place:
                raise UserError(f"repeats {first}; give it another seed, or leave it out.")
        except UserError as error:
            raise UserError(f"{path}, line {line}: {error}") from None
        requests.append(request)
    if not requests:
        names = " and ".join(map(str, paths)) or "data.generation.requests"
        raise UserError(f"{names} lists no request; write one per line below the names of columns.")
    return requests


def _number(row: dict[str, str], name: str, kind: Callable[[str], Any], default: Any = None) -> Any:
    text = row.get(name, "")
    if not text and name not in REQUIRED_COLUMNS:
        return default
    try:
        return kind(text)
    except ValueError:
        which = "whole number" if kind is int else "number"
        raise UserError(f"{name} is {text!r}; give a {which}.") from None


def _heard(folder: Path, text: str) -> str | None:
    if text in ("", SILENCE, NO_AUDIO):
        return text or None
    return _listed_file(folder, "heard", text, SOUND)


def _image(folder: Path, text: str) -> str | None:
    return _listed_file(folder, "image", text, "a picture") if text else None


def _listed_file(folder: Path, column: str, text: str, kind: str) -> str:
    if not text:
        raise UserError(f"{column} is empty; name {kind}.")
    # A text in the wrong column can be too long for a file name.
    with suppress(OSError):
        for path in (folder / text, Path(text)):
            if path.is_file():
                return str(path)
    raise UserError(
        f"{column} names {text}, which exists neither in {folder} nor in the working directory."
    )


def frames_of(
    request: GenerationRequest, *, num_seconds: float, fps: float, geometry: LatentGeometry = MOCHI
) -> int:
    """The most frames, of Mochi 6k + 1, that last at most so long and end with their music.

    ``num_seconds`` is infinite for all there are. Where the start of the clip in its track is yet
    to be drawn, room is left for it.

    Raises:
        MediaError: The track cannot be read, or ends before the clip starts.
    """
    # Audio conditioning takes a little more than a clip's length, which should not be silence.
    beyond = clip_audio_seconds(1, fps=fps) - 1 / fps
    seconds, start = seconds_of(request.track), request.track_offset_seconds or 0.0
    if seconds <= start:
        raise starts_too_late(request.track, seconds, start)
    left = seconds - start - beyond
    num_frames = frames_within(min(num_seconds, left), fps=fps, geometry=geometry)
    if left < num_seconds < math.inf:
        rank_zero_info(
            f"{request.track} ends before {num_seconds:g} s are over; its clip lasts "
            f"{num_frames / fps:.2f} s."
        )
    return num_frames


@lru_cache
def seconds_of(track: str) -> float:
    """How long a sound is."""
    rate_hz = 16_000
    return len(read_audio(track, rate_hz=rate_hz)) / rate_hz
