import json
import shutil
import socket

import pytest
import torch

from dance_eval.judges.judge import SOUND_RATE_HZ, JudgeInput
from dance_eval.judges.questions import Question
from musicinfuser.fingerprint import file_digest
from musicinfuser.media.video_writing import write_video
from tests.dancing_square import click_track, swinging_square
from tests.judge_server import JudgeServer, serving

NUM_FRAMES, FPS = 46, 30.0
TRACKS = {"a": (0.5, 0.2), "b": (0.42, 0.1), "c": (0.6, 0.3), "d": (0.36, 0.12), "e": (0.55, 0.4)}
"""Period and first beat of each track, in seconds."""


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Nothing but this machine itself may be reached."""
    connect = socket.socket.connect

    def refuse(self, address):
        if self.family != socket.AF_UNIX and address[0] != "127.0.0.1":
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def dances(tmp_path_factory):
    """A folder ``truth`` of clips that rest on the beats of five tracks, each known."""
    folder = tmp_path_factory.mktemp("judged")
    lines = ["file,system,track,prompt"]
    for name, (period, first) in TRACKS.items():
        beats = [first + period * k for k in range(12) if first + period * k < NUM_FRAMES / FPS]
        write_video(
            folder / "truth" / f"dance_{name}.mp4",
            swinging_square(
                num_frames=NUM_FRAMES, fps=FPS, period_seconds=period, phase_seconds=first
            ),
            fps=FPS,
            audio=click_track(beats, duration_seconds=NUM_FRAMES / FPS, rate_hz=16000),
            audio_rate_hz=16000,
        )
        (folder / f"{name}.json").write_text(json.dumps({"beats_seconds": beats}))
        lines.append(f"dance_{name}.mp4,truth,../{name}.wav,a square that swings {{to}} {name}")
    (folder / "truth" / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder / "truth"


@pytest.fixture(scope="session")
def few(dances, tmp_path_factory):
    """The first two of them."""
    folder = tmp_path_factory.mktemp("few") / "truth"
    folder.mkdir()
    for name in ("a", "b"):
        shutil.copy(dances / f"dance_{name}.mp4", folder)
        shutil.copy(dances.parent / f"{name}.json", folder.parent)
    lines = (dances / "clips.csv").read_text().splitlines()
    (folder / "clips.csv").write_text("\n".join(lines[:3]) + "\n")
    return folder


@pytest.fixture
def shown(dances):
    path = dances / "dance_a.mp4"
    tone = torch.sin(torch.arange(SOUND_RATE_HZ) * 0.2)
    return JudgeInput(path, file_digest(path), tone, name=path.name)


@pytest.fixture
def question():
    return Question("Beat Alignment", "Rate the beat alignment.")


@pytest.fixture
def server():
    with serving(JudgeServer()) as running:
        yield running
