"""Finding the cuts of videos: each file is decoded once, whole, and what was found is kept."""

import json
import os
import random
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from tqdm import tqdm

from datamodules.clips import SourceVideo
from datamodules.shots import ShotSettings
from musicinfuser.atomic_files import write_text
from musicinfuser.errors import UserError
from musicinfuser.label_files import LabelError, read_json
from musicinfuser.media.decoding import TIME_LIMIT_SECONDS
from musicinfuser.media.errors import MediaError, printable
from musicinfuser.media.video import VideoInfo, small_frames
from musicinfuser.number_names import exact_name

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
"""Times in seconds, why there are none, or None where nobody has looked yet."""


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
    leaves out what another has done by then.

    Args:
        videos: The files; names of what is kept come from ``clip_stem``.
        infos: Length of each, by path.
        settings: Detector and folder.
        time_limit_seconds: When a file is given up, and 20 more for each of its own seconds.
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
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        results = pool.map(find, missing)
        found |= dict(tqdm(results, "finding cuts", len(missing), unit="file"))
    return found


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
        # The rate is of no consequence: nothing is asked of the detector in seconds.
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
