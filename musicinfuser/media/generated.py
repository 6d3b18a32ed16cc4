"""Generated clips on disk: an mp4 with sound, a json beside it, and a manifest of the folder."""

import json
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from musicinfuser.atomic_files import write_json_lines, write_text
from musicinfuser.fingerprint import file_digest
from musicinfuser.generation_requests import MANIFEST_NAME, GenerationRequest
from musicinfuser.label_files import LabelError, parse_json, read_text
from musicinfuser.media.video_writing import write_video
from musicinfuser.version import PROGRAM, VERSION


@dataclass(frozen=True, kw_only=True)
class ManifestEntry(GenerationRequest):
    """One generated clip: what was asked, its start settled, and which file answers."""

    file: str
    """Relative to the manifest."""
    system: str
    fps: float
    num_steps: int
    guidance_scale: float
    padded_seconds: float
    """Silence added because the track, or the audio in its place, was shorter."""
    music_guidance_scale: float = 1.0
    negative_prompt: str = ""
    shift: float | None = None
    """Of noise levels towards noise; null: the family's."""
    solver: str = "euler"
    window_frames: int | None = None
    """Frames of a window; null for a clip of one pass."""
    window_overlap_frames: int | None = None
    """Frames that its windows share at least; null for a clip of one pass."""
    window_noise: str | None = None
    """What noise its windows start from; null for a clip of one pass."""
    sha256: str = ""
    """Of the mp4."""


def write_generated(
    folder: str | Path,
    entry: ManifestEntry,
    *,
    frames: Tensor | Iterable[Tensor],
    waveform: Tensor,
    audio_rate_hz: int,
) -> Path:
    """Write a clip and its description; the mp4 first, so a description means a whole clip.

    Args:
        folder: Output folder.
        entry: Its description; ``file`` decides the names.
        frames: ``(T, H, W, 3)`` uint8, or pieces of that in order, taken one at a time.
        waveform: ``(num_samples,)`` fp32 in [-1, 1].
        audio_rate_hz: Rate of ``waveform``.

    Returns:
        The path of the mp4.
    """
    path = Path(folder, entry.file)
    comment = {
        "prompt": entry.prompt,
        "seed": entry.seed,
        "track": entry.track,
        "track_offset_seconds": entry.track_offset_seconds,
        "version": VERSION,
    }
    if entry.heard is not None:
        comment["heard"] = entry.heard
    write_video(
        path,
        frames,
        fps=entry.fps,
        audio=waveform,
        audio_rate_hz=audio_rate_hz,
        comment=json.dumps(comment, ensure_ascii=False),
        description=f"{entry.prompt} (seed {entry.seed}, {PROGRAM} {VERSION})",
    )
    description = {"file": entry.file} | asdict(entry) | {"sha256": file_digest(path)}
    text = json.dumps(description, ensure_ascii=False, indent=1)
    write_text(path.with_suffix(".json"), f"{text}\n")
    return path


def write_manifest(folder: str | Path) -> Path:
    """Collect the descriptions in a folder into ``manifest.jsonl``, sorted by file name.

    Other files of that ending are none of ours; one that cannot be read is named in a warning.
    """
    folder = Path(folder)
    descriptions = []
    # A killed run may leave a temporary file, whose name starts with a dot.
    for path in sorted(p for p in folder.glob("*.json") if not p.name.startswith(".")):
        try:
            description = parse_json(read_text(path), path)
        except LabelError as error:
            warnings.warn(f"left out of {folder / MANIFEST_NAME}: {error}", stacklevel=2)
            continue
        if not isinstance(description, dict) or not {"sha256", "file"} <= description.keys():
            continue
        if Path(folder, str(description["file"])).is_file():
            descriptions.append(description)
    write_json_lines(folder / MANIFEST_NAME, descriptions)
    return folder / MANIFEST_NAME
