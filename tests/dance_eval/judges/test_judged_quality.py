import json
import shutil
import threading

import pytest
import yaml

from dance_eval.judges.answer_cache import main as export_answers
from dance_eval.judges.questions import GROUPS, key_of
from dance_eval.judges.server import ServerJudge
from dance_eval.loading import EvaluationError, load_clip
from dance_eval.metrics.clip_folder import list_clips
from dance_eval.metrics.judged_quality import JudgedQuality
from dance_eval.metrics.music_beats import MusicBeats
from evaluate import main
from musicinfuser.media.audio import read_audio
from musicinfuser.media.video import read_clip
from musicinfuser.media.video_writing import write_video
from tests.judge_server import BeatJudge, PictureJudge, parts, server_options

QUESTIONS_PER_CLIP = 11 + 3 * 2
NAMES = [key_of(name) for names in GROUPS.values() for name in names]


@pytest.fixture
def score(server, tmp_path, capsys):
    """Score folders by the server's judge; gives metrics.json and what was printed."""

    def run(*folders, controls=True, retries=2, output="metrics.json", beats=None, **init_args):
        spec = {
            "class_path": "dance_eval.metrics.judged_quality.JudgedQuality",
            "init_args": {
                "judge": {
                    "class_path": "dance_eval.judges.server.ServerJudge",
                    "init_args": server_options(server, num_retries=retries),
                },
                "cache": str(tmp_path / "answers"),
                "controls": controls,
                **init_args,
            },
        }
        file = tmp_path / "judge.yaml"
        file.write_text(yaml.safe_dump([spec]))
        options = [f"--metrics={file}", f"--output={tmp_path / output}", "--music_beats=truth"]
        options += [] if beats is None else [f"--beats_folder={beats}"]
        main(["score", *map(str, folders), *options])
        return json.loads((tmp_path / output).read_text()), capsys.readouterr().out

    return run


def values_of(document, system):
    return {
        name.removeprefix("judge/"): summary["mean"]
        for name, summary in document["systems"][system].items()
    }


def test_a_judge_that_ignores_audio_is_found(server, score, dances, tmp_path):
    server.answer = BeatJudge(tmp_path)
    document, printed = score(dances)
    found = document["findings"]["judge"]
    assert found["ignores_audio"] is False
    assert found["ignored"] == []
    assert [found["controls"][name]["n"] for name in found["controls"]] == [5, 5, 5]
    assert "the judge responds to audio" in printed
    assert "IGNORES" not in printed
    values = values_of(document, "truth")
    assert values["beat_alignment"] > 8
    assert values["beat_alignment_silence"] == 0
    assert values["beat_alignment_half_beat"] < 4
    assert values["beat_alignment_other_track"] < 7
    assert found["controls"]["silence"]["mean"] == pytest.approx(values["beat_alignment"])
    assert values["style_alignment"] == values["style_alignment_silence"] == 5
    assert len(server.requests) == 5 * QUESTIONS_PER_CLIP

    server.answer = PictureJudge()
    document, printed = score(dances, cache=str(tmp_path / "picture"), output="picture.json")
    found = document["findings"]["judge"]
    assert found["ignores_audio"] is True
    assert found["ignored"] == ["other_track", "silence", "half_beat"]
    assert found["controls"]["silence"]["mean"] == 0
    assert "the judge IGNORES AUDIO: beat_alignment does not move" in printed
    assert "own music minus silence: +0.00 [+0.00, +0.00] (n = 5): does not move." in printed


def test_averages_are_those_of_the_paper(server, score, few):
    def answer(request):
        text = parts(request)["text"][-1]
        if "prompt" in text:
            return "The prompt gets 3 of 10"
        return "9.5" if "quality" in text or "consistency" in text else "6"

    server.answer = answer
    document, _ = score(few, controls=False)
    values = {name: value for name, value in values_of(document, "truth").items() if value}
    assert set(NAMES) < set(values)
    assert values["dance_quality"] == values["strict_dance_quality"] == 6
    assert values["video_quality"] == values["strict_video_quality"] == 9.5
    assert values["prompt_alignment"] == 3
    # The stricter rule does not take a sentence for a number.
    assert "strict_prompt_alignment" not in values
    assert values["overall"] == pytest.approx((5 * 6 + 3 * 9.5) / 8)
    assert document["findings"]["judge"]["ignores_audio"] is None
    assert len(server.requests) == 2 * 11
    [asked] = {t for t in server.texts() if "capture" in t and "{to} a'" in t}
    assert "'a square that swings {to} a'? Rate 0-10 where:" in asked


def test_expected_scores_come_from_digits(server, score, few):
    server.answer = lambda request: ("8", [{"8": 0.75, "4": 0.25}])
    document, _ = score(few)
    values = values_of(document, "truth")
    assert values["expected_beat_alignment"] == pytest.approx(7)
    assert values["expected_beat_alignment_silence"] == pytest.approx(7)
    assert values["expected_overall"] == pytest.approx(7)
    assert values["overall"] == 8
    assert document["findings"]["judge"]["expected"]["ignores_audio"] is True


def test_the_authors_wording_is_one_value_away(server, score, few):
    score(few, controls=False, wording="authors")
    assert sum(" 0-10 where:" in text for text in server.texts()) == 2 * 11
    score(few, controls=False, wording="paper")
    assert len(server.requests) == 2 * (11 + 8)


def test_a_clip_without_a_valid_run_is_left_out_and_named(server, score, few):
    def answer(request):
        text = parts(request)["text"][-1]
        return "I cannot say." if "creativity" in text and "{to} b'" in text else "10"

    server.answer = answer
    document, printed = score(few)
    summary = document["systems"]["truth"]["judge/overall"]
    assert (summary["n"], summary["num_failed"], summary["mean"]) == (1, 1, 10)
    [failed] = [clip for clip in document["clips"] if clip["failures"]]
    assert failed["file"] == "dance_b.mp4"
    assert "'Creative Interpretation': 'I cannot say.'" in failed["failures"]["judge"]
    assert "1 of 2 clips failed" in printed
    assert "dance_b.mp4: 1 of 11 answers hold no score" in printed


def test_how_answers_were_read_is_printed(server, score, few):
    thinks = "aesthetic quality"
    server.answer = lambda request: (
        "<think>I see 3 people</think>8" if thinks in parts(request)["text"][-1] else "7"
    )
    document, printed = score(few, controls=False)
    [value] = {clip["values"]["judge"]["aesthetic_quality"] for clip in document["clips"]}
    assert value == 3  # the authors' rule
    assert "of 22 answers, 20 are nothing but a number (the stricter rule)" in printed
    assert "cut off" not in printed


def test_answers_about_other_sound_that_say_nothing_are_asked_for_again(server, score, few):
    def no_score_for_silence(request):
        return "8" if any(parts(request)["audio"][0][44:]) else "There is no music."

    server.answer = no_score_for_silence
    document, printed = score(few)
    num_clips = len(document["clips"])
    assert all(clip["values"]["judge"]["overall"] == 8 for clip in document["clips"])
    unread = f"{2 * num_clips} more, with other sound, hold no score and are asked for next time"
    assert unread in printed
    asked = len(server.requests)
    server.answer = lambda request: "7"
    for _ in range(2):
        document, printed = score(few)
        assert len(server.requests) == asked + 2 * num_clips
    assert "asked for next time" not in printed
    values = document["clips"][0]["values"]["judge"]
    assert (values["beat_alignment"], values["beat_alignment_silence"]) == (8, 7)
    assert "num_unread_controls" not in values


def test_answers_that_were_cut_off_are_counted_and_named(server, score, few, capsys, tmp_path):
    server.finish_reason = "length"
    server.answer = lambda request: "Let me see, 3"
    _, printed = score(few, controls=False, cache=str(tmp_path / "counted"))
    assert "of 22 answers, 0 are nothing but a number" in printed
    assert "22 were cut off by the limit of tokens, raise it." in printed
    server.answer = lambda request: "Let me see"
    with pytest.raises(EvaluationError):
        score(few, controls=False, cache=str(tmp_path / "named"), output="named.json")
    assert "(finish_reason is 'length' at max_tokens 32; raise it)" in capsys.readouterr().out


def test_a_stopped_run_asks_only_for_what_is_missing(server, score, few):
    calls = []

    def answer(request):
        calls.append(1)
        # Well within the second clip.
        if len(calls) == 25:
            server.faults.extend([400] * 1000)
        return "6"

    server.answer = answer
    first, _ = score(few)
    num_asked = sum(clip["values"] != {} for clip in first["clips"])
    assert num_asked == 1
    server.faults.clear()
    answered = len(calls)
    document, _ = score(few)
    assert all("judge" in clip["values"] for clip in document["clips"])
    assert len(calls) == 2 * QUESTIONS_PER_CLIP
    assert answered >= 25
    num_requests, num_probes = len(server.requests), server.probes
    again, _ = score(few)
    assert again == document
    # Where nothing is to be scored, the server need not even run.
    assert (len(server.requests), server.probes) == (num_requests, num_probes)


def test_a_server_that_is_down_is_one_sentence_before_anything(server, score, few, tmp_path):
    server.url = "http://127.0.0.1:9/v1"
    with pytest.raises(EvaluationError, match="The judge cannot be asked.*refused.*base_url"):
        score(few)
    assert not (tmp_path / "metrics.json").exists()
    assert not (tmp_path / "answers").exists()


def test_a_clip_that_is_asked_about_in_vain_ends_nothing(server, score, few):
    def answer(request):
        if "{to} b'" in parts(request)["text"][-1]:
            server.faults.extend([503] * 3)
        return "6"

    server.answer = answer
    document, printed = score(few, retries=0)
    failed = [clip["file"] for clip in document["clips"] if clip["failures"]]
    assert 1 <= len(failed) < 2
    assert "status 503" in printed


def test_clips_lack_what_they_lack(server, score, dances, tmp_path):
    """No prompt, no second track, no beats, no sound: each leaves out what needs it."""
    folder = tmp_path / "alone"
    folder.mkdir()
    shutil.copy(dances / "dance_a.mp4", folder)
    (folder / "dance_a.json").write_text('{"beats_seconds": [0.4]}')
    frames = read_clip(
        dances / "dance_a.mp4", start_seconds=0, num_frames=10, height=48, width=64, crop=None
    )
    write_video(folder / "silent.mp4", frames, fps=30.0)
    document, printed = score(folder)
    [clip, silent] = document["clips"]
    assert "has no sound" in silent["failures"]["judge"]
    values = clip["values"]["judge"]
    assert "prompt_alignment" not in values
    assert "overall" in values
    assert {name for name in values if name.startswith("beat_alignment_")} == {
        "beat_alignment_silence"
    }
    found = document["findings"]["judge"]
    assert found["controls"]["other_track"]["num_missing"] == 1
    assert found["ignores_audio"] is None
    assert "another track: no clips; 1 clips without this control." in printed
    assert "too few clips to say" in printed


def test_recorded_answers_score_without_a_server(server, score, few, tmp_path):
    server.answer = lambda request: ("7", [{"7": 0.5, "8": 0.5}])
    asked, _ = score(few)
    export_answers([str(tmp_path / "answers"), str(tmp_path / "answers.jsonl")])
    num_requests = len(server.requests)
    judge = {
        "class_path": "dance_eval.judges.recorded.RecordedJudge",
        "init_args": {"answers": str(tmp_path / "answers.jsonl")},
    }
    recorded, _ = score(few, judge=judge, cache=str(tmp_path / "b"), output="b.json")
    assert len(server.requests) == num_requests
    assert recorded["systems"] == asked["systems"]
    assert recorded["findings"] == asked["findings"]


def test_all_questions_are_under_way_at_once(server, few, tmp_path):
    """Each waits for all others, so one after the other would never end."""
    together = threading.Barrier(11, timeout=20)

    def answer(request):
        together.wait()
        return "6"

    server.answer = answer
    judge = ServerJudge(**server_options(server, concurrency=11, num_retries=0))
    metric = JudgedQuality(judge=judge, cache=tmp_path, controls=False)
    entries, _ = list_clips(few)
    metric.prepare(entries, seed=0)
    beats = MusicBeats(read_audio, mode="truth")
    metric.update(load_clip(entries[0], beats=beats, seed=0, max_height=480))
    assert float(metric.compute()["overall"]) == 6
