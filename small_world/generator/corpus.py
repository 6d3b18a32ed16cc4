"""Writing a small world to disk, and reading what was written."""

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from dance_eval.metrics.workers import WorkerLost, results_of
from datamodules.aist_names import AISTName, music_of, tables
from musicinfuser.atomic_files import write_text
from musicinfuser.errors import UserError
from musicinfuser.label_files import read_json
from musicinfuser.media.audio import write_wav
from musicinfuser.media.video_writing import write_video
from musicinfuser.setting_differences import flatten
from small_world.generator.aist_like import aist_piece, plan_aist, record_aist
from small_world.generator.music import BEATS_PER_BAR
from small_world.generator.recipe import SmallWorldRecipe
from small_world.generator.recordings import Recording
from small_world.generator.wild import WildItem, draw_wild, plan_wild, record_wild

FORMAT = 1
"""Raised whenever the same recipe would give other files."""

WORLD_FILE = "world.json"
Item = AISTName | WildItem | str
"""A video, or the code of a piece of music."""


def make_small_world(
    out: str | Path,
    recipe: SmallWorldRecipe | None = None,
    *,
    num_workers: int = 0,
    show_progress: bool = True,
    **options: Any,
) -> SmallWorldRecipe:
    """Make synthetic dance videos with music, as real files.

    ``aist/`` holds videos under AIST names, ``youtube/`` others with a caption beside each,
    ``music/`` the pieces as wav (those used, and always the ten held-out ones), and ``truth/`` a
    json per video and per piece with tempo, beats and joints, for evaluation only. Files that exist
    are kept, so an interrupted run is finished by repeating it.

    Args:
        out: Folder to write to; made if missing.
        recipe: What to make.
        num_workers: Processes that work beside each other; 0 works in this one. A script that asks
            for more needs an ``if __name__ == "__main__"`` guard, since they import it.
        show_progress: Draw a progress bar.
        **options: Fields of :class:`SmallWorldRecipe`, instead of ``recipe``.

    Returns:
        The recipe.

    Raises:
        ValueError: If the folder holds a world of another recipe or other files, or an option is
            out of its range.
    """
    if recipe is not None and options:
        raise UserError(f"Give either a recipe or its fields, not both ({', '.join(options)}).")
    recipe = recipe or SmallWorldRecipe(**options)
    out = Path(out)
    settings = {"format": FORMAT, "recipe": dataclasses.asdict(recipe)}
    require_same_settings(out / WORLD_FILE, settings, what="small world")
    if not (out / WORLD_FILE).is_file():
        write_text(out / WORLD_FILE, json.dumps(settings, indent=2) + "\n")
    # Recordings to the same piece stand together, since the last few pieces are remembered.
    aist = sorted(plan_aist(recipe), key=lambda name: (music_of(name) or ("",))[0])
    codes = sorted({name.music for name in aist if name.music} | tables().held_out_music)
    items: list[Item] = [*codes, *aist, *plan_wild(recipe)]
    missing = [
        item for item in items if not all(path.is_file() for path in _files(out, item, recipe))
    ]
    works = _make_all(out, missing, recipe, num_workers)
    desc, hidden = f"Small world in {out}", not show_progress
    for _ in tqdm(works, total=len(missing), desc=desc, disable=hidden):
        pass
    return recipe


def read_recipe(out: str | Path) -> SmallWorldRecipe:
    """The recipe of a small world on disk; `UserError` if the folder is none."""
    path = Path(out) / WORLD_FILE
    try:
        return SmallWorldRecipe(**read_json(path)["recipe"])
    except (UserError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} does not describe a small world ({error}); make one with "
            "`python -m small_world.generator`."
        ) from None


def read_truth(world: Path, video: Path) -> dict[str, Any]:
    """What is known of a video of a world; `UserError` if it was not written."""
    path = world / "truth" / f"{video.stem}.json"
    if not path.is_file():
        raise UserError(f"{path} is missing; finish the world by repeating its command.")
    return dict(json.loads(path.read_text("utf-8")))


def require_same_settings(path: Path, settings: Mapping[str, Any], *, what: str) -> None:
    """Refuse a folder that was made from other settings than those, or that holds other files.

    ``path`` is where it keeps its settings, ``what`` the kind of folder for the message.
    """
    out = path.parent
    if path.is_file():
        found, wanted = flatten(read_json(path)), flatten(dict(settings))
        differing = [
            f"{name.removeprefix('recipe.')} is {found.get(name)}, not {value}"
            for name, value in wanted.items()
            # What a folder was made before is not in its file.
            if found.get(name, type(value)()) != value
        ]
        if differing:
            raise UserError(
                f"{out} holds a {what} of other settings ({'; '.join(differing)}); choose another "
                "folder or delete it."
            )
    elif out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir()):
        raise UserError(f"{out} holds files that are no {what}; choose an empty folder.")


def write_recording(path: Path, recording: Recording) -> None:
    """Write frames and sound."""
    audio = None if recording.audio is None else torch.from_numpy(recording.audio)
    write_video(
        path,
        torch.from_numpy(recording.frames),
        fps=recording.fps,
        audio=audio,
        audio_rate_hz=None if audio is None else recording.audio_rate_hz,
    )


def write_truth(path: Path, truth: Mapping[str, Any]) -> None:
    """Write what is known of a clip or a piece."""
    write_text(path, json.dumps(truth, ensure_ascii=False) + "\n")


def _files(out: Path, item: Item, recipe: SmallWorldRecipe) -> list[Path]:
    """The sound or video first, the truth last."""
    if isinstance(item, str):
        folder, stem, suffixes = "music", item, [".wav"]
    elif isinstance(item, AISTName):
        folder, stem, suffixes = "aist", str(item), [".mp4"]
    else:
        stem = draw_wild(item.index, recipe.seed).title
        folder, suffixes = "youtube", [".mp4", ".txt"]
    files = [out / folder / f"{stem}{suffix}" for suffix in suffixes]
    return [*files, out / "truth" / f"{stem}.json"]


def _make_all(
    out: Path, items: list[Item], recipe: SmallWorldRecipe, num_workers: int
) -> Iterator[None]:
    if num_workers == 0 or not items:
        for item in items:
            _make(out, recipe, item)
            yield
        return
    work = functools.partial(_make, out, recipe)
    for number, lost in results_of(items, work, num_workers=num_workers, preloaded=[__name__]):
        if isinstance(lost, WorkerLost):
            raise UserError(f"{_files(out, items[number], recipe)[0].name}: {lost}")
        yield


def _make(out: Path, recipe: SmallWorldRecipe, item: Item) -> None:
    media, *captions, truth_file = _files(out, item, recipe)
    truth: dict[str, Any] = {"file": f"{media.parent.name}/{media.name}"}
    if isinstance(item, str):
        piece = aist_piece(item, recipe)
        write_wav(media, torch.from_numpy(piece.waveform), rate_hz=piece.rate_hz)
        truth |= {
            "source": "music",
            "music": item,
            "genre": piece.genre,
            "bpm": piece.bpm,
            "beats_seconds": [round(time, 5) for time in piece.beats_seconds],
            "beat_in_bar": [beat % BEATS_PER_BAR for beat in range(len(piece.beats_seconds))],
        }
    else:
        recording = (
            record_aist(item, recipe) if isinstance(item, AISTName) else record_wild(item, recipe)
        )
        for path in captions:
            write_text(path, f"{recording.truth['caption']}\n")
        write_recording(media, recording)
        truth |= recording.truth
    write_truth(truth_file, truth)
