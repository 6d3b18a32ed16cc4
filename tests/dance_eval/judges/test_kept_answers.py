import dataclasses
import json

import pytest

from dance_eval.commands.compare import PAIR_QUESTIONS
from dance_eval.judges.answer_cache import CachedJudge, main
from dance_eval.judges.judge import JudgeError
from dance_eval.judges.questions import Question
from dance_eval.judges.recorded import RecordedJudge
from dance_eval.judges.server import ServerJudge
from tests.judge_server import server_options


def cached(server, folder, **options):
    return CachedJudge(ServerJudge(**server_options(server, **options)), folder)


def test_an_answer_is_asked_for_once(server, shown, question, tmp_path):
    server.answer = lambda request: ("8", [{"8": 0.7, "9": 0.3}])
    first = cached(server, tmp_path).ask((shown,), question)
    again = cached(server, tmp_path).ask((shown,), question)
    assert len(server.requests) == 1
    assert again == first
    assert again.expected_score == pytest.approx(8.3)
    [kept] = tmp_path.rglob("*.json")
    record = json.loads(kept.read_text())
    assert (record["text"], record["asked"]) == ("8", question.text)
    assert record["scores"] == {"authors": 8, "strict": 8, "expected": pytest.approx(8.3)}
    assert record["clips"][0]["name"] == "dance_a.mp4"


def test_anything_that_an_answer_depends_on_is_another_question(server, shown, question, tmp_path):
    judge = cached(server, tmp_path)
    judge.ask((shown,), question)
    judge.ask((shown,), Question(question.name, question.text + " Please."))
    judge.ask((dataclasses.replace(shown, waveform=shown.waveform * 0.5),), question)
    judge.ask((dataclasses.replace(shown, sha256="other"),), question)
    judge.ask((shown, shown), question)
    cached(server, tmp_path, max_tokens=9).ask((shown,), question)
    assert len(server.requests) == 6
    # Names and places are not among them.
    renamed = dataclasses.replace(shown, name="b.mp4", sound="half_beat")
    judge.ask((renamed,), question)
    cached(server, tmp_path, base_url=server.url + "/").ask((shown,), question)
    assert len(server.requests) == 6


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"text": 3, "positions": []}'])
def test_a_damaged_answer_is_asked_for_again(server, shown, question, tmp_path, damage):
    cached(server, tmp_path).ask((shown,), question)
    [kept] = tmp_path.rglob("*.json")
    whole = kept.read_text()
    kept.write_text(damage)
    cached(server, tmp_path).ask((shown,), question)
    assert len(server.requests) == 2
    assert kept.read_text() == whole


def test_an_answer_that_says_nothing_is_asked_for_again(server, shown, question, tmp_path):
    server.answer = lambda request: "I cannot see the video."
    for _ in range(2):
        assert cached(server, tmp_path).ask((shown,), question).score is None
    assert len(server.requests) == 2
    server.answer = lambda request: "8"
    assert cached(server, tmp_path).ask((shown,), question).score == 8
    assert cached(server, tmp_path).ask((shown,), question).score == 8
    assert len(server.requests) == 3


def test_so_is_a_choice_between_two_clips(server, shown, tmp_path):
    # A number would be read as a score; here only a letter counts.
    server.answer = lambda request: "7"
    cached(server, tmp_path).ask((shown, shown), PAIR_QUESTIONS[0])
    server.answer = lambda request: "B"
    for _ in range(2):
        assert cached(server, tmp_path).ask((shown, shown), PAIR_QUESTIONS[0]).text == "B"
    assert len(server.requests) == 2


def test_where_an_answer_was_cut_off_is_kept_too(server, shown, question, tmp_path):
    server.answer, server.finish_reason = lambda request: "Let me count: 3", "length"
    first = cached(server, tmp_path, max_tokens=5).ask((shown,), question)
    assert first.cut_off == "finish_reason is 'length' at max_tokens 5"
    assert cached(server, tmp_path, max_tokens=5).ask((shown,), question) == first
    assert len(server.requests) == 1
    server.finish_reason = "stop"
    assert cached(server, tmp_path, max_tokens=6).ask((shown,), question).cut_off is None


def test_thoughts_that_used_up_the_limit_are_no_fault_of_the_server(server, shown, question):
    server.answer, server.finish_reason = lambda request: None, "length"
    answer = ServerJudge(**server_options(server)).ask((shown,), question)
    assert (answer.text, answer.score) == ("", None)
    assert answer.cut_off is not None and len(server.requests) == 1


def test_a_failure_is_not_kept(server, shown, question, tmp_path):
    server.faults.append(400)
    with pytest.raises(JudgeError):
        cached(server, tmp_path).ask((shown,), question)
    assert not list(tmp_path.rglob("*"))


def test_kept_answers_become_recorded_ones(server, shown, question, tmp_path, capsys):
    server.answer = lambda request: ("9", [{"9": 0.5, "6": 0.5}])
    folder, file = tmp_path / "answers", tmp_path / "all.jsonl"
    judge = cached(server, folder)
    given = judge.ask((shown,), question)
    silent = dataclasses.replace(shown, waveform=shown.waveform * 0, sound="silence")
    server.finish_reason = "length"
    cut = judge.ask((silent,), question)
    main([str(folder), str(file)])
    assert "2 answers" in capsys.readouterr().out
    recorded = RecordedJudge(answers=file)
    recorded.check()
    assert recorded.ask((shown,), question) == given
    assert recorded.ask((silent,), question) == cut and cut.cut_off is not None
    with pytest.raises(JudgeError, match="another wording"):
        recorded.ask((shown,), Question(question.name, "Rate it."))
    with pytest.raises(JudgeError, match="another sound"):
        recorded.ask((dataclasses.replace(shown, waveform=shown.waveform * 0.5),), question)
    with pytest.raises(JudgeError, match="no answer to 'Beat Alignment'.*half_beat"):
        recorded.ask((dataclasses.replace(shown, sound="half_beat"),), question)


def line(**fields):
    record = {"clips": [{"video": "dance_a.mp4"}], "question": "Beat Alignment", "text": "6"}
    return json.dumps(record | fields)


def test_answers_can_be_written_by_hand(shown, question, tmp_path):
    file = tmp_path / "answers.jsonl"
    silent = line(clips=[{"video": "dance_a.mp4", "sound": "silence"}], text="2\u2028")
    file.write_text(f"{line()}\n\n{silent}\n")
    judge = RecordedJudge(answers=file)
    assert judge.ask((shown,), question).text == "6"
    assert judge.ask((dataclasses.replace(shown, sound="silence"),), question).score == 2
    before = judge.identity
    file.write_text(line())
    assert RecordedJudge(answers=file).identity != before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("nonsense", ":1: is no recorded answer"),
        ("3", ":1: is no recorded answer"),
        (line(text=6), ":1: is no recorded answer"),
        (f"{line()}\n{line(text='7')}", ":2: answers 'Beat Alignment'"),
        (None, "cannot be read"),
    ],
)
def test_files_that_make_no_sense_are_refused(tmp_path, content, said):
    file = tmp_path / "answers.jsonl"
    if content is not None:
        file.write_text(content)
    with pytest.raises(JudgeError, match=said):
        RecordedJudge(answers=file)


def test_an_empty_file_is_no_judge(tmp_path):
    file = tmp_path / "answers.jsonl"
    file.write_text("\n")
    with pytest.raises(JudgeError, match="holds no answers"):
        RecordedJudge(answers=file).check()
