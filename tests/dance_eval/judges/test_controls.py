import pickle
from dataclasses import replace

import pytest
import torch

from dance_eval.commands.options import read_metrics
from dance_eval.loading import EvaluationError
from dance_eval.metrics.clip_folder import ClipEntry, list_clips
from dance_eval.metrics.judge_controls import (
    control_findings,
    control_sentences,
    fitted_sound,
    half_beat_seconds,
    mismatched_audio,
    shifted_sound,
)
from dance_eval.metrics.matching import track_of
from musicinfuser.aist_music import music_code
from tests.conftest import ROOT


def test_every_clip_gets_another_track(dances):
    entries, _ = list_clips(dances)
    tracks = {entry.path: track_of(entry) for entry in entries}
    for seed in range(8):
        other = mismatched_audio(entries, seed=seed)
        assert other.keys() == tracks.keys()
        assert all(tracks[path] != tracks[source] for path, source in other.items())
        assert len(set(other.values())) == 5
        assert mismatched_audio(list(reversed(entries)), seed=seed) == other
    assert mismatched_audio(entries, seed=0) != mismatched_audio(entries, seed=1)


def test_all_systems_get_the_same_track(dances, tmp_path):
    entries, _ = list_clips(dances)
    silent = ClipEntry(tmp_path, "gone.mp4", "model", track="../a.wav")
    alone = ClipEntry(tmp_path, "gone.mp4", "model", track="only.wav")
    broken = ClipEntry(tmp_path, "x.mp4", "model", track="a.wav", problem="no file")
    other = mismatched_audio([silent, *entries, broken, alone], seed=3)
    assert other[silent.path] == other[entries[0].path]
    # What has no sound gives none, and what no list names takes no part.
    assert silent.path not in other.values()
    assert broken.path not in other
    assert mismatched_audio(entries[:1], seed=0) == {}


def test_recordings_of_one_piece_have_the_same_other_track(dances):
    """Two of the five are of one piece by AIST's names: neither is the other's other track."""
    entries, _ = list_clips(dances)
    codes = ("mBR0_ch01", "mBR0_ch02", "mBR1_ch01", "mPO0_ch01", "mHO0_ch01")
    names = dict(zip(sorted({track_of(entry) for entry in entries}), codes, strict=True))
    named = [replace(e, track=f"gBR_sBM_c01_d04_{names[track_of(e)]}.wav") for e in entries]
    of_piece = {entry.path: music_code(entry.track) for entry in named}
    for seed in range(8):
        other = mismatched_audio(named, seed=seed)
        assert other.keys() == of_piece.keys()
        assert all(of_piece[path] != of_piece[source] for path, source in other.items())
        assert len({other[path] for path, code in of_piece.items() if code == "mBR0"}) == 1


def test_sounds_are_repeated_and_moved_in_a_circle():
    sound = torch.arange(5.0)
    assert fitted_sound(sound, 12).tolist() == [0, 1, 2, 3, 4] * 2 + [0, 1]
    assert fitted_sound(sound, 3).tolist() == [0, 1, 2]
    assert shifted_sound(sound, seconds=0.2, rate_hz=10).tolist() == [3, 4, 0, 1, 2]


def test_half_a_beat_is_half_the_median_distance():
    assert half_beat_seconds(torch.tensor([0.1, 0.6, 1.1, 2.1])) == pytest.approx(0.25)
    assert half_beat_seconds(torch.tensor([0.1])) is None
    assert half_beat_seconds(torch.tensor([])) is None


def records(own, other, **more):
    return [
        {
            "system": "a" if index % 2 else "b",
            "values": {"judge": {"beat": x, "beat_silence": y, **more}},
        }
        for index, (x, y) in enumerate(zip(own, other, strict=True))
    ]


def findings(clips):
    return control_findings(clips, metric="judge", value="beat", seed=0, confidence=0.95)


def test_scores_that_fall_for_every_clip_are_no_chance():
    found = findings(records([8, 7, 9, 8], [3, 3, 4, 3], beat_half_beat=8.0))
    silence, half_beat = found["controls"]["silence"], found["controls"]["half_beat"]
    assert silence["mean"] == pytest.approx(4.75)
    assert silence["low"] > 4
    assert silence["systems"]["b"]["mean"] == 5
    assert (silence["ignored"], half_beat["ignored"]) == (False, True)
    assert found["controls"]["other_track"]["num_missing"] == 4
    assert (found["ignores_audio"], found["ignored"]) == (False, ["half_beat"])
    printed = control_sentences(found, metric="judge", value="beat")
    assert printed[-1] == "judge: the judge IGNORES the music half a beat later."


def test_a_judge_whose_scores_go_up_and_down_ignores_audio():
    found = findings(records([8, 7, 9, 8, 7, 8], [9, 6, 8, 9, 8, 7]))
    assert found["controls"]["silence"]["low"] < 0 < found["controls"]["silence"]["high"]
    assert found["ignores_audio"] is True


def test_the_pairing_is_by_clip():
    """Scores that differ more between clips than by the music: only pairs can tell."""
    own = [1.0, 9, 3, 7, 2, 8, 4, 6]
    assert findings(records(own, [score - 0.5 for score in own]))["ignores_audio"] is False


def test_one_clip_says_nothing():
    found = findings(records([8], [0]))
    assert found["ignores_audio"] is None
    assert "too few clips" in control_sentences(found, metric="judge", value="beat")[-1]


@pytest.mark.parametrize(
    ("name", "wording", "model"),
    [
        ("judge_server", "paper", "Qwen/Qwen3-Omni-30B-A3B-Instruct"),
        ("judge_omni", "paper", "Qwen/Qwen3-Omni-30B-A3B-Instruct"),
        ("judge_videollama2", "authors", "DAMO-NLP-SG/VideoLLaMA2.1-7B-AV"),
    ],
)
def test_the_shipped_configs_build_judges(name, wording, model):
    [metric], [spec] = read_metrics(ROOT / "dance_eval" / "configs" / f"{name}.yaml")
    assert (metric.wording, metric.controls) == (wording, True)
    assert model in metric.judge.identity.values()
    assert spec["files"].keys() == {"judge"}
    # Clips may be scored in other processes.
    assert pickle.loads(pickle.dumps(metric)).fingerprints() == metric.fingerprints()


def test_a_config_without_its_answers_is_one_sentence():
    # The file of answers is the user's.
    with pytest.raises(EvaluationError, match=r"answers.jsonl: cannot be read") as caught:
        read_metrics(ROOT / "dance_eval" / "configs" / "judge_recorded.yaml")
    assert len(str(caught.value)) < 300
