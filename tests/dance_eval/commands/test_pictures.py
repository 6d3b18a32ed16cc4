import json

import numpy as np
import pytest
from PIL import Image

from dance_eval.commands.pictures import same_music, sheet_labels, video_names
from dance_eval.loading import EvaluationError
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.matching import clip_groups
from evaluate import main
from musicinfuser.media.audio import read_audio
from musicinfuser.media.video import probe_video
from musicinfuser.media.video_writing import write_video
from tests.dancing_square import click_track, swinging_square

NUM_FRAMES, FPS = 31, 30.0


@pytest.fixture(scope="module")
def systems(tmp_path_factory):
    """Two systems that danced to the same two songs, one of them also to a third."""
    folder = tmp_path_factory.mktemp("systems")
    for system, songs in (("truth", ["a", "b"]), ("model", ["a", "b", "c"])):
        lines = ["file,system,track,track_offset_seconds"]
        for index, song in enumerate(songs):
            frames = swinging_square(
                num_frames=NUM_FRAMES, fps=FPS, period_seconds=0.5, phase_seconds=0.1 * index
            )
            sound = click_track([0.2, 0.7], duration_seconds=NUM_FRAMES / FPS, rate_hz=16000)
            file = folder / system / f"{system}_{song}.mp4"
            write_video(file, frames, fps=FPS, audio=sound, audio_rate_hz=16000)
            lines.append(f"{file.name},{system},../{song}.wav,{0.5 if song == 'b' else 0.0}")
            (folder / f"{song}.json").write_text(json.dumps({"beats_seconds": [0.2, 0.7, 1.2]}))
        (folder / system / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder


def arguments(systems, output):
    beats = ["--music_beats=truth", f"--beats_folder={systems}", f"--output={output}"]
    return [str(systems / "truth"), str(systems / "model"), *beats]


def test_systems_stand_beside_each_other_for_each_song_they_share(systems, tmp_path, capsys):
    main(["side_by_side", *arguments(systems, tmp_path)])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b_from_0.5s.mp4"]
    info = probe_video(tmp_path / "a.mp4")
    # 64x48 pixels are enlarged five times.
    assert (info.width, info.height) == (2 * 320 + 4, 26 + 240 + 10)
    assert read_audio(tmp_path / "a.mp4", rate_hz=16000).abs().max() > 0.1
    assert "2 videos in" in capsys.readouterr().out


def test_the_number_of_videos_can_be_limited(systems, tmp_path):
    main(["side_by_side", *arguments(systems, tmp_path), "--max_clips=1"])
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_folders_without_common_music_are_refused(systems, tmp_path):
    with pytest.raises(EvaluationError, match="same track"):
        main(["side_by_side", str(systems / "truth"), f"--output={tmp_path}"])
    assert not list(tmp_path.iterdir())


def test_a_clip_that_cannot_be_read_is_named_and_the_rest_is_shown(systems, tmp_path, capsys):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "x.mp4").write_bytes(b"no video")
    (broken / "clips.csv").write_text("file,system,track\nx.mp4,broken,../a.wav\n")
    main(["side_by_side", str(broken), *arguments(systems, tmp_path / "out")])
    assert "x.mp4" in capsys.readouterr().out
    assert probe_video(tmp_path / "out" / "a.mp4").width == 2 * 320 + 4


def test_a_sheet_can_put_clips_of_one_song_below_each_other(systems, tmp_path):
    def heights(*options):
        output = tmp_path / "sheet.png"
        main(["sheet", *arguments(systems, output), "--max_clips=2", *options])
        return np.asarray(Image.open(output).convert("L")).astype(int)

    # The first two clips by folder are songs a and b of one system, by song a of both systems.
    assert np.abs(heights() - heights("--pair=true")).max() > 30


def test_a_report_holds_scores_tables_and_pictures(systems, tmp_path, capsys):
    main(["report", *arguments(systems, tmp_path)])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "metrics.json", "metrics.features", "table.md", "table.tex", "table.csv",
        "contact_sheet.png", "side_by_side", "index.html",
    }  # fmt: skip
    scores = json.loads((tmp_path / "metrics.json").read_text())["systems"]
    assert scores["model"]["beat_alignment/score"]["n"] == 3
    assert " truth " in (tmp_path / "table.md").read_text()
    assert (tmp_path / "table.md").read_text() in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "side_by_side").iterdir()) == [
        "a.mp4", "b_from_0.5s.mp4"
    ]  # fmt: skip
    main(["sheet", *arguments(systems, tmp_path / "pairs.png"), "--pair=true"])
    pairs, drawn = (tmp_path / name for name in ("pairs.png", "contact_sheet.png"))
    assert pairs.read_bytes() == drawn.read_bytes()


def test_a_report_of_one_system_has_no_videos_beside_each_other(systems, tmp_path):
    own, _, *options = arguments(systems, tmp_path)
    main(["report", own, *options])
    assert not (tmp_path / "side_by_side").exists()
    assert (tmp_path / "contact_sheet.png").stat().st_size > 1000


def test_videos_and_labels_have_names_of_their_own(tmp_path):
    def entry(system, prompt, seed, folder="one"):
        return ClipEntry(tmp_path / folder, "0.mp4", system, "a.wav", prompt=prompt, seed=seed)

    asked = [("a man", 0), ("a man", 1), ("a woman", 0), ("a man!", 0)]
    groups = clip_groups([entry(system, *of) for system in ("base", "ours") for of in asked])
    assert video_names(groups) == ["a_a-man_seed0", "a_a-man_seed1", "a_a-man_seed0_2",
                                   "a_a-woman_seed0"]  # fmt: skip
    clips = [entry("ours", "p", 0), entry("ours", "p", 0, "two"), entry("base", "p", 0)]
    assert sheet_labels(clips) == [
        f"ours: {tmp_path}/one/0.mp4", f"ours: {tmp_path}/two/0.mp4", "base: 0.mp4"
    ]  # fmt: skip


def test_clips_are_grouped_by_song_and_start_in_the_order_of_the_folders(tmp_path):
    def entry(system, track, start):
        return ClipEntry(
            tmp_path, f"{system}_{track}_{start}", system, track, track_offset_seconds=start
        )

    entries = [
        entry("truth", "x/a.wav", 0.0), entry("truth", "x/a.wav", 1.0),
        entry("model", "y/a.mp3", 1.0), entry("model", "y/a.mp3", 0.0),
        entry("model", "y/a.mp3", 0.0),
    ]  # fmt: skip
    groups = [[clip.file for clip in group] for group in same_music(entries)]
    assert groups == [
        ["truth_x/a.wav_0.0", "model_y/a.mp3_0.0"],
        ["truth_x/a.wav_1.0", "model_y/a.mp3_1.0"],
    ]
