import json
import shutil

import pytest
import yaml

from dance_eval.commands.compare import choice_of, matched_pairs
from dance_eval.loading import EvaluationError
from dance_eval.metrics.clip_folder import ClipEntry
from evaluate import main
from musicinfuser.media.audio import read_audio
from musicinfuser.media.video import read_clip
from musicinfuser.media.video_writing import write_video
from tests.judge_server import BeatJudge, parts, server_options


@pytest.fixture(scope="module")
def moved(dances, tmp_path_factory):
    """The same music; each clip shows the dance to the next track."""
    folder = tmp_path_factory.mktemp("moved") / "model"
    shutil.copytree(dances, folder)
    names = sorted(path.name for path in dances.glob("*.mp4"))
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        frames = read_clip(
            dances / other, start_seconds=0, num_frames=46, height=48, width=64, crop=None
        )
        sound = read_audio(dances / name)
        write_video(folder / name, frames, fps=30.0, audio=sound, audio_rate_hz=16000)
    table = (folder / "clips.csv").read_text().replace(",truth,", ",model,")
    (folder / "clips.csv").write_text(table)
    return folder


@pytest.fixture
def compare(server, tmp_path, capsys):
    spec = {
        "class_path": "dance_eval.metrics.judged_quality.JudgedQuality",
        "init_args": {
            "judge": {
                "class_path": "dance_eval.judges.server.ServerJudge",
                "init_args": server_options(server),
            },
            "cache": str(tmp_path / "answers"),
        },
    }
    (tmp_path / "judge.yaml").write_text(yaml.safe_dump([spec]))

    def run(*folders):
        output = tmp_path / "comparison.json"
        main(["compare", *map(str, folders), f"--metrics={tmp_path / 'judge.yaml'}",
              f"--output={output}"])  # fmt: skip
        return json.loads(output.read_text()), capsys.readouterr().out

    return run


class BeatPairs(BeatJudge):
    """Prefers the dance closer to its music, and the first where music is not asked about."""

    def __call__(self, request):
        sent = parts(request)
        if "music" not in sent["text"][-1]:
            return "A"
        shown = zip(sent["video"], sent["audio"], strict=True)
        first, second = [self.alignment(video, sound) for video, sound in shown]
        return "**A**" if first > second else "Video B."


def test_the_better_wins_in_both_orders_and_a_bias_is_stated(
    server, compare, dances, moved, tmp_path
):
    server.answer = BeatPairs(tmp_path)
    document, printed = compare(dances, moved)
    assert document["systems"] == ["truth", "model"]
    music = document["questions"]["music_alignment"]
    assert music["win_rate"] == {"mean": 1, "low": 1, "high": 1}
    assert music["first_place_rate"]["mean"] == 0.5
    assert (music["n"], music["num_unread"], music["biased"]) == (5, 0, False)
    # Whoever always says "A" prefers nobody.
    quality = document["questions"]["visual_quality"]
    assert quality["win_rate"]["mean"] == 0.5
    assert (quality["first_place_rate"]["mean"], quality["biased"]) == (1, True)
    assert "music_alignment: truth over model 100% [100%, 100%] of 5 pairs" in printed
    assert printed.count("POSITION BIAS") == 3
    assert len(server.requests) == 5 * 4 * 2
    compare(dances, moved)
    assert len(server.requests) == 5 * 4 * 2


def test_what_cannot_be_compared_is_named(server, compare, dances, moved, tmp_path):
    few = tmp_path / "few"
    shutil.copytree(moved, few)
    (few / "dance_a.mp4").unlink()
    table = (few / "clips.csv").read_text().splitlines()
    (few / "clips.csv").write_text("\n".join(table[:4]) + "\n")
    for name in ("d", "e"):
        (few / f"dance_{name}.mp4").unlink()
    server.answer, server.finish_reason = lambda request: "Both", "length"
    document, printed = compare(dances, few)
    assert [pair["failure"] is None for pair in document["pairs"]] == [False, True, True]
    assert document["questions"]["visual_quality"]["n"] == 0
    assert document["questions"]["visual_quality"]["num_unread"] == 2
    assert {path[-11:] for path in document["unmatched"]} == {"dance_d.mp4", "dance_e.mp4"}
    assert "not compared: " in printed
    assert "dance_a.mp4" in printed
    assert printed.count("has no counterpart") == 2
    assert printed.count("unread: ") == 8
    assert "'Both' and 'Both' (finish_reason is 'length' at max_tokens 32; raise it)" in printed


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("A", "first"), ("b", "second"), (" **B**. ", "second"), ("Video A", "first"),
        ("A or B", None), ("Both", None), ("", None), ("Answer: A", None),
    ],
)  # fmt: skip
def test_only_a_letter_is_a_choice(text, choice):
    assert choice_of(text) == choice


def test_clips_are_matched_by_track_start_and_prompt(tmp_path):
    def entry(system, track, prompt, start=0.0, file=""):
        return ClipEntry(
            tmp_path, f"{system}{track}{prompt}{start}{file}", system, track, start, prompt=prompt
        )

    truth = [entry("t", "x/a.wav", "p"), entry("t", "x/a.wav", "q"), entry("t", "b.wav", "p")]
    model = [
        entry("m", "a.mp3", "q"), entry("m", "a.mp3", "p", file=1),
        entry("m", "a.mp3", "p", file=2), entry("m", "b.wav", "p", 1.5),
    ]  # fmt: skip
    pairs, alone = matched_pairs(truth + model)
    assert pairs == [(truth[0], model[1]), (truth[1], model[0])]
    assert alone == [model[2], truth[2], model[3]]
    with pytest.raises(EvaluationError, match="takes two"):
        matched_pairs(truth)
    with pytest.raises(EvaluationError, match="share no track"):
        matched_pairs([truth[2], model[0]])


def test_without_a_judge_nothing_is_compared(dances, tmp_path):
    with pytest.raises(EvaluationError, match="no JudgedQuality"):
        main(["compare", str(dances), str(dances), "--metrics=dance_eval/configs/metrics.yaml"])
