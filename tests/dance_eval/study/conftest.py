"""Small systems on disk, a study of them, and votes as the page writes them."""

import csv
import io
import json

import pytest

from dance_eval.study.key import read_key
from dance_eval.study.votes import COLUMNS, row_check
from evaluate import main
from musicinfuser.media.video_writing import write_video
from tests.dancing_square import click_track, swinging_square

QUESTIONS = ("quality", "music", "realism", "complexity")


def write_system(folder, *, phase, num_clips=3, num_frames=9, system=None, size=(48, 64), **line):
    """A folder of clips with a manifest; tracks t0, t1, ... and a prompt that needs quoting."""
    lines = []
    for index in range(num_clips):
        frames = swinging_square(
            num_frames=num_frames, fps=30.0, period_seconds=0.2, phase_seconds=phase + 0.02 * index
        )
        if size != (48, 64):
            frames = frames.repeat_interleave(size[0] // 48, 1).repeat_interleave(size[1] // 64, 2)
        seconds = num_frames / 30
        sound = click_track([0.05, 0.15], duration_seconds=seconds, rate_hz=16000)
        file = folder / f'clip {index}, "ü".mp4'
        write_video(file, frames, fps=30.0, audio=sound, audio_rate_hz=16000, comment="SECRET")
        lines.append(
            {
                "file": file.name,
                "system": system or folder.name,
                "track": f"songs/t{index}.wav",
                "track_offset_seconds": 0.0,
                "prompt": 'a "dancer", <b>ü</b>',
                "seed": index,
            }
            | line
        )
    text = "".join(json.dumps(row) + "\n" for row in lines)
    (folder / "manifest.jsonl").write_text(text)
    return folder


@pytest.fixture(scope="session")
def systems(tmp_path_factory):
    """Folders base, adapted and truth; the last has no prompts and no seeds, and lacks a clip."""
    root = tmp_path_factory.mktemp("systems")
    return [
        write_system(root / "base", phase=0.0),
        write_system(root / "adapted", phase=0.1),
        write_system(root / "truth", phase=0.05, num_clips=2, prompt=None, seed=None),
    ]


def build(*folders, output, **options):
    words = [f"--{name}={value}" for name, value in {"raters": 4, "seed": 5, **options}.items()]
    main(["study", "build", *map(str, folders), f"--output={output}", *words])
    return read_key(output.with_name(f"{output.name}.key.json"))


@pytest.fixture(scope="session")
def study(systems, tmp_path_factory):
    """The folder of a page that compares base with adapted, and its key."""
    folder = tmp_path_factory.mktemp("study") / "page"
    return folder, build(*systems[:2], output=folder)


def vote_rows(key, rater, choose, *, trials=None):
    """Rows as the page writes them; ``choose(item, question)`` is the score of the first clip."""
    rows = []
    for order, trial in enumerate(key.plan[rater] if trials is None else trials, start=1):
        item = key.items[trial.item]
        for question, _ in key.questions:
            score = choose(item, question)
            if trial.left != item.first:
                score = 1 - score
            choice = {1: "left", 0.5: "tie", 0: "right"}[score]
            fields = [key.study, key.seed, rater, order, trial.item, question]
            fields += [trial.left, trial.right, choice, 1000 * order, 1, 2]
            texts = [str(field) for field in fields]
            rows.append([*texts, row_check(texts)])
    return rows


def write_votes(path, rows):
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([COLUMNS, *rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(stream.getvalue(), encoding="utf-8")
    return path
