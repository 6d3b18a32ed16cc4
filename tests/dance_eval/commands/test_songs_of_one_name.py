"""Two songs called audio.wav, each in a folder of its own, as datasets have them."""

import json

import pytest
import torch

from dance_eval.commands.compare import matched_pairs
from dance_eval.commands.pictures import same_music
from dance_eval.loading import EvaluationError, collect_clips
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.features import PixelStatistics
from dance_eval.metrics.judge_controls import mismatched_audio
from dance_eval.metrics.music_beats import MusicBeats
from dance_eval.metrics.music_response import MusicResponse
from dance_eval.metrics.seed_diversity import SeedDiversity
from dance_eval.metrics.tempo_response import TempoResponse
from dance_eval.study.key import read_key
from evaluate import main
from musicinfuser.errors import UserError
from musicinfuser.media.audio import write_wav
from musicinfuser.media.video_writing import write_video
from tests.dancing_square import swinging_square
from tests.scored_dances import known_beats

RATE_HZ, NUM_FRAMES, FPS = 16000, 9, 30.0
TONES = {"a": 300.0, "b": 900.0}


def tone(hertz, seconds):
    return 0.5 * torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * RATE_HZ)) / RATE_HZ)


@pytest.fixture(scope="module")
def systems(tmp_path_factory):
    """Two systems that name the same two songs by other paths and in another order."""
    root = tmp_path_factory.mktemp("songs")
    for song, hertz in TONES.items():
        write_wav(root / "music" / song / "audio.wav", tone(hertz, 2.0), rate_hz=RATE_HZ)
        # The other system was made where the songs lie elsewhere.
        copy = root / "elsewhere" / f"{song}2" / "audio.wav"
        write_wav(copy, tone(hertz, 2.0), rate_hz=RATE_HZ)
    for system, songs in (("base", "ab"), ("adapted", "ba")):
        lines = []
        for place, song in enumerate(songs):
            frames = swinging_square(
                num_frames=NUM_FRAMES, fps=FPS, period_seconds=0.2, phase_seconds=0.1 * place
            )
            sound = tone(TONES[song], NUM_FRAMES / FPS)
            file = root / system / f"{place}.mp4"
            write_video(file, frames, fps=FPS, audio=sound, audio_rate_hz=RATE_HZ)
            track = f"../music/{song}/audio.wav"
            if system == "adapted":
                track = str(root / "elsewhere" / f"{song}2" / "audio.wav")
            line = {"file": file.name, "system": system, "track": track, "prompt": "p", "seed": 0}
            lines.append(json.dumps(line | {"track_offset_seconds": 0.0}))
        (root / system / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def entries(systems):
    return collect_clips([systems / "base", systems / "adapted"])[0]


def names(clips):
    return [f"{clip.system}/{clip.file}" for clip in clips]


PAIRS = [["base/0.mp4", "adapted/1.mp4"], ["base/1.mp4", "adapted/0.mp4"]]


def test_the_pictures_and_the_judge_see_each_song_once(entries, capsys):
    assert [names(group) for group in same_music(entries)] == PAIRS
    assert [names(pair) for pair in matched_pairs(entries)[0]] == PAIRS


def test_videos_beside_each_other_do_not_overwrite_each_other(systems, tmp_path, capsys):
    folders = [str(systems / "base"), str(systems / "adapted")]
    main(["side_by_side", *folders, f"--output={tmp_path}"])
    found = sorted(path.name for path in tmp_path.iterdir())
    assert len(found) == 2 and all(name.endswith("_audio.mp4") for name in found)


def test_the_study_pairs_them_and_keeps_their_sounds(systems, tmp_path):
    folders = [str(systems / "base"), str(systems / "adapted")]
    output = tmp_path / "study"
    main(["study", "build", *folders, f"--output={output}", "--raters=2", "--seed=0"])
    key = read_key(tmp_path / "study.key.json")
    pairs = [item for item in key.items.values() if item.kind == "pair"]
    found = sorted(
        [f"{clip.system}/{clip.file}" for clip in (key.clips[i.first], key.clips[i.second])]
        for i in pairs
    )
    assert found == sorted(PAIRS)
    assert not any("sounds differ" in note for note in key.notes)


def test_the_judge_hears_the_other_song(entries):
    other = mismatched_audio(entries, seed=0)
    by_name = {f"{e.system}/{e.file}": e.path for e in entries}
    song_a = {by_name["base/0.mp4"], by_name["adapted/1.mp4"]}
    assert len(other) == 4
    assert all((path in song_a) != (source in song_a) for path, source in other.items())


def test_sets_of_clips_tell_the_songs_apart(entries):
    metric = SeedDiversity(features=PixelStatistics())
    metric.prepare(entries, seed=0)
    cells = {f"{e.system}/{e.file}": metric.labels_of(e, system=e.system)[0] for e in entries}
    assert cells["base/0.mp4"] == cells["adapted/1.mp4"] != cells["base/1.mp4"]
    response = MusicResponse()
    response.prepare(entries, seed=0)
    music = {f"{e.system}/{e.file}": response.labels_of(e, system=e.system)[1] for e in entries}
    assert music["base/0.mp4"] == music["adapted/1.mp4"] != music["base/1.mp4"]


def test_songs_at_other_tempi_belong_to_the_song_of_their_folder(systems, tmp_path):
    def entry(track, offset=0.0):
        return ClipEntry(tmp_path / "videos", "x.mp4", "s", str(track), offset, prompt="p", seed=0)

    played = [entry(systems / "music" / song / "audio.wav", 3.0) for song in "ab"]
    slow = [entry(tmp_path / "tempi" / song / "audio_tempo_0.75.wav", 4.0) for song in "ab"] + [
        entry(tmp_path / "tempi" / "audio_tempo_0.75.wav", 4.0)
    ]
    metric = TempoResponse()
    metric.prepare([*played, *slow], seed=0)
    cells = [metric.labels_of(e, system="s")[0] for e in [*played, *slow]]
    assert cells[0] == cells[2] != cells[1] == cells[3]
    # One name that fits both is neither.
    assert cells[4] not in cells[:4]


def test_known_beats_lie_in_a_folder_per_song_or_are_refused(entries, systems, tmp_path):
    def beats():
        return MusicBeats(lambda path: torch.zeros(0), mode="truth", folder=tmp_path)

    known_beats(tmp_path / "audio.json", [1.0])
    with pytest.raises(UserError, match=r"audio.json: would give the beats of .*two pieces"):
        beats().check(entries[:2])
    with pytest.raises(UserError, match="audio.json"):
        main(["score", str(systems / "base"), "--music_beats=truth", f"--beats_folder={tmp_path}",
              f"--output={tmp_path / 'metrics.json'}"])  # fmt: skip
    assert not (tmp_path / "metrics.json").exists()
    for number, song in enumerate("ab"):
        (tmp_path / song).mkdir()
        known_beats(tmp_path / song / "audio.json", [0.1 * (number + 1)])
    beats().check(entries[:2])
    read = [beats().read(entry, duration_seconds=2.0).tolist() for entry in entries[:2]]
    assert read == [[0.1], [0.2]]


def test_a_folder_that_is_named_twice_counts_once(systems, tmp_path):
    twice = systems / "base" / ".." / "base"
    assert len(collect_clips([systems / "base", twice])[0]) == 2
    (tmp_path / "again").mkdir()
    path = systems / "base" / "0.mp4"
    (tmp_path / "again" / "clips.csv").write_text(f"file,system,track\n{path},base,\n")
    with pytest.raises(EvaluationError, match="0.mp4: is listed in .*base for the system 'base'"):
        collect_clips([systems / "base", tmp_path / "again"])
