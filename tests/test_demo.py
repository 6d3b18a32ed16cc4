"""`make demo` does a step again only where something changed; programs are only named here."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDERS = (
    "world", "clips", "cache", "adapted/checkpoints", "videos/base", "videos/adapted", "report",
)  # fmt: skip


@pytest.fixture
def demo(tmp_path):
    """``demo(options)``: numbers of the steps that `make demo` does in a copy of the checkout."""
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(Path(__file__).parents[1] / name, tmp_path)
    for name in ("configs", "assets/small-adapter", ".venv"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("train.py", "evaluate.py"):
        (tmp_path / name).touch()

    def run(*options):
        command = ["make", "demo", "PY=echo", "PYTHON=true", *options]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        lines = ended.stdout.splitlines()
        return [line.split()[0] for line in lines if line[1:2] == "/" or "your song," in line]

    for name in FOLDERS:
        (tmp_path / "runs/demo" / name).mkdir(parents=True)
    assert run() == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    return run


def test_nothing_is_done_twice(demo):
    assert demo() == []


def test_an_option_is_followed_from_its_step_on(demo):
    assert demo("FIT=--trainer.max_steps 10") == ["3/5", "4/5", "5/5"]
    assert demo("FIT=--trainer.max_steps 10") == []
    assert demo("NUM_CLIPS=3") == ["1/5", "2/5", "3/5", "4/5", "5/5"]


@pytest.mark.parametrize(
    ("gone", "steps"),
    [("videos/adapted", ["4/5", "5/5"]), ("report", ["5/5"]), ("cache", ["2/5", "3/5", "4/5"])],
)
def test_what_was_deleted_is_made_again(demo, tmp_path, gone, steps):
    shutil.rmtree(tmp_path / "runs/demo" / gone)
    assert demo()[: len(steps)] == steps


def test_a_song_and_a_prompt_are_taken_as_they_were_typed(demo, tmp_path):
    """Quotes, dollars and commas are parts of names; neither make nor the shell reads them."""
    name, prompt = "it's a$b (song), ü.wav", 'a dancer\'s "solo" for $5'
    (tmp_path / name).touch()
    (tmp_path / "said.py").write_text(
        "import json, sys\n"
        "if sys.argv[1] == '-c':\n"
        "    print(json.dumps(sys.argv[3:], ensure_ascii=False))\n"
        "else:\n"
        "    options = (a.partition('=')[::2] for a in sys.argv if '=[' in a)\n"
        "    print('given', *(json.loads(value) for _, value in options))\n"
    )
    own = [f"MUSIC={name}", f"PROMPT={prompt}", f"PY={sys.executable} said.py", "PYTHON=true"]
    ended = subprocess.run(["make", "demo", *own], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert f"given {[name]} {[prompt]}" in ended.stdout
    assert f"     your song, {name}, with the adapter" in ended.stdout


def test_a_new_program_is_tried(demo, tmp_path):
    (tmp_path / "configs/base.yaml").touch()
    assert demo() == ["1/5", "2/5", "3/5", "4/5", "5/5"]


def test_a_song_is_danced_to_once(demo, tmp_path):
    song = tmp_path / "my song.mp3"
    song.touch()
    (tmp_path / "runs/demo/videos/your_song").mkdir()
    assert demo(f"MUSIC={song}") == ["your"]
    assert demo(f"MUSIC={song}") == []
    assert demo(f"MUSIC={song}", "PROMPT=a man in a green shirt") == ["your"]
    song.write_bytes(b"another")
    assert demo(f"MUSIC={song}", "PROMPT=a man in a green shirt") == ["your"]
    assert demo(f"MUSIC={song}", "PROMPT=a man in a green shirt", "START=20") == ["your"]
    assert demo(f"MUSIC={song}", "PROMPT=a man in a green shirt", "START=20", "DURATION=9") == [
        "your"
    ]
