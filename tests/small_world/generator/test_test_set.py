import csv
import json
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

import evaluate
from datamodules import AISTDataset, YouTubeDataset
from datamodules.aist_names import parse_name, tables
from datamodules.clips import RawClip
from datamodules.generation_requests import RequestsSpec, make_requests
from musicinfuser.errors import UserError
from musicinfuser.media.audio import clip_audio_seconds, read_audio
from musicinfuser.media.video import aist_crop, centre_crop, probe_video, read_clip
from small_world.generator import SmallWorldRecipe, make_small_world
from small_world.generator.test_clips import Choice, Take
from small_world.generator.test_set import main, make_test_set, other_music
from tests.datamodules.conftest import cut

NUM_FRAMES, NUM_CLIPS, SEED, TEMPO = 37, 4, 3, 1.25
WORLD = SmallWorldRecipe(
    seed=2, num_aist=1, num_held_out=5, num_youtube=4, num_silent=1, num_without_audio=1,
    basic_beats=8, youtube_seconds=2.5, height=108, audio_rate_hz=16000,
)  # fmt: skip
SOURCES = ("aist", "youtube")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("small") / "world"
    make_small_world(out, WORLD, show_progress=False)
    return out


def choice(source: str = "aist", **changes) -> Choice:
    num_clips = NUM_CLIPS if source == "aist" else 2
    options = {"num_clips": num_clips, "num_frames": NUM_FRAMES, "seed": SEED} | changes
    return Choice(source=source, **options)


@pytest.fixture(scope="module")
def sets(world: Path, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sets")
    for source in SOURCES:
        make_test_set(world, folder / source, choice(source), tempos=[TEMPO], show_progress=False)
    return {source: folder / source for source in SOURCES}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def truths(folder: Path) -> dict[str, dict]:
    return {p.stem: json.loads(p.read_text("utf-8")) for p in sorted(folder.glob("truth/*.json"))}


def frames_of(path: Path) -> torch.Tensor:
    return read_clip(
        path, start_seconds=0, num_frames=NUM_FRAMES, height=64, width=64, crop=None
    ).float()


def energy_at(sound: np.ndarray, times: np.ndarray, rate_hz: int) -> float:
    windows = [sound[round(t * rate_hz) : round((t + 0.06) * rate_hz)] for t in times]
    return float(np.mean([np.mean(w**2) for w in windows if len(w)]))


@pytest.mark.parametrize("source", SOURCES)
def test_clips_are_those_of_the_encode_job(world: Path, sets: dict, source: str) -> None:
    kind = AISTDataset if source == "aist" else YouTubeDataset
    job = cut(kind, world / source, num_frames=NUM_FRAMES, height=64, width=64, fps=30.0, seed=SEED)
    numbers = {spec.clip_id: index for index, spec in enumerate(job.clips)}
    listed = rows(sets[source] / "ground_truth" / "clips.csv")
    assert len(listed) == choice(source).num_clips
    assert len(list((sets[source] / "ground_truth").glob("*.mp4"))) == len(listed)
    videos = set()
    for number, row in enumerate(listed):
        path = sets[source] / "ground_truth" / row["file"]
        assert row["system"] == "ground truth" and float(row["track_offset_seconds"]) == 0
        assert int(path.stem[:3]) == number
        clip = job[numbers[path.stem[4:]]]
        assert isinstance(clip, RawClip)
        videos.add(clip.spec.path)
        truth = json.loads((world / "truth" / f"{clip.spec.path.stem}.json").read_text("utf-8"))
        assert truth["num_dancers"] == 1 and row["prompt"] == clip.spec.caption
        if source == "aist":
            name = parse_name(clip.spec.path)
            assert name.camera == "c01" and name.music in tables().held_out_music
        else:
            assert truth["sound"] == "music"
        info = probe_video(path)
        assert (info.height, info.width, info.average_fps, info.has_audio) == (64, 64, 30, True)
        assert info.duration_seconds == pytest.approx(NUM_FRAMES / 30, abs=1e-3)
        # Colours of single pixels are lost in an mp4, their brightness is not.
        assert (frames_of(path) - clip.frames).mean(-1).abs().mean() < 4
        track = path.parent / row["track"]
        heard = read_audio(track)
        assert len(heard) / 16000 > clip_audio_seconds(NUM_FRAMES) + 0.05
        # 16 bits.
        assert (heard[: len(clip.waveform)] - clip.waveform).abs().max() < 1e-4
        sound = read_audio(path)[: len(clip.waveform)]
        assert torch.corrcoef(torch.stack([sound, heard[: len(sound)]]))[0, 1] > 0.95
    assert len(videos) == len(listed)


@pytest.mark.parametrize("source", SOURCES)
def test_truth_is_on_the_clock_and_in_the_frames_of_the_clip(
    world: Path, sets: dict, source: str
) -> None:
    for stem, truth in truths(sets[source]).items():
        file = Path(truth["file"])
        whole = json.loads((world / "truth" / f"{file.stem}.json").read_text("utf-8"))
        start = truth["start_seconds"]
        with wave.open(str(sets[source] / "music" / f"{stem}.wav")) as wav:
            length = wav.getnframes() / wav.getframerate()
        expected = [b - start for b in whole["beats_seconds"] if start <= b < start + length]
        np.testing.assert_allclose(truth["beats_seconds"], expected, atol=2e-5)
        assert len(expected) >= 2 and len(truth["beat_in_bar"]) == len(expected)
        for key in ("genre", "bpm", "music", "joint_names", "num_dancers"):
            assert truth[key] == whole[key]
        # Joint by joint, frame by frame.
        crop = aist_crop if source == "aist" else centre_crop
        box = crop(whole["width"], whole["height"], target_height=64, target_width=64)
        joints = np.array(truth["joints"])
        assert joints.shape == (1, NUM_FRAMES, 15, 2)
        for i in range(NUM_FRAMES):
            shown = max(
                n for n in range(whole["num_frames"]) if n / whole["fps"] < start + i / 30 + 1e-3
            )
            for j in (0, 7, 14):
                x, y = whole["joints"][0][shown][j]
                found = joints[0, i, j] * (box.width, box.height) + (box.left, box.top)
                assert found == pytest.approx((x * whole["width"], y * whole["height"]), abs=0.02)


def test_joints_lie_on_the_dancer(sets: dict) -> None:
    """The studio is white and grey; a body is not."""
    for stem, truth in truths(sets["aist"]).items():
        frames = frames_of(sets["aist"] / "ground_truth" / f"{stem}.mp4")
        names = [truth["joint_names"].index(n) for n in ("pelvis", "neck", "left_knee")]
        joints = torch.tensor(truth["joints"])[0][:, names]
        on_body = []
        for shift in (0.0, 0.4):
            x, y = ((joints + torch.tensor([shift, 0.0])) * 64).long().clamp(0, 63).unbind(-1)
            pixels = frames[torch.arange(NUM_FRAMES)[:, None], y, x]
            on_body.append(((pixels - 228).abs().amax(-1) > 40).float().mean().item())
        assert on_body[0] > 0.95 and on_body[1] < 0.1, (stem, on_body)


def test_lists_pair_the_clips_with_own_other_and_no_music(sets: dict) -> None:
    folder = sets["aist"]
    known = truths(folder)
    requests = {
        name: make_requests(
            RequestsSpec(requests=f"{folder}/{name}.csv"), num_frames=7, height=64, width=64
        )
        for name in ("own", "other", "nothing")
    }
    for name, listed in requests.items():
        assert [c.seed for c in listed] == list(range(NUM_CLIPS)), name
        assert [Path(c.track).stem for c in listed] == list(known)
        assert all(Path(c.track).parent == folder / "music" for c in listed)
        assert [c.prompt for c in listed] == [t["prompt"] for t in known.values()]
        assert {(c.num_frames, c.track_offset_seconds) for c in listed} == {(NUM_FRAMES, 0.0)}
    assert {c.heard for c in requests["own"]} == {None}
    assert {c.heard for c in requests["nothing"]} == {"nothing"}
    heard = [Path(c.heard).stem for c in requests["other"]]
    assert sorted(heard) == sorted(known)
    for request, stem in zip(requests["other"], heard, strict=True):
        own = known[Path(request.track).stem]
        assert known[stem]["music"] != own["music"] and known[stem]["bpm"] != own["bpm"]


def takes(*pieces: tuple[str, float]) -> list[Take]:
    return [
        Take(number, None, {"music": music, "bpm": bpm})  # type: ignore[arg-type]
        for number, (music, bpm) in enumerate(pieces)
    ]


def test_every_clip_gets_another_piece_as_long_as_none_fills_the_set() -> None:
    half = [("a", 80.0)] * 3 + [("b", 80.0), ("c", 90.0), ("d", 130.0)]
    for pieces in (half, half[::-1], [("b", 100.0), ("a", 100.0)]):
        heard = other_music(takes(*pieces))
        assert sorted(heard) == list(range(len(pieces)))
        assert all(pieces[i][0] != pieces[j][0] for i, j in enumerate(heard))
    with pytest.raises(ValueError, match="More than half of the 5 clips dance to a,"):
        other_music(takes(*half[:5]))
    tempos = [("a", 80.0), ("b", 90.0), ("c", 100.0), ("d", 110.0), ("e", 120.0), ("f", 130.0)]
    heard = other_music(takes(*tempos))
    assert all(abs(tempos[i][1] - tempos[j][1]) == 30 for i, j in enumerate(heard))


@pytest.mark.parametrize("source", SOURCES)
def test_the_same_dance_at_another_tempo(sets: dict, source: str) -> None:
    folder = sets[source] / f"tempo_{TEMPO}"
    plain, faster = truths(sets[source]), truths(folder)
    assert list(faster) == list(plain)
    own = rows(folder / "own.csv")
    assert own == rows(sets[source] / "own.csv")
    assert not (folder / "other.csv").exists()
    listed = rows(folder / "ground_truth" / "clips.csv")
    assert {row["system"] for row in listed} == {"ground truth at tempo 1.25"}
    assert [row["file"] for row in listed] == [f"{stem}.mp4" for stem in faster]
    for stem, truth in faster.items():
        assert truth["tempo"] == TEMPO
        assert truth["bpm"] == pytest.approx(TEMPO * plain[stem]["bpm"])
        for key in ("music", "genre", "prompt", "is_mirrored", "file"):
            assert truth[key] == plain[stem][key]
        beats = np.array(truth["beats_seconds"])
        np.testing.assert_allclose(np.diff(beats), 60 / truth["bpm"], atol=3e-5)
        frames = frames_of(folder / "ground_truth" / f"{stem}.mp4")
        before = frames_of(sets[source] / "ground_truth" / f"{stem}.mp4")
        # The same dancer in the same place, in other poses.
        assert 0.5 < (frames - before).abs().mean() < 40
        assert (frames.mean((0, 1, 2)) - before.mean((0, 1, 2))).abs().max() < 12
        sound = read_audio(folder / "music" / f"{stem}.wav").numpy()
        beats = beats[beats < len(sound) / 16000 - 0.06]
        off = [energy_at(sound, beats[:-1] + s * 60 / truth["bpm"], 16000) for s in (0.3, 0.7)]
        assert energy_at(sound, beats, 16000) > max(off), stem


def test_ground_truth_can_be_scored_with_its_beats(sets: dict, tmp_path: Path) -> None:
    folder = sets["aist"]
    report = tmp_path / "metrics.json"
    arguments = ["--music_beats=truth", f"--beats_folder={folder}/truth", f"--output={report}"]
    evaluate.main(["score", str(folder / "ground_truth"), *arguments])
    scored = json.loads(report.read_text())
    assert scored["complete"] and [c["failures"] for c in scored["clips"]] == [{}] * NUM_CLIPS
    values = [clip["values"]["beat_alignment"] for clip in scored["clips"]]
    counts = [sum(b < NUM_FRAMES / 30 for b in t["beats_seconds"]) for t in truths(folder).values()]
    assert [value["num_music_beats"] for value in values] == counts


def test_repeating_changes_nothing_and_fills_gaps(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    arguments = [
        str(world), str(out), f"--num-frames={NUM_FRAMES}", f"--num-clips={NUM_CLIPS}",
        f"--seed={SEED}",
    ]  # fmt: skip
    main(arguments)
    files = sorted(path for path in out.rglob("*") if path.is_file())
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
    main(arguments)
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in files} == before
    truth = next(out.glob("truth/001*.json"))
    for path in (truth, out / "other.csv"):
        path.unlink()
    main(arguments)
    assert sorted(path for path in out.rglob("*") if path.is_file()) == files
    assert all(p.read_bytes() == before[p][1] for p in (truth, out / "other.csv"))
    # Tempos may come later.
    main([*arguments, "--tempo", "0.8"])
    assert len(list(out.glob("tempo_0.8/music/*.wav"))) == NUM_CLIPS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-clips=6"], "holds 5 videos for aist clips, fewer than 6; make a world with more"),
        (["--num-clips=1"], "num_clips is 1; it must be at least 2"),
        (["--num-frames=36"], "num_frames is 36"),
        (["--num-frames=145"], "too short"),
        (["--tempo", "3"], "tempo is 3.0; it must be at least 0.5 and at most 2"),
        (["--num-frames=85", "--tempo", "2"], "tempo 2 leaves "),
    ],
)
def test_what_cannot_be_made(world: Path, tmp_path: Path, options: list[str], message: str) -> None:
    command = [str(world), str(tmp_path / "set"), "--num-clips=4", "--num-frames=37", *options]
    with pytest.raises(UserError, match=message):
        main(command)
    assert not (tmp_path / "set").exists()


def test_folders_of_others_are_left_alone(world: Path, sets: dict, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"other settings \(seed is 3, not 4\)"):
        make_test_set(world, sets["aist"], choice(seed=4), show_progress=False)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds files that are no test set"):
        make_test_set(world, tmp_path, choice(), show_progress=False)
    with pytest.raises(ValueError, match="does not describe a small world"):
        make_test_set(tmp_path, tmp_path / "set", choice(), show_progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
