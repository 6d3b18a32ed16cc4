"""The worker in a process of its own, with a stand-in for the package that it calls."""

import dataclasses
import sys

import pytest

from dance_eval.judges.judge import JudgeError
from dance_eval.judges.videollama2 import VideoLLaMA2Judge
from tests.conftest import ROOT

# Answers with what it was called with, and how loud the sound of the file is.
STAND_IN = """
import av, numpy as np
print("libraries print a lot")

def model_init(path):
    assert path == "a model"
    return "model", {"video": open_video}, "tokenizer"

opened = []

def open_video(path, va):
    assert va is True
    opened.append(path)
    with av.open(path) as file:
        pictures = sum(1 for _ in file.decode(video=0))
    with av.open(path) as file:
        loud = max(float(np.abs(frame.to_ndarray()).max()) for frame in file.decode(audio=0))
    return {"pictures": pictures, "loud": loud > 0.1}

def mm_infer(tensor, question, *, model, tokenizer, modal, do_sample):
    assert (model, tokenizer, modal, do_sample) == ("model", "tokenizer", "video", False)
    if "fail" in question:
        raise RuntimeError("out of memory")
    return f"{question} {tensor['pictures']} {tensor['loud']} {len(opened)}"
"""


@pytest.fixture
def judge(tmp_path, monkeypatch):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "videollama2.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'package'}:{ROOT}")
    made = VideoLLaMA2Judge(python=sys.executable, model="a model", media=tmp_path / "media")
    yield made
    made._worker.close()


def test_the_worker_sees_the_clip_with_the_sound_it_is_shown_with(judge, shown, question):
    judge.check()
    silent = dataclasses.replace(shown, waveform=shown.waveform * 0, sound="silence")
    asked = dataclasses.replace(question, text="Rate.")
    assert judge.ask((shown,), asked).text == "Rate. 46 True 1"
    # The same clip is not opened again for its next question.
    assert judge.ask((shown,), dataclasses.replace(asked, text="And?")).text == "And? 46 True 1"
    answer = judge.ask((silent,), asked)
    assert answer.text == "Rate. 46 False 2"
    assert answer.expected_score is None
    assert len(list(judge.media.iterdir())) == 2
    with pytest.raises(JudgeError, match="dance_a.mp4.*Beat Alignment.*out of memory"):
        judge.ask((shown,), dataclasses.replace(asked, text="fail"))
    assert judge.ask((silent,), asked).text == "Rate. 46 False 4"
    with pytest.raises(JudgeError, match="one clip at a time"):
        judge.ask((shown, silent), asked)


def test_an_environment_without_the_package_is_named(judge, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(JudgeError, match="has videollama2; make its environment"):
        judge.check()
    with pytest.raises(JudgeError, match="nowhere/python runs no Python"):
        VideoLLaMA2Judge(python=tmp_path / "nowhere/python").check()
