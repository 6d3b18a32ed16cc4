"""What `predict` generates: tracks x prompts x seeds."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from datamodules.aist_names import music_of, parse_name, tables
from musicinfuser.cells import Cell
from musicinfuser.clip_size import check_clip_size

AUDIO_SUFFIXES = (".wav", ".mp3", ".flac", ".ogg", ".m4a", ".aac", ".opus")
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm")
HELD_OUT = "held_out"


@dataclass(frozen=True)
class CellsSpec:
    """Every combination of tracks, prompts and seeds becomes one clip."""

    music: list[str] | str = HELD_OUT
    """Audio files (or videos, whose sound is used); ``held_out`` takes the ten tracks of Table 7
    from ``music_dir``."""
    music_dir: str | None = None
    """For ``held_out``: a folder with ``<code>.wav`` or another audio file per track, or AIST
    videos that play them."""
    prompts: list[str] | str = field(default_factory=list)
    """Prompts, or a yaml file with a list under ``prompts``."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Noise seeds; the same seed gives the same noise for every track and prompt."""
    track_offset_seconds: float | None = 0.0
    """Where a clip starts in its track; null draws a start per track and seed (authors' code)."""
    num_frames: int | None = None
    """Frames per clip, 6k + 1, if not those of the training clips (authors' code: 145)."""


def make_cells(spec: CellsSpec, *, num_frames: int, height: int, width: int) -> list[Cell]:
    """All cells, tracks outermost.

    Raises:
        ValueError: No prompt or seed, a file that does not exist, or a size Mochi cannot take.
    """
    if spec.num_frames is not None:
        num_frames = spec.num_frames
    check_clip_size(num_frames, height, width)
    prompts = _prompts(spec.prompts)
    if not spec.seeds:
        raise ValueError("data.generation.seeds is empty; name at least one.")
    return [
        Cell(
            track=str(track),
            prompt=prompt,
            seed=seed,
            num_frames=num_frames,
            height=height,
            width=width,
            track_offset_seconds=spec.track_offset_seconds,
        )
        for track in _tracks(spec)
        for prompt in prompts
        for seed in spec.seeds
    ]


def _prompts(prompts: list[str] | str) -> list[str]:
    if isinstance(prompts, str):
        path = Path(prompts)
        if not path.is_file():
            raise ValueError(
                f"data.generation.prompts names {path}, which does not exist; give a yaml file "
                "with a list under `prompts`, or a list like ['a dance video']."
            )
        content = yaml.safe_load(path.read_text())
        listed = content.get("prompts") if isinstance(content, dict) else None
        if not isinstance(listed, list) or not all(isinstance(p, str) for p in listed):
            raise ValueError(f"{path} must hold a list of texts under `prompts`.")
        prompts = listed
    if not prompts:
        raise ValueError("data.generation.prompts is empty; give at least one prompt.")
    return prompts


def _tracks(spec: CellsSpec) -> list[Path]:
    if spec.music == HELD_OUT:
        if spec.music_dir is None:
            raise ValueError(
                "data.generation.music is held_out, which needs data.generation.music_dir: a "
                "folder with the ten tracks of Table 7 or AIST videos that play them."
            )
        return held_out_tracks(Path(spec.music_dir))
    names = [spec.music] if isinstance(spec.music, str) else spec.music
    tracks = [Path(name) for name in names]
    missing = [track for track in tracks if not track.is_file()]
    if missing:
        raise ValueError(f"data.generation.music names {missing[0]}, which does not exist.")
    return tracks


def held_out_tracks(folder: Path) -> list[Path]:
    """One file per held-out track: an audio file named by its code, else a video that plays it.

    Raises:
        ValueError: A track of the ten is not there; names all that are missing.
    """
    if not folder.is_dir():
        raise ValueError(f"data.generation.music_dir names {folder}, which is not a folder.")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    by_code: dict[str, Path] = {}
    for path in files:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            name = parse_name(path.name)
            heard = (music_of(name) or ()) if name else ()
            if len(heard) == 1:
                by_code.setdefault(heard[0], path)
    by_code |= {path.stem: path for path in files if path.suffix.lower() in AUDIO_SUFFIXES}
    codes = sorted(tables().held_out_music)
    missing = [code for code in codes if code not in by_code]
    if missing:
        raise ValueError(
            f"{folder} has no file for the held-out tracks {', '.join(missing)}; name audio files "
            "by their code (mBR0.wav) or give a folder of AIST videos."
        )
    return [by_code[code] for code in codes]
