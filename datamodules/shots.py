"""Shots, the stretches between a video's cuts: finding the cuts, and where in shots clips start.

Each file is decoded once, from start to end, and what was found is kept.
"""

import json
import math
import os
import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import Tensor
from tqdm.contrib.concurrent import thread_map

from datamodules.clips import SourceVideo
from musicinfuser.atomic_files import write_text
from musicinfuser.errors import UserError
from musicinfuser.label_files import LabelError, read_json
from musicinfuser.media.decoding import TIME_LIMIT_SECONDS
from musicinfuser.media.errors import MediaError, printable
from musicinfuser.media.video import VideoInfo, small_frames
from musicinfuser.number_names import exact_name
from musicinfuser.setting_checks import check_choice, check_number

if TYPE_CHECKING:
    from scenedetect import SceneDetector

NUM_THREADS = 8
LONGEST_SIDE_PX = 256
"""PySceneDetect shrinks to about as much."""
SLOWEST_DECODING = 20.0
"""Seconds granted per second of video; large pictures on one busy core take several."""
_ADAPTIVE_WINDOW = 2
_stored_only: ContextVar[bool] = ContextVar("stored_only", default=False)

Cuts = list[float] | MediaError | None
"""Times in seconds, why there are none, or None where they are not known yet."""
Detector = Literal["adaptive", "content"]


@dataclass(frozen=True)
class ShotSettings:
    """How cuts are found, so that no clip crosses one.

    The paper and the authors' code say nothing of cuts; they cut clips anywhere.

    Attributes:
        detector: A detector of PySceneDetect. ``"adaptive"`` compares the change from frame to
            frame with the changes around it, so that fast movement is not taken for a cut;
            ``"content"`` takes every large change for one, so also a flash.
        threshold: Lower finds more cuts. None is PySceneDetect's own value: 3 times the changes
            around for ``"adaptive"``, 27 of 255 for ``"content"``.
        margin_seconds: How far clips stay from a cut. Frames beside one are often blended with the
            other shot, and of cuts within two frames of each other ``"adaptive"`` may see only the
            larger change.
        min_seconds: Shots that are shorter, margins taken off, give no clip; those shorter than a
            clip never do.
        folder: Where the cuts of each file are kept, so that each is decoded once.
    """

    detector: Detector = "adaptive"
    threshold: float | None = None
    margin_seconds: float = 0.1
    min_seconds: float = 0.0
    folder: str = "cache/shots"

    def __post_init__(self) -> None:
        """Check ranges."""
        check_choice("shots.detector", self.detector, get_args(Detector))
        check_number("shots.threshold", self.threshold, above=0)
        check_number("shots.margin_seconds", self.margin_seconds, at_least=0)
        check_number("shots.min_seconds", self.min_seconds, at_least=0)


@dataclass(frozen=True)
class Shot:
    """A stretch of video without a cut, in seconds from the first frame."""

    start_seconds: float
    end_seconds: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end_seconds - self.start_seconds

    def latest_start(self, clip_seconds: float) -> float:
        """When a clip must start to end with the shot."""
        return self.end_seconds - clip_seconds

    def has_room(self, clip_seconds: float) -> bool:
        """Whether a clip of this length fits."""
        return self.latest_start(clip_seconds) >= self.start_seconds

    def reason_to_skip(self, clip_seconds: float, min_seconds: float = 0.0) -> str | None:
        """Why no clip is cut from it, or None."""
        if not self.has_room(clip_seconds):
            return "shot shorter than a clip"
        return "shot shorter than min_seconds" if self.seconds < min_seconds else None

    def __str__(self) -> str:
        """For people."""
        return f"{self.start_seconds:.3f}-{self.end_seconds:.3f} s"


def shots_between(
    cuts_seconds: Iterable[float],
    duration_seconds: float,
    *,
    edge_margin: float,
    margin_seconds: float = 0.0,
) -> list[Shot]:
    """The shots of a video, without the margins at its ends and at its cuts.

    Args:
        cuts_seconds: Times of each first frame of a new shot, in order.
        duration_seconds: Length of the video.
        edge_margin: Part of the video at each end that belongs to no shot, in [0, 0.5).
        margin_seconds: What belongs to no shot before and after each cut; of a shot that is shorter
            nothing is left.
    """
    first, last = edge_margin * duration_seconds, (1 - edge_margin) * duration_seconds
    cuts = [cut for cut in cuts_seconds if first < cut < last]
    starts = [first, *(cut + margin_seconds for cut in cuts)]
    ends = [*(cut - margin_seconds for cut in cuts), last]
    return [Shot(a, max(a, b)) for a, b in zip(starts, ends, strict=True)]


def place(
    draw: float, shots: Sequence[Shot], *, lengths: Mapping[int, float]
) -> tuple[Shot, int, float]:
    """Which shot a draw falls into, and the frames and the start of the clip there.

    Shots are met as often as they are long, starts within one evenly.

    Args:
        draw: In [0, 1).
        shots: None is shorter than the shortest clip.
        lengths: Seconds of a clip by its frames; the most that fit into the shot are taken.
    """
    total = sum(shot.seconds for shot in shots)
    for shot in shots:
        share = shot.seconds / total
        if draw < share:
            break
        draw -= share
    else:
        # Only rounding leads past the last one.
        draw = share
    num_frames = max(n for n, seconds in lengths.items() if shot.has_room(seconds))
    room = shot.latest_start(lengths[num_frames]) - shot.start_seconds
    return shot, num_frames, shot.start_seconds + draw / share * room


def num_crops(duration_seconds: float, *, crops_per_minute: float) -> int:
    """Number of clips cut from a file: so many per minute, rounded up (authors' code)."""
    return math.ceil(round(crops_per_minute * duration_seconds / 60, 9))


@contextmanager
def stored_cuts_only() -> Iterator[None]:
    """Look at no video inside the block: cuts that are not stored stay unknown."""
    token = _stored_only.set(True)
    try:
        yield
    finally:
        _stored_only.reset(token)


def require_detector() -> None:
    """Refuse to start without PySceneDetect, with the command that installs it."""
    try:
        import scenedetect  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"'shots' needs PySceneDetect, which cannot be loaded ({error}); install it with "
            "`pip install '.[shots]'`, or set shots to null to cut clips anywhere, also across "
            "cuts."
        ) from error


def find_cuts(
    videos: Collection[SourceVideo],
    infos: Mapping[Path, VideoInfo],
    settings: ShotSettings,
    *,
    time_limit_seconds: float,
) -> dict[Path, Cuts]:
    """The cuts of every video, from the folder of the settings or by looking for them.

    Several processes may do this at once: each goes through the files in an order of its own and
    leaves out what another has done by then. A file is given up after the time limit and 20 seconds
    more for each of its own.
    """
    found: dict[Path, Cuts] = {video.path: _read(video, settings) for video in videos}
    missing = [video for video in videos if found[video.path] is None]
    if _stored_only.get() or not missing:
        return found

    def find(video: SourceVideo) -> tuple[Path, Cuts]:
        cuts = _read(video, settings)
        if cuts is None:
            limit = time_limit_seconds + SLOWEST_DECODING * infos[video.path].duration_seconds
            try:
                cuts = detect_cuts(video.path, settings, time_limit_seconds=limit)
            except MediaError as error:
                return video.path, error
            _write(video, settings, cuts)
        return video.path, cuts

    random.SystemRandom().shuffle(missing)
    options = {"desc": "finding cuts", "unit": "file"}
    return found | dict(thread_map(find, missing, max_workers=NUM_THREADS, **options))


def detect_cuts(
    path: Path | str, settings: ShotSettings, *, time_limit_seconds: float = TIME_LIMIT_SECONDS
) -> list[float]:
    """Decode a whole video and find its hard cuts.

    Returns:
        Seconds from the first frame to the first frame of each new shot, in order. Fades, and cuts
        between pictures that hardly differ, are not found.

    Raises:
        MediaError: If the file cannot be read to its end, or not in time.
    """
    from scenedetect import FrameTimecode

    detector = _detector(settings)
    frames = small_frames(path, longest_side=LONGEST_SIDE_PX, time_limit_seconds=time_limit_seconds)
    times: list[float] = []
    cuts: list[float] = []
    for number, (seconds, frame) in enumerate(_with_held_ends(frames)):
        times.append(seconds)
        # The rate does not matter: the detector gets no option in seconds.
        position = FrameTimecode(number, fps=1.0)
        bgr = frame.flip(-1).contiguous().numpy()
        cuts += (times[cut.frame_num] for cut in detector.process_frame(position, bgr))
    return cuts


def _with_held_ends(frames: Iterator[tuple[float, Tensor]]) -> Iterator[tuple[float, Tensor]]:
    """First and last frame repeated: cuts near the ends, which are common, are found only so."""
    first = last = next(frames)
    yield from repeat(first, _ADAPTIVE_WINDOW)
    for last in chain([first], frames):
        yield last
    yield from repeat(last, _ADAPTIVE_WINDOW)


def _detector(settings: ShotSettings) -> "SceneDetector":
    from scenedetect import AdaptiveDetector, ContentDetector

    # No least length: PySceneDetect would join what is shorter to the shot before or after it.
    options: dict[str, Any] = {"min_scene_len": 0}
    is_adaptive = settings.detector == "adaptive"
    if is_adaptive:
        options["window_width"] = _ADAPTIVE_WINDOW
    if settings.threshold is not None:
        options["adaptive_threshold" if is_adaptive else "threshold"] = settings.threshold
    return (AdaptiveDetector if is_adaptive else ContentDetector)(**options)


def _kept_path(video: SourceVideo, settings: ShotSettings) -> Path:
    threshold = "" if settings.threshold is None else f"-{exact_name(settings.threshold)}"
    return Path(settings.folder, f"{settings.detector}{threshold}", f"{video.clip_stem}.json")


def _identity(path: Path) -> dict[str, int]:
    """What changes with the content of a file; whole seconds, since archives keep no more."""
    status = os.stat(path)
    return {"size_bytes": status.st_size, "modified_seconds": int(status.st_mtime)}


def _read(video: SourceVideo, settings: ShotSettings) -> list[float] | None:
    """The cuts that are kept for this very file, or None."""
    with suppress(OSError, LabelError, KeyError):
        kept = read_json(_kept_path(video, settings))
        if kept.items() >= _identity(video.path).items():
            return kept["cuts_seconds"]
    return None


def _write(video: SourceVideo, settings: ShotSettings, cuts: list[float]) -> None:
    name = printable(video.attributes["file"])
    kept = {"file": name, **_identity(video.path), "cuts_seconds": cuts}
    write_text(_kept_path(video, settings), json.dumps(kept, ensure_ascii=False) + "\n")
