"""A test set of the small world: ground truth, its music, what is true of it, and requests.

    python -m small_world.generator.test_set WORLD OUT --num-clips 96 --tempo 0.75 1.25

Clips are cut as the encode job cuts them. ``OUT`` then holds

- ``ground_truth/``: the clips with sound, and a ``clips.csv`` for ``evaluate.py``;
- ``music/<clip>.wav``: the music from the clip's first frame on;
- ``truth/<clip>.json``: beats on the clip's clock, joints in its frames, and what else is known;
- ``own.csv``, ``other.csv``, ``nothing.csv``: lists for ``predict`` (``data.generation.requests``).
  Every request has the music and caption of a clip, and its number as seed; it is conditioned on
  that music, the music of another clip, or no audio;
- ``tempo_<F>/`` per factor F: the same dancers and pieces at F times the tempo, with ground truth,
  music, truth and ``own.csv``.
"""

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from dance_eval.tables import csv_table
from datamodules.aist_names import parse_name
from datamodules.clips import RawClip
from datamodules.cutting import ClipDataset
from musicinfuser.atomic_files import write_text
from musicinfuser.errors import UserError, in_one_sentence
from musicinfuser.generation_requests import NO_AUDIO
from musicinfuser.media.audio import clip_audio_seconds, read_audio, write_wav
from musicinfuser.media.video_writing import write_video
from musicinfuser.number_names import exact_name
from musicinfuser.setting_checks import check_number
from musicinfuser.tables import Row
from small_world.generator.aist_like import record_aist
from small_world.generator.corpus import (
    read_recipe,
    require_same_settings,
    write_recording,
    write_truth,
)
from small_world.generator.recipe import SmallWorldRecipe, parser_of
from small_world.generator.test_clips import (
    FPS,
    Choice,
    Take,
    Truth,
    choose,
    clip_truth,
    cut_dataset,
    decoded,
)
from small_world.generator.wild import WildItem, record_wild

FORMAT = 1
"""Raised whenever the same settings would give other files."""

SETTINGS_FILE = "settings.json"
SPARE_SECONDS = 0.1
"""Sound beyond what a clip is conditioned on; less than the margin that cuts leave at the end."""

MIN_TEMPO, MAX_TEMPO = 0.5, 2.0


def _lists(takes: Sequence[Take], tempo: float | None) -> dict[str, list[Row]]:
    """The rows of all lists of one tempo, by file; None: the videos as they are."""
    system = "ground truth" + ("" if tempo is None else f" at tempo {exact_name(tempo)}")
    clips: list[Row] = []
    own: list[dict[str, str | int]] = []
    for take in takes:
        track, prompt = f"music/{take.name}.wav", take.spec.caption
        listed = {"file": f"{take.name}.mp4", "system": system, "track": f"../{track}"}
        clips.append({**listed, "track_offset_seconds": 0.0, "prompt": prompt})
        frames = take.spec.num_frames
        own.append({"track": track, "prompt": prompt, "seed": take.number, "num_frames": frames})
    lists: dict[str, list[Row]] = {"ground_truth/clips.csv": clips, "own.csv": [*own]}
    if tempo is None:
        others = [own[number]["track"] for number in other_music(takes)]
        lists["other.csv"] = [
            {**row, "heard": track} for row, track in zip(own, others, strict=True)
        ]
        lists["nothing.csv"] = [{**row, "heard": NO_AUDIO} for row in own]
    return lists


def _files(folder: Path, take: Take) -> tuple[Path, Path, Path]:
    """Video, music and truth of a clip."""
    return (
        folder / "ground_truth" / f"{take.name}.mp4",
        folder / "music" / f"{take.name}.wav",
        folder / "truth" / f"{take.name}.json",
    )


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
    require_same_settings(out / SETTINGS_FILE, settings, what="test set")
    dataset, takes = choose(world, choice)
    for tempo in tempos:
        _require_room(tempo, takes, dataset)
    parts: dict[float | None, Path] = {None: out}
    parts |= {tempo: out / f"tempo_{exact_name(tempo)}" for tempo in tempos}
    lists = {
        folder / name: rows
        for tempo, folder in parts.items()
        for name, rows in _lists(takes, tempo).items()
    }
    if not (out / SETTINGS_FILE).is_file():
        write_text(out / SETTINGS_FILE, json.dumps(settings, indent=2) + "\n")
    missing = [
        (tempo, take, files)
        for tempo, folder in parts.items()
        for take in takes
        for files in [_files(folder, take)]
        if not all(path.is_file() for path in files)
    ]
    for tempo, take, files in tqdm(missing, f"Test set in {out}", disable=not show_progress):
        if tempo is None:
            clip = decoded(dataset, dataset.clips.index(take.spec))
            _write_clip(files, clip, take.truth, take.spec.caption, recipe)
        else:
            _write_at_tempo(tempo, take, files, choice, recipe)
    for path, rows in lists.items():
        if not path.is_file():
            write_text(path, csv_table(rows))


def other_music(takes: Sequence[Take]) -> list[int]:
    """Per clip the number of the clip whose music replaces its own: a derangement.

    Every music is used once, for a clip to another piece. In order of tempo it is the music half a
    set further on, so tempos are far apart wherever they differ at all.

    Raises:
        ValueError: If one piece fills more than half of the set.
    """
    by_tempo = sorted(takes, key=lambda take: (take.truth["bpm"], take.truth["music"], take.number))
    half = len(takes) // 2
    others = {
        take.number: by_tempo[(place + half) % len(takes)] for place, take in enumerate(by_tempo)
    }
    for take in takes:
        if others[take.number].truth["music"] == take.truth["music"]:
            raise UserError(
                f"More than half of the {len(takes)} clips dance to {take.truth['music']}, so not "
                "each can get another piece; ask for more clips, or make another world."
            )
    return [others[take.number].number for take in takes]


def _require_room(tempo: float, takes: Sequence[Take], dataset: ClipDataset) -> None:
    check_number("tempo", tempo, at_least=MIN_TEMPO, at_most=MAX_TEMPO)
    for take in takes:
        seconds = take.truth["num_frames"] / take.truth["fps"]
        # A dance from the wild is as long at any tempo, one under an AIST name has as many beats.
        seconds /= tempo if take.spec.source == "aist" else 1.0
        if not dataset.has_room(take.spec.num_frames, seconds):
            raise UserError(
                f"tempo {tempo:g} leaves {seconds:.2f} s of {take.spec.path.name}, too little for "
                f"{take.spec.num_frames} frames; choose a slower one or fewer frames."
            )


def _write_at_tempo(
    tempo: float, take: Take, files: tuple[Path, Path, Path], choice: Choice,
    recipe: SmallWorldRecipe,
) -> None:  # fmt: skip
    """Record the video again at another tempo and cut it the same way."""
    if take.spec.source == "aist":
        name = parse_name(take.spec.path)
        assert name is not None
        recording = record_aist(name, recipe, tempo=tempo)
    else:
        index = int(take.truth["music"].removeprefix("wild "))
        recording = record_wild(WildItem(index, "music"), recipe, tempo=tempo)
    with tempfile.TemporaryDirectory() as folder:
        write_recording(Path(folder, take.spec.path.name), recording)
        dataset = cut_dataset(Path(folder), choice, [take.spec.path.name])
        truth = {"file": take.truth["file"], **recording.truth, "tempo": tempo}
        _write_clip(files, decoded(dataset, 0), truth, take.spec.caption, recipe)


def _write_clip(
    files: tuple[Path, Path, Path], clip: RawClip, truth: Truth, prompt: str,
    recipe: SmallWorldRecipe,
) -> None:  # fmt: skip
    video, music, truth_file = files
    sound = read_audio(
        clip.spec.path,
        rate_hz=recipe.audio_rate_hz,
        start_seconds=clip.spec.start_seconds,
        duration_seconds=clip_audio_seconds(clip.spec.num_frames, fps=FPS) + SPARE_SECONDS,
    )
    write_video(video, clip.frames, fps=FPS, audio=sound, audio_rate_hz=recipe.audio_rate_hz)
    write_wav(music, sound, rate_hz=recipe.audio_rate_hz)
    sound_seconds = len(sound) / recipe.audio_rate_hz
    known = clip_truth(truth, clip.spec, prompt=prompt, sound_seconds=sound_seconds)
    write_truth(truth_file, known)


def main(args: Sequence[str] | None = None) -> None:
    """Read the command line and make the test set."""
    said = "Cut a test set from a small world that no training saw."
    parser = parser_of("generator.test_set", said, Choice)
    parser.add_argument("world", metavar="WORLD", help="folder of a small world")
    parser.add_argument("out", metavar="OUT", help="folder to write to")
    parser.add_argument(
        "--tempo", type=float, nargs="*", default=[], metavar="F",
        help="further parts at so many times the tempo",
    )  # fmt: skip
    options = vars(parser.parse_args(args))
    world, out, tempos = options.pop("world"), options.pop("out"), options.pop("tempo")
    make_test_set(world, out, Choice(**options), tempos=tempos)


if __name__ == "__main__":
    with in_one_sentence("test_set"):
        main()
