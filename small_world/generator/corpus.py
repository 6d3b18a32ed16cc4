"""Writing a small world to disk."""

import dataclasses
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from datamodules.aist_names import tables
from musicinfuser.atomic_files import atomic_file
from musicinfuser.errors import UserError
from musicinfuser.media.audio import write_wav
from musicinfuser.media.video_writing import write_video
from small_world.generator.aist_like import AISTItem, aist_piece, plan_aist, record_aist
from small_world.generator.music import BEATS_PER_BAR
from small_world.generator.recipe import SmallWorldRecipe
from small_world.generator.recordings import Recording
from small_world.generator.wild import WildItem, draw_wild, plan_wild, record_wild

FORMAT = 1
"""Raised whenever the same recipe would give other files."""

WORLD_FILE = "world.json"
Item = AISTItem | WildItem | str


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
    _claim(out, recipe)
    missing = [item for item in _items(recipe) if not _is_made(out, item, recipe)]
    bar = tqdm(total=len(missing), desc=f"Small world in {out}", disable=not show_progress)
    with bar:
        for _ in _make_all(out, missing, recipe, num_workers):
            bar.update()
    return recipe


def read_recipe(out: str | Path) -> SmallWorldRecipe:
    """The recipe of a small world on disk.

    Raises:
        ValueError: If the folder is none.
    """
    path = Path(out) / WORLD_FILE
    try:
        content = json.loads(path.read_text("utf-8"))
        return SmallWorldRecipe(**content["recipe"])
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} does not describe a small world ({error}); make one with "
            "`python -m small_world.generator`."
        ) from None


def _claim(out: Path, recipe: SmallWorldRecipe) -> None:
    wanted = {"format": FORMAT, "recipe": dataclasses.asdict(recipe)}
    path = out / WORLD_FILE
    if path.is_file():
        found = {"format": json.loads(path.read_text("utf-8")).get("format")}
        found["recipe"] = dataclasses.asdict(read_recipe(out))
        if found["format"] != FORMAT:
            raise UserError(
                f"{out} holds a small world of format {found['format']}, not {FORMAT}; choose "
                "another folder or delete it."
            )
        differing = [
            f"{name} is {found['recipe'][name]}, not {value}"
            for name, value in dataclasses.asdict(recipe).items()
            if found["recipe"][name] != value
        ]
        if differing:
            raise UserError(
                f"{out} holds a small world of another recipe ({'; '.join(differing)}); choose "
                "another folder or delete it."
            )
        return
    if out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir()):
        raise UserError(f"{out} holds files that are no small world; choose an empty folder.")
    _write_text(path, json.dumps(wanted, indent=2) + "\n")


def _items(recipe: SmallWorldRecipe) -> list[Item]:
    aist = plan_aist(recipe)
    # Recordings to the same piece stand together, since the last few pieces are remembered.
    aist.sort(key=lambda item: item.music)
    codes = sorted({item.name.music for item in aist if item.name.music} | tables().held_out_music)
    return [*codes, *aist, *plan_wild(recipe)]


def _files(out: Path, item: Item, recipe: SmallWorldRecipe) -> dict[str, Path]:
    if isinstance(item, str):
        return {"wav": out / "music" / f"{item}.wav", "truth": out / "truth" / f"{item}.json"}
    if isinstance(item, AISTItem):
        stem = str(item.name)
        return {"video": out / "aist" / f"{stem}.mp4", "truth": out / "truth" / f"{stem}.json"}
    stem = draw_wild(item.index, recipe.seed).title
    return {
        "video": out / "youtube" / f"{stem}.mp4",
        "caption": out / "youtube" / f"{stem}.txt",
        "truth": out / "truth" / f"{stem}.json",
    }


def _is_made(out: Path, item: Item, recipe: SmallWorldRecipe) -> bool:
    return all(path.is_file() for path in _files(out, item, recipe).values())


def _make_all(
    out: Path, items: list[Item], recipe: SmallWorldRecipe, num_workers: int
) -> Iterator[None]:
    if num_workers == 0 or not items:
        for item in items:
            _make(out, item, recipe)
            yield
        return
    # Spawned, since a fork would copy the threads' locks of torch and PyAV.
    pool = ProcessPoolExecutor(
        num_workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    )
    with pool:
        for done in as_completed([pool.submit(_make, out, item, recipe) for item in items]):
            done.result()
            yield


def _make(out: Path, item: Item, recipe: SmallWorldRecipe) -> None:
    files = _files(out, item, recipe)
    if isinstance(item, str):
        piece = aist_piece(item, recipe)
        write_wav(files["wav"], torch.from_numpy(piece.waveform), rate_hz=piece.rate_hz)
        truth: dict[str, Any] = {
            "file": f"music/{files['wav'].name}",
            "source": "music",
            "music": item,
            "genre": piece.genre,
            "bpm": piece.bpm,
            "beats_seconds": [round(time, 5) for time in piece.beats_seconds],
            "beat_in_bar": [beat % BEATS_PER_BAR for beat in range(len(piece.beats_seconds))],
        }
    else:
        if isinstance(item, AISTItem):
            recording = record_aist(item.name, recipe)
        else:
            recording = record_wild(item, recipe)
        _write_recording(files, recording)
        truth = {"file": f"{files['video'].parent.name}/{files['video'].name}", **recording.truth}
    _write_text(files["truth"], json.dumps(truth, ensure_ascii=False) + "\n")


def _write_recording(files: dict[str, Path], recording: Recording) -> None:
    audio = recording.audio
    if recording.caption is not None:
        _write_text(files["caption"], recording.caption + "\n")
    write_video(
        files["video"],
        torch.from_numpy(recording.frames),
        fps=recording.fps,
        audio=None if audio is None else torch.from_numpy(audio),
        audio_rate_hz=None if audio is None else recording.audio_rate_hz,
    )


def _write_text(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, "utf-8")
