"""A test set of the small world: ground truth, its music, what is true of it, and requests.

    python -m small_world.generator.test_set WORLD OUT --num-clips 96 --tempo 0.75 1.25

Clips are cut as the encode job cuts them. ``OUT`` then holds

- ``ground_truth/``: the clips with sound, and a ``clips.csv`` for ``evaluate.py``;
- ``music/<clip>.wav``: what is heard from the clip's first frame on;
- ``truth/<clip>.json``: beats on the clip's clock, joints in its frames, and what else is known;
- ``own.csv``, ``other.csv``, ``nothing.csv``: lists for ``predict`` (``data.generation.requests``).
  Every request has the music and caption of a clip, and its number as seed; the model hears that
  music, the music of another clip, or nothing;
- ``tempo_<F>/`` per factor F: the same dancers and pieces at F times the tempo, with ground truth,
  music, truth and ``own.csv``.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from tqdm import tqdm

from datamodules.aist_names import parse_name
from datamodules.clips import RawClip
from datamodules.cutting import ClipDataset
from musicinfuser.atomic_files import write_text
from musicinfuser.errors import UserError, in_one_sentence
from musicinfuser.generation_requests import NO_AUDIO
from musicinfuser.media.audio import clip_audio_seconds, read_audio, write_wav
from musicinfuser.media.video_writing import write_video
from musicinfuser.number_names import exact_name
from musicinfuser.tables import Row, csv_table
from small_world.generator.aist_like import record_aist
from small_world.generator.chosen_clips import (
    FPS,
    Choice,
    Take,
    TestSource,
    Truth,
    choose,
    clip_truth,
    cut_dataset,
    decoded,
)
from small_world.generator.corpus import read_recipe
from small_world.generator.recipe import SmallWorldRecipe
from small_world.generator.wild import WildItem, record_wild

FORMAT = 1
"""Raised whenever the same settings would give other files."""

SETTINGS_FILE = "settings.json"
SPARE_SECONDS = 0.1
"""Sound beyond what the model hears; less than the margin that every cut leaves at the end."""

MIN_TEMPO, MAX_TEMPO = 0.5, 2.0


@dataclass(frozen=True)
class Part:
    """The clips at one tempo, in a folder of their own."""

    folder: Path
    tempo: float | None = None
    """None: the videos of the world as they are."""

    def files(self, take: Take) -> dict[str, Path]:
        """All files of a clip."""
        return {
            "video": self.folder / "ground_truth" / f"{take.name}.mp4",
            "music": self.folder / "music" / f"{take.name}.wav",
            "truth": self.folder / "truth" / f"{take.name}.json",
        }

    def lists(self, takes: Sequence[Take]) -> dict[Path, list[Row]]:
        """All lists, by file."""
        system = (
            "ground truth"
            if self.tempo is None
            else f"ground truth at tempo {exact_name(self.tempo)}"
        )
        clips: list[Row] = []
        own: list[dict[str, str | int]] = []
        for take in takes:
            track, prompt = f"music/{take.name}.wav", take.spec.caption
            clips.append(
                {
                    "file": f"{take.name}.mp4",
                    "system": system,
                    "track": f"../{track}",
                    "track_offset_seconds": 0.0,
                    "prompt": prompt,
                }
            )
            own.append(
                {
                    "track": track,
                    "prompt": prompt,
                    "seed": take.number,
                    "num_frames": take.spec.num_frames,
                }
            )
        lists: dict[Path, list[Row]] = {
            self.folder / "ground_truth" / "clips.csv": clips,
            self.folder / "own.csv": [*own],
        }
        if self.tempo is None:
            heard = [own[number]["track"] for number in other_music(takes)]
            lists[self.folder / "other.csv"] = [
                {**row, "heard": track} for row, track in zip(own, heard, strict=True)
            ]
            lists[self.folder / "nothing.csv"] = [{**row, "heard": NO_AUDIO} for row in own]
        return lists


def make_test_set(
    world: str | Path,
    out: str | Path,
    choice: Choice,
    *,
    tempos: Sequence[float] = (),
    show_progress: bool = True,
) -> None:
    """Make a test set. Files that exist are kept, so an interrupted run is finished by repeating.

    Args:
        world: A small world on disk, of a seed that no training saw.
        out: Folder to write to; made if missing.
        choice: Which clips.
        tempos: Factors of further parts, 0.5 to 2; they may also be added later.
        show_progress: Draw a progress bar.

    Raises:
        ValueError: If ``world`` is no small world or has too few videos of the kind, ``out`` holds
            a test set of other settings or other files, a tempo is out of its range or leaves a
            video too short for a clip, or one piece fills more than half of the set.
    """
    world, out = Path(world), Path(out)
    recipe = read_recipe(world)
    made_from = {f"world.{name}": value for name, value in dataclasses.asdict(recipe).items()}
    settings = {"format": FORMAT, **dataclasses.asdict(choice), **made_from}
    _require_own(out, settings)
    dataset, takes = choose(world, choice)
    for tempo in tempos:
        _require_room(tempo, takes, dataset)
    parts = [Part(out), *(Part(out / f"tempo_{exact_name(t)}", t) for t in dict.fromkeys(tempos))]
    lists = {path: rows for part in parts for path, rows in part.lists(takes).items()}
    if not (out / SETTINGS_FILE).is_file():
        write_text(out / SETTINGS_FILE, json.dumps(settings, indent=2) + "\n")
    missing = [
        (part, take)
        for part in parts
        for take in takes
        if not all(path.is_file() for path in part.files(take).values())
    ]
    for part, take in tqdm(missing, desc=f"Test set in {out}", disable=not show_progress):
        if part.tempo is None:
            index = dataset.clips.index(take.spec)
            _write_clip(part, take, decoded(dataset, index), take.truth, recipe)
        else:
            _write_at_tempo(part, take, choice, recipe)
    for path, rows in lists.items():
        if not path.is_file():
            write_text(path, csv_table(rows))


def other_music(takes: Sequence[Take]) -> list[int]:
    """Per clip the number of the clip whose music it hears instead: a derangement.

    Every music is heard once, by a clip to another piece. In order of tempo everyone hears the
    music half a set further on, so tempos are far apart wherever they differ at all.

    Raises:
        ValueError: If one piece fills more than half of the set.
    """
    by_tempo = sorted(takes, key=lambda take: (take.truth["bpm"], take.truth["music"], take.number))
    half = len(takes) // 2
    heard = {
        take.number: by_tempo[(place + half) % len(takes)] for place, take in enumerate(by_tempo)
    }
    for take in takes:
        if heard[take.number].truth["music"] == take.truth["music"]:
            raise UserError(
                f"More than half of the {len(takes)} clips dance to {take.truth['music']}, so not "
                "each can hear another piece; ask for more clips, or make another world."
            )
    return [heard[take.number].number for take in takes]


def _require_own(out: Path, settings: dict[str, Any]) -> None:
    path = out / SETTINGS_FILE
    if path.is_file():
        found = json.loads(path.read_text("utf-8"))
        differing = [
            f"{name} is {found.get(name)}, not {value}"
            for name, value in settings.items()
            if found.get(name) != value
        ]
        if differing:
            raise UserError(
                f"{out} holds a test set of other settings ({'; '.join(differing)}); choose "
                "another folder or delete it."
            )
    elif out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir()):
        raise UserError(f"{out} holds files that are no test set; choose an empty folder.")


def _require_room(tempo: float, takes: Sequence[Take], dataset: ClipDataset) -> None:
    if not MIN_TEMPO <= tempo <= MAX_TEMPO:
        raise UserError(f"tempo is {tempo}; give {MIN_TEMPO:g} to {MAX_TEMPO:g} times.")
    for take in takes:
        seconds = take.truth["num_frames"] / take.truth["fps"]
        # A dance from the wild is as long at any tempo, one under an AIST name has as many beats.
        seconds /= tempo if take.spec.source == "aist" else 1.0
        if not dataset.has_room(seconds):
            raise UserError(
                f"tempo {tempo:g} leaves {seconds:.2f} s of {take.spec.path.name}, too little for "
                f"{take.spec.num_frames} frames; choose a slower one or fewer frames."
            )


def _write_at_tempo(part: Part, take: Take, choice: Choice, recipe: SmallWorldRecipe) -> None:
    """Record the video again at another tempo and cut it the same way."""
    assert part.tempo is not None
    if take.spec.source == "aist":
        name = parse_name(take.spec.path)
        assert name is not None
        recording = record_aist(name, recipe, tempo=part.tempo)
    else:
        index = int(take.truth["music"].removeprefix("wild "))
        recording = record_wild(WildItem(index, "music"), recipe, tempo=part.tempo)
    assert recording.audio is not None
    with tempfile.TemporaryDirectory() as folder:
        write_video(
            Path(folder, take.spec.path.name),
            torch.from_numpy(recording.frames),
            fps=recording.fps,
            audio=torch.from_numpy(recording.audio),
            audio_rate_hz=recording.audio_rate_hz,
        )
        dataset = cut_dataset(Path(folder), choice, [take.spec.path.name])
        truth = {"file": take.truth["file"], **recording.truth, "tempo": part.tempo}
        _write_clip(part, take, decoded(dataset, 0), truth, recipe)


def _write_clip(
    part: Part, take: Take, clip: RawClip, truth: Truth, recipe: SmallWorldRecipe
) -> None:
    files, spec = part.files(take), clip.spec
    sound = read_audio(
        spec.path,
        rate_hz=recipe.audio_rate_hz,
        start_seconds=spec.start_seconds,
        duration_seconds=clip_audio_seconds(spec.num_frames, fps=FPS) + SPARE_SECONDS,
    )
    write_video(
        files["video"], clip.frames, fps=FPS, audio=sound, audio_rate_hz=recipe.audio_rate_hz
    )
    write_wav(files["music"], sound, rate_hz=recipe.audio_rate_hz)
    known = clip_truth(
        truth,
        spec,
        prompt=take.spec.caption,
        sound_seconds=len(sound) / recipe.audio_rate_hz,
    )
    write_text(files["truth"], json.dumps(known, ensure_ascii=False) + "\n")


def main(args: Sequence[str] | None = None) -> int:
    """Read the command line and make the test set; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m small_world.generator.test_set",
        description="Cut a test set from a small world that no training saw.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("world", metavar="WORLD", help="folder of a small world")
    parser.add_argument("out", metavar="OUT", help="folder to write to")
    default = Choice()
    parser.add_argument("--num-clips", type=int, default=default.num_clips)
    parser.add_argument(
        "--source",
        choices=get_args(TestSource),
        default=default.source,
        help="held-out music from the front, or videos from the wild",
    )
    parser.add_argument("--num-frames", type=int, default=default.num_frames, help="6k + 1")
    parser.add_argument(
        "--seed", type=int, default=default.seed, help="seed of clip starts and caption templates"
    )
    parser.add_argument(
        "--several-dancers", action="store_true", help="take clips of more than one dancer too"
    )
    parser.add_argument(
        "--tempo", type=float, nargs="*", default=[], metavar="F",
        help="further parts at so many times the tempo",
    )  # fmt: skip
    options = vars(parser.parse_args(args))
    world, out, tempos = options.pop("world"), options.pop("out"), options.pop("tempo")
    try:
        make_test_set(world, out, Choice(**options), tempos=tempos)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    with in_one_sentence("test_set"):
        sys.exit(main())
