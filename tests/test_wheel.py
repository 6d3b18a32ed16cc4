"""`pip install .` gives the method and the judging, and both work from any folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.scored_dances import write_dance


def run(*words: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The packages of the wheel, without dependencies, in a folder of their own."""
    folder = tmp_path_factory.mktemp("wheel")
    # A build leaves files in the folder that it builds from, so it gets one of its own.
    listed = subprocess.run(
        ["git", "ls-files", "musicinfuser", "dance_eval", "pyproject.toml", "requirements.txt",
         "README.md", "LICENSE"],
        cwd=ROOT, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    for name in listed:
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-compile",
        "--target", str(folder / "packages"), str(folder / "source"), cwd=folder)  # fmt: skip
    return folder / "packages"


def test_only_two_packages_are_installed(installed):
    packages = {path.name for path in installed.iterdir() if (path / "__init__.py").is_file()}
    assert packages == {"musicinfuser", "dance_eval"}
    [facts] = installed.glob("musicinfuser-*.dist-info/METADATA")
    assert "Requires-Dist: torch<3,>=2.14" in facts.read_text()


# Each as `python -m` runs it, in one process: loading the packages takes longer than all else.
COMMANDS = """
import json, runpy, sys
import musicinfuser
print(musicinfuser.__file__, musicinfuser.MusicInfuserPipeline)
for module, *options in json.loads(sys.argv[1]):
    print("---")
    sys.argv = [module, *options]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code, end.code
"""


def test_they_work_from_another_folder(installed, tmp_path):
    write_dance(tmp_path / "clips" / "a.mp4", phase_seconds=0.1)
    (tmp_path / "clips" / "a.json").write_text('{"beats_seconds": [0.1, 0.6, 1.1, 1.6, 2.1]}')
    commands = [
        ["musicinfuser.app", "--help"],
        ["musicinfuser.convert", "--help"],
        ["dance_eval", "score", "clips", "--music_beats=truth"],
    ]
    env = {"PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}
    printed = run("-c", COMMANDS, json.dumps(commands), cwd=tmp_path, **env)
    package, *helps, scores = printed.split("---\n")
    assert package.startswith(str(installed))
    assert len(helps) == 2 and all("usage" in text for text in helps)
    assert "beat_alignment/score" in scores and (tmp_path / "metrics.json").is_file()
