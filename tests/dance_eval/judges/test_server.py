import math

import pytest
import torch

from dance_eval.judges.judge import JudgeError, JudgeInput
from dance_eval.judges.server import ServerJudge
from tests.judge_server import MODEL, clicks_in, parts, server_options


def judge(server, **options):
    return ServerJudge(**server_options(server, **options))


def test_a_request_holds_picture_sound_and_question_as_parts_of_their_own(server, shown, question):
    answer = judge(server).ask((shown,), question)
    assert (answer.text, answer.score, answer.strict_score) == ("7", 7, 7)
    [request] = server.requests
    assert [message["role"] for message in request["messages"]] == ["user"]
    kinds = [part["type"] for part in request["messages"][0]["content"]]
    assert kinds == ["video_url", "input_audio", "text"]
    assert parts(request)["text"] == [question.text]
    assert b"mp4a" not in parts(request)["video"][0]
    assert b"mp4a" in shown.path.read_bytes()
    wanted = {"model": MODEL, "temperature": 0, "logprobs": True, "top_logprobs": 20}
    assert request.items() >= wanted.items()


def test_the_request_can_be_another(server, shown, question):
    options = {
        "audio_form": "audio_url",
        "top_logprobs": 0,
        "max_tokens": 5,
        "system_prompt": "You judge dance.",
        "extra_body": {"media_io_kwargs": {"video": {"num_frames": 8}}},
    }
    judge(server, **options).ask((shown,), question)
    [request] = server.requests
    assert request["messages"][0] == {"role": "system", "content": "You judge dance."}
    assert len(parts(request)["audio"]) == 1
    assert request["media_io_kwargs"] == {"video": {"num_frames": 8}}
    assert request["max_tokens"] == 5
    assert "logprobs" not in request


def test_two_clips_are_named(server, shown, question):
    judge(server).ask((shown, shown), question)
    sent = parts(server.requests[0])
    assert sent["text"] == ["Video A:", "Video B:", question.text]
    assert len(sent["video"]) == len(sent["audio"]) == 2


def test_the_sound_arrives_as_it_is(server, dances, question):
    sound = torch.zeros(16000)
    sound[[3200, 11200]] = 0.9
    path = dances / "dance_b.mp4"
    judge(server).ask((JudgeInput(path, "b", sound, name="b"),), question)
    [wav] = parts(server.requests[0])["audio"]
    assert clicks_in(wav).tolist() == pytest.approx([0.2, 0.7])


def test_the_key_comes_from_the_environment(server, shown, question, monkeypatch):
    monkeypatch.setenv("THE_KEY", "secret")
    asked = judge(server, api_key_variable="THE_KEY")
    asked.ask((shown,), question)
    assert server.headers[0]["authorization"] == "Bearer secret"
    assert "secret" not in str(asked.identity)
    judge(server, api_key_variable="NO_KEY").ask((shown,), question)
    assert "authorization" not in server.headers[1]


def test_digits_give_an_expected_score(server, shown, question):
    server.answer = lambda request: ("10", [{"1": 0.8, "9": 0.2}, {"0": 0.75, "<end>": 0.25}])
    answer = judge(server).ask((shown,), question)
    assert answer.positions[0]["9"] == pytest.approx(math.log(0.2))
    assert answer.expected_score == pytest.approx(0.6 * 10 + 0.2 + 0.2 * 9)


def test_servers_without_log_probabilities_are_taken(server, shown, question):
    answer = judge(server).ask((shown,), question)
    assert answer.score == 7
    assert answer.expected_score is None


@pytest.mark.parametrize(
    "fault", [429, 500, 503, "half", "no json", "wrong json", "list", "hang up"]
)
def test_what_may_pass_is_tried_again(server, shown, question, fault):
    server.faults.extend([fault, fault])
    assert judge(server).ask((shown,), question).text == "7"
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (429, "status 429"),
        ("half", "complete message"),
        ("no json", "no JSON"),
        ("wrong json", "no chat completion"),
        ("hang up", "no answer"),
    ],
)
def test_what_does_not_pass_is_one_sentence(server, shown, question, fault, said):
    server.faults.extend([fault] * 3)
    with pytest.raises(JudgeError, match=said) as caught:
        judge(server).ask((shown,), question)
    text = str(caught.value)
    assert "\n" not in text
    assert "dance_a.mp4" in text
    assert "Beat Alignment" in text
    assert "after 3 tries" in text
    assert len(server.requests) == 3


@pytest.mark.parametrize("fault", [400, 401, 404, 422])
def test_what_cannot_pass_is_not_tried_again(server, shown, question, fault):
    server.faults.append(fault)
    with pytest.raises(JudgeError, match=f"refused.*status {fault}.*busy"):
        judge(server).ask((shown,), question)
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", ["slow", "drip"])
def test_a_slow_server_is_given_up_and_tried_again(server, shown, question, fault):
    server.faults.append(fault)
    assert judge(server, time_limit_seconds=2.0).ask((shown,), question).text == "7"
    assert len(server.requests) == 2


def test_while_a_server_is_down_each_question_costs_one_try(server, shown, question):
    asked = judge(server)
    server.faults.extend([503] * 3 + [503] + [None] + [503] * 2)
    for _ in range(2):
        with pytest.raises(JudgeError):
            asked.ask((shown,), question)
    assert len(server.requests) == 4
    asked.ask((shown,), question)
    # It is up again, and has all its tries again.
    asked.ask((shown,), question)
    assert len(server.requests) == 8


def test_the_probe_is_one_cheap_request(server):
    judge(server).check()
    assert (server.probes, server.requests) == (1, [])


def test_the_probe_names_a_model_that_is_not_served(server):
    with pytest.raises(JudgeError, match=f"serves {MODEL}, not other; set `model`"):
        judge(server, model="other").check()


def test_the_probe_names_a_server_that_is_not_there():
    with pytest.raises(JudgeError, match=r"127\.0\.0\.1:9/v1/models.*refused.*`base_url`"):
        ServerJudge(base_url="http://127.0.0.1:9/v1", model=MODEL).check()


def test_identity_is_what_answers_depend_on(server):
    first = judge(server).identity
    assert judge(server, num_retries=9, concurrency=1, time_limit_seconds=3).identity == first
    assert ServerJudge(base_url="http://elsewhere/v1", model=MODEL).identity == first
    for other in ({"model": "b"}, {"max_tokens": 9}, {"extra_body": {"seed": 1}}):
        assert judge(server, **other).identity != first


@pytest.mark.parametrize(
    "options", [{"base_url": "localhost:8000"}, {"num_retries": -1}, {"concurrency": 0}]
)
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ServerJudge(model="m", **options)
