import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from datamodules.aist_names import is_held_out, parse_name, tables
from musicinfuser.errors import UserError
from musicinfuser.media.audio import loudness_dbfs, read_audio
from musicinfuser.media.errors import MediaError
from musicinfuser.media.video import aist_crop, probe_video, read_clip
from small_world.generator import SmallWorldRecipe, make_small_world, read_recipe
from small_world.generator.__main__ import main
from small_world.generator.aist_like import plan_aist, record_aist
from small_world.generator.dancer import INDEX, Looks, body_joints
from small_world.generator.moves import VOCABULARIES, choreograph, draw_manner
from small_world.generator.music import STYLES, compose
from small_world.generator.wild import draw_wild

TINY = SmallWorldRecipe(
    num_aist=11,
    num_held_out=2,
    num_youtube=8,
    num_silent=1,
    num_without_audio=1,
    with_variations=True,
    basic_beats=6,
    advanced_beats=6,
    youtube_seconds=1.2,
    height=64,
    audio_rate_hz=16000,
)
RATE_HZ = TINY.audio_rate_hz
NAMED_RGB = {
    "red": (220, 30, 30), "orange": (245, 135, 20), "yellow": (245, 220, 40),
    "green": (40, 160, 60), "turquoise": (25, 190, 190), "blue": (35, 70, 215),
    "purple": (125, 45, 180), "pink": (248, 130, 185), "white": (245, 245, 245),
    "black": (20, 20, 22), "grey": (140, 142, 145),
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("small") / "world"
    make_small_world(out, TINY, show_progress=False)
    return out


def truths(world: Path, source: str) -> dict[str, dict]:
    found = [json.loads(path.read_text("utf-8")) for path in (world / "truth").glob("*.json")]
    return {truth["file"]: truth for truth in found if truth["file"].startswith(source)}


def solos(world: Path) -> dict[str, dict]:
    return {
        file: truth
        for file, truth in truths(world, "aist").items()
        if truth.get("num_dancers") == 1 and truth["camera"] == "c01"
    }


def nearest_name(rgb) -> str:
    return min(NAMED_RGB, key=lambda name: np.linalg.norm(np.subtract(NAMED_RGB[name], rgb)))


def energy_at(sound: np.ndarray, times, rate_hz: int) -> float:
    windows = [sound[round(t * rate_hz) : round((t + 0.06) * rate_hz)] for t in times]
    return float(np.mean([np.mean(w**2) for w in windows if len(w)]))


def is_same_file(first: Path, second: Path) -> bool:
    """Byte for byte; videos within what x264 changes from run to run on small frames."""
    if first.suffix != ".mp4":
        return first.read_bytes() == second.read_bytes()
    infos = probe_video(first), probe_video(second)
    if (infos[0].width, infos[0].height) != (infos[1].width, infos[1].height):
        return False
    size = dict(height=infos[0].height, width=infos[0].width, fps=infos[0].average_fps, crop=None)
    one, two = (
        read_clip(path, start_seconds=0, num_frames=20, **size).float() for path in (first, second)
    )
    return bool((one - two).abs().mean() < 2.0)


def test_files_carry_aist_names_with_music_on_the_right_side_of_the_split(world):
    names = [parse_name(path) for path in sorted((world / "aist").glob("*.mp4"))]
    assert None not in names
    danced = [name for name in names if name.genre]
    assert len(danced) == TINY.num_aist + TINY.num_held_out
    assert sum(is_held_out(name) for name in danced) == TINY.num_held_out
    assert all(name.music[1:3] == name.genre for name in danced)
    assert {name.genre for name in danced} == set(tables().genres)
    counts = Counter((name.situation, len(name.dancers)) for name in danced)
    assert counts[("GR", 3)] == 1 and counts[("FM", 1)] == 2 and counts[("MM", 1)] == 1
    assert {name.camera for name in danced if name.situation == "MM"} == {"c10"}
    assert Counter(name.camera for name in danced)["c01"] > len(danced) / 2
    assert {str(name) for name in names if not name.genre} == {"sSH_c01_v0", "sCY_c01_v3"}


def test_a_longer_plan_contains_the_shorter_one_and_repeats_no_name():
    short = set(map(str, plan_aist(SmallWorldRecipe(num_aist=40))))
    long = list(map(str, plan_aist(SmallWorldRecipe(num_aist=3000))))
    assert len(long) == len(set(long)) == 3010
    assert short < set(long)
    assert set(long) != set(map(str, plan_aist(SmallWorldRecipe(seed=1, num_aist=3000))))


def test_all_held_out_pieces_and_all_used_ones_are_there_with_their_tempo(world):
    used = {parse_name(path).music for path in (world / "aist").glob("g*.mp4")}
    music = {path.stem for path in (world / "music").glob("*.wav")}
    assert music == used | tables().held_out_music
    for file, truth in truths(world, "music").items():
        bpm = tables().music_bpm[truth["music"]]
        assert truth["bpm"] == bpm
        np.testing.assert_allclose(np.diff(truth["beats_seconds"]), 60 / bpm, atol=2e-5)
        seconds = len(read_audio(world / file)) / 16000
        assert seconds > truth["beats_seconds"][-1] > 64 * 60 / bpm


def test_beats_of_videos_follow_the_code_and_are_heard_where_the_truth_says(world):
    for file, truth in truths(world, "aist/g").items():
        bpm = tables().music_bpm[parse_name(file).music]
        beats = np.array(truth["beats_seconds"])
        np.testing.assert_allclose(np.diff(beats), 60 / bpm, atol=2e-5)
        assert abs(len(beats) - 6) <= 1
        sound = read_audio(world / file, rate_hz=RATE_HZ).numpy()
        assert abs(len(sound) / RATE_HZ - truth["num_frames"] / truth["fps"]) < 0.13
        off = [beats + share * 60 / bpm for share in (0.25, 0.5, 0.75)]
        on_beat = energy_at(sound, beats[beats < len(sound) / RATE_HZ - 0.06], RATE_HZ)
        assert on_beat > 1.5 * max(energy_at(sound, times[:-1], RATE_HZ) for times in off), file


@pytest.mark.parametrize("genre", STYLES)
def test_a_snare_tells_odd_from_even_beats(genre):
    piece = compose(f"m{genre}1", genre=genre, bpm=90, seed=3)
    treble = np.diff(piece.waveform[0])
    beats = np.array(piece.beats_seconds)
    odd, even = (energy_at(treble, beats[first::2], piece.rate_hz) for first in (1, 0))
    assert odd > 2 * even


def test_pieces_of_a_genre_differ_but_a_code_is_always_the_same_piece():
    first = compose("mBR1", genre="BR", bpm=90, seed=0).waveform
    compose.cache_clear()
    assert np.array_equal(first, compose("mBR1", genre="BR", bpm=90, seed=0).waveform)
    assert not np.allclose(first, compose("other", genre="BR", bpm=90, seed=0).waveform)
    assert not np.allclose(first, compose("mBR1", genre="BR", bpm=90, seed=1).waveform)
    assert np.abs(first).max() <= 0.95
    stereo = compose("mBR1", genre="BR", bpm=90, seed=0, num_channels=2).waveform
    assert stereo.shape == (2, first.shape[1]) and not np.allclose(stereo[0], stereo[1])


def test_an_excerpt_is_silent_outside_the_piece():
    piece = compose("mBR1", genre="BR", bpm=90, seed=0)
    cut = piece.excerpt(-0.5, 1.0)
    assert cut.shape == (1, 16000)
    assert not cut[:, :8000].any()
    assert np.array_equal(cut[:, 8000:], piece.waveform[:, :8000])


def test_dancers_come_to_rest_on_the_beat(world):
    distances = []
    for truth in solos(world).values():
        if truth["is_advanced"]:
            continue
        joints = np.array(truth["joints"][0])
        speed = np.linalg.norm(np.diff(joints, axis=0), axis=-1).mean(axis=-1)
        rests = np.flatnonzero((speed[1:-1] < speed[:-2]) & (speed[1:-1] <= speed[2:])) + 1
        times = (rests + 0.5) / truth["fps"]
        beats = np.array(truth["beats_seconds"])
        inside = times[(times > beats[0] - 0.2) & (times < beats[-1] + 0.2)]
        assert len(inside) >= len(beats) - 2
        distances += list(np.abs(inside[:, None] - beats).min(axis=1))
    assert np.mean(np.array(distances) < 0.05) > 0.9


def test_genre_phase_and_parity_tell_most_of_a_pose():
    looks = Looks(*[(0.0, 0.0, 0.0)] * 5, has_long_hair=False, height=0.5)
    genres = list(VOCABULARIES)
    features, joints, is_test = [], [], []
    for clip in range(200):
        draw = np.random.default_rng(clip)
        beats = draw.uniform(0, 60) + np.arange(73) / 30 * draw.choice([80, 100, 120]) / 60
        manner = draw_manner(draw, is_advanced=clip % 4 == 3)
        genre = clip // 20
        poses = choreograph(genres[genre], beats, manner, draw)
        joints.append(body_joints(poses, looks)[..., :2].reshape(73, -1))
        angles = np.pi * beats[:, None] * np.arange(1, 7)
        waves = np.concatenate([np.ones((73, 1)), np.cos(angles), np.sin(angles)], axis=1)
        features.append(np.kron(np.eye(10)[genre], waves))
        is_test.append(np.full(73, clip % 5 == 4))
    x, y, test = np.concatenate(features), np.concatenate(joints), np.concatenate(is_test)
    a, b = x[~test], y[~test]
    weights = np.linalg.solve(a.T @ a + 0.1 * np.eye(a.shape[1]), a.T @ b)
    left = ((y[test] - x[test] @ weights) ** 2).sum()
    assert 1 - left / ((y[test] - b.mean(axis=0)) ** 2).sum() > 0.6


def test_all_cameras_film_the_same_dance():
    front = record_aist(parse_name("gLO_sBM_c01_d13_mLO1_ch04"), TINY).truth
    back = record_aist(parse_name("gLO_sBM_c05_d13_mLO1_ch04"), TINY).truth
    side = record_aist(parse_name("gLO_sBM_c03_d13_mLO1_ch04"), TINY).truth
    here, there, across = (np.array(truth["joints"][0]) for truth in (front, back, side))
    assert front["beats_seconds"] == back["beats_seconds"]
    np.testing.assert_allclose(there[..., 0], 1 - here[..., 0], atol=2e-4)
    np.testing.assert_allclose(there[..., 1], here[..., 1], atol=2e-4)
    assert np.ptp(across[..., 0]) < 0.5 * np.ptp(here[..., 0])


def test_a_moving_camera_moves(world):
    (truth,) = [t for t in truths(world, "aist").values() if t.get("camera") == "c10"]
    still = record_aist(parse_name(truth["file"].replace("c10", "c01")), TINY).truth
    moved = np.array(truth["joints"]) - np.array(still["joints"])
    assert np.abs(moved).max() > 0.01


def test_dancers_fill_the_aist_crop(world):
    for file, truth in solos(world).items():
        box = aist_crop(truth["width"], truth["height"], target_height=64, target_width=48)
        joints = np.array(truth["joints"][0]) * (truth["width"], truth["height"])
        x, y = (joints - (box.left, box.top)).T / np.array([[[box.width]], [[box.height]]])
        assert -0.1 < y.min() and y.max() < 1.0, file
        assert y.max() - y.min() > 0.55, file
        assert np.mean((x > 0) & (x < 1)) > 0.97, file
        frame = read_clip(
            world / file, start_seconds=0, num_frames=1, height=64, width=48, fps=30.0, crop=box
        )[0]
        assert 0.04 < (frame.float().mean(dim=-1) < 150).float().mean() < 0.5


def test_two_dancers_of_a_group_stand_apart_and_women_wear_long_hair(world):
    (group,) = [t for t in truths(world, "aist/g").values() if t["num_dancers"] == 3]
    pelvis = np.array(group["joints"])[:, :, INDEX["pelvis"], 0].mean(axis=1)
    assert np.diff(np.sort(pelvis)).min() > 0.08
    woman, man = (
        record_aist(parse_name(f"gLO_sBM_c05_{dancer}_mLO1_ch04"), TINY).frames
        for dancer in ("d13", "d14")
    )
    assert tables().dancers["d13"] == "female" and tables().dancers["d14"] == "male"
    assert (woman.mean(axis=-1) < 70).mean() > (man.mean(axis=-1) < 70).mean() * 1.02


def test_captions_say_what_the_pixels_show(world):
    kinds = set()
    for file, truth in truths(world, "youtube").items():
        caption = (world / file).with_suffix(".txt").read_text("utf-8").strip()
        info = probe_video(world / file)
        clip = dict(num_frames=1, height=info.height, width=info.width, fps=info.average_fps)
        frame = read_clip(world / file, start_seconds=0.3, crop=None, **clip)[0].numpy()
        number = int(0.3 * truth["fps"] + 0.01)
        joints = np.array(truth["joints"][0][number]) * (info.width, info.height)
        middle = 0.5 * (joints[INDEX["neck"]] + joints[INDEX["pelvis"]])
        hips = joints[INDEX["pelvis"]]
        patch = [frame[int(y), int(x)] for x, y in (middle, hips)]
        caption_words = caption.replace(",", "").split()
        shirt = caption_words[[w.startswith("shirt") for w in caption_words].index(True) - 1]
        trousers = caption_words[caption_words.index("trousers") - 1]
        arms_over_body = truth["genre"] in ("LH", "MH")
        assert arms_over_body or nearest_name(patch[0]) == shirt, caption
        assert arms_over_body or nearest_name(patch[1]) == trousers, caption
        top = frame[1 : info.height // 8, 1:-1].reshape(-1, 3)
        shown = {nearest_name(rgb) for rgb in top}
        kind, first, second = truth["backdrop"]
        kinds.add(kind)
        place = {
            "plain": f"a {first} wall", "gradient": f"fading from {first} to {second}",
            "checker": f"{first} and {second} checkered wall",
            "stripes": f"{first} and {second} striped wall", "stage": f"{first} spotlight",
        }[kind]  # fmt: skip
        assert place.replace("a orange", "an orange") in caption
        if kind == "stage":
            assert "black" in shown
        else:
            assert first in shown
            assert kind in ("plain", "gradient") or second in shown
        assert tables().genres[truth["genre"]] in caption
        several = "two" in caption_words or "a man and a woman" in caption
        assert several == (truth["num_dancers"] == 2)
    assert len(kinds) >= 3


def test_wild_videos_differ_in_size_rate_and_tempo(world):
    files = sorted((world / "youtube").glob("*.mp4"))
    infos = [probe_video(file) for file in files]
    assert any(info.height > info.width for info in infos)
    assert len({(info.width, info.height) for info in infos}) >= 4
    assert {25, 30} <= {round(info.average_fps) for info in infos}
    dances = [draw_wild(index, seed=0) for index in range(300)]
    assert not {dance.bpm for dance in dances} & set(tables().music_bpm.values())
    assert len({dance.title for dance in dances}) == 300
    shares = Counter(dance.top for dance in dances)
    assert len(shares) == 10 and max(shares.values()) < 90


def test_the_asked_number_of_videos_is_silent_or_without_sound(world):
    heard = Counter()
    for file, truth in truths(world, "youtube").items():
        try:
            level = loudness_dbfs(read_audio(world / file))
            sound = "music" if level > -40 else "silence"
        except MediaError:
            sound = "none"
        assert truth["sound"] == sound
        heard[sound] += 1
    assert heard == {"music": 8, "silence": 1, "none": 1}


def test_a_cypher_changes_music_and_keeps_one_clock(world):
    truth = truths(world, "aist")["aist/sCY_c01_v3.mp4"]
    first, second, third = truth["parts"]
    assert [part["music"] for part in truth["parts"]] == ["mPO0", "mMH1", "mBR2"]
    assert truth["num_frames"] == sum(part["num_frames"] for part in (first, second, third))
    start = first["num_frames"] / first["fps"]
    later = truth["beats_seconds"][len(first["beats_seconds"])]
    assert later == pytest.approx(start + second["beats_seconds"][0], abs=1e-4)


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path):
    few: dict = dict(num_aist=1, num_held_out=0, num_youtube=1, num_silent=0, num_without_audio=0)
    few |= dict(basic_beats=2, youtube_seconds=1.0, height=32, audio_rate_hz=8000)
    for folder, seed in (("one", 5), ("two", 5), ("other", 6)):
        make_small_world(tmp_path / folder, seed=seed, show_progress=False, **few)
    one, two, other = (
        {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / name for name in ("one", "two", "other"))
    )
    assert one.keys() == two.keys()
    assert all(is_same_file(one[name], two[name]) for name in one)
    shared = [name for name in one.keys() & other.keys() if name.suffix == ".wav"]
    assert len(shared) >= 10 and not any(is_same_file(one[name], other[name]) for name in shared)
    assert {name.name for name in one if name.suffix == ".mp4"}.isdisjoint(
        name.name for name in other
    )
    dance = parse_name("gLO_sBM_c01_d13_mLO1_ch04")
    first, again, else_where = (
        record_aist(dance, SmallWorldRecipe(seed=seed, **few)) for seed in (5, 5, 6)
    )
    assert np.array_equal(first.frames, again.frames) and np.array_equal(first.audio, again.audio)
    assert first.truth == again.truth != else_where.truth


def test_repeating_a_run_keeps_files_and_makes_missing_ones(world):
    before = {path: path.stat().st_mtime_ns for path in world.rglob("*") if path.is_file()}
    lost = next(iter((world / "youtube").glob("*.txt")))
    text = lost.read_text("utf-8")
    lost.unlink()
    make_small_world(world, TINY, show_progress=False)
    after = {path: path.stat().st_mtime_ns for path in world.rglob("*") if path.is_file()}
    assert after.keys() == before.keys()
    assert lost.read_text("utf-8") == text
    assert {path.stem for path in before if after[path] != before[path]} == {lost.stem}


def test_another_recipe_or_foreign_files_are_refused_and_nothing_is_written(world, tmp_path):
    files = sorted(os.listdir(world / "aist"))
    with pytest.raises(ValueError, match=r"other settings \(num_aist is 11, not 12\)"):
        make_small_world(
            world, num_aist=12, **{k: v for k, v in vars(TINY).items() if k != "num_aist"}
        )
    assert sorted(os.listdir(world / "aist")) == files
    assert read_recipe(world) == TINY
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="no small world"):
        make_small_world(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.txt"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_aist", -1), ("basic_beats", 1), ("advanced_beats", 65), ("height", 63),
     ("youtube_seconds", 60.0), ("audio_channels", 3), ("audio_rate_hz", 100)],
)  # fmt: skip
def test_impossible_recipes_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        SmallWorldRecipe(**{field: value})


def test_command_line(tmp_path):
    options = ["--num-aist", "0", "--held-out", "1", "--num-youtube", "0", "--num-silent", "0"]
    options += ["--num-without-audio", "0", "--basic-beats", "2", "--height", "32"]
    options += ["--audio-rate-hz", "8000"]
    main([str(tmp_path / "w"), *options])
    (video,) = (tmp_path / "w" / "aist").glob("*.mp4")
    assert is_held_out(parse_name(video))
    assert not (tmp_path / "w" / "youtube").exists()
    with pytest.raises(UserError, match="seed is 0, not 1"):
        main([str(tmp_path / "w"), "--seed", "1", *options])


@pytest.mark.slow
def test_worker_processes_write_the_same_files(world, tmp_path):
    make_small_world(tmp_path / "w", TINY, num_workers=2, show_progress=False)
    for path in world.rglob("*"):
        if path.is_file():
            assert is_same_file(path, tmp_path / "w" / path.relative_to(world))
