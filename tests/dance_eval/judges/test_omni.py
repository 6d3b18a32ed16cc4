import dataclasses
import math

import pytest

from dance_eval.judges.judge import JudgeError
from dance_eval.judges.omni import OmniJudge
from tests.small_omni import write_small_omni


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    folder = write_small_omni(tmp_path_factory.mktemp("omni"))
    return OmniJudge(
        source=str(folder), dtype="float32", device="cpu", fps=4.0, max_height=32, max_new_tokens=3
    )


def test_answers_are_repeatable_and_hang_on_sound_picture_and_question(
    judge, shown, question, dances
):
    judge.check()
    answer = judge.ask((shown,), question)
    assert judge.ask((shown,), question) == answer
    assert 1 <= len(answer.positions) <= 3
    first = answer.positions[0]
    assert 0 < sum(math.exp(chance) for chance in first.values()) <= 1 + 1e-5
    assert answer.text.startswith(max(first, key=first.get).removeprefix("<|im_end|>"))
    others = [
        dataclasses.replace(shown, waveform=shown.waveform * 0),
        dataclasses.replace(shown, path=dances / "dance_d.mp4"),
    ]
    for other in others:
        assert judge.ask((other,), question).positions[0] != first
    asked = dataclasses.replace(question, text="Rate the style.")
    assert judge.ask((shown,), asked).positions[0] != first


def test_two_clips_are_shown_in_their_order(judge, shown, question, dances):
    other = dataclasses.replace(shown, path=dances / "dance_d.mp4")
    answers = [judge.ask(order, question) for order in ((shown, other), (other, shown))]
    assert answers[0].positions != answers[1].positions


def test_what_is_no_such_model_is_one_sentence(tmp_path):
    with pytest.raises(JudgeError, match="no model that can be read.*`source`"):
        OmniJudge(source=str(tmp_path)).check()
    with pytest.raises(ValueError, match="fps is 0; it must be above 0"):
        OmniJudge(fps=0)
