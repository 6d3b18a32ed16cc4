"""No clip crosses a cut, and where there is none everything is as without looking for cuts."""

import json
import math
import os
import sys
import tomllib
from itertools import accumulate

import pytest
import torch
import yaml

from datamodules.clips import RawClip, SourceVideo
from datamodules.report import left_out_of
from datamodules.shots import (
    Shot,
    ShotSettings,
    detect_cuts,
    find_cuts,
    place,
    shots_between,
    stored_cuts_only,
)
from datamodules.youtube import YouTubeDataset, clip_stem
from musicinfuser.media.latents import read_headers
from musicinfuser.media.video import probe_video
from musicinfuser.media.video_writing import write_video
from tests.conftest import ROOT, encode_arguments
from tests.datamodules.conftest import cut
from tests.media.conftest import RATE_HZ, damage_packet, sine
from train import main

FPS = 30
PALETTE = torch.tensor(
    [[200, 40, 40], [40, 60, 200], [230, 220, 120], [20, 20, 20], [40, 180, 60], [235, 235, 235]]
)
SMALL = {"num_frames": 13, "height": 32, "width": 32, "crops_per_minute": 200}
CLIP_SECONDS = 0.5


def write_edited(path, shots, *, noise=0):
    """A video of shots of so many frames, each of a colour of the palette, where a bar moves."""
    colour = PALETTE[torch.arange(len(shots)).repeat_interleave(torch.tensor(shots)) % len(PALETTE)]
    frames = colour[:, None, None].repeat(1, 48, 64, 1)
    for k, frame in enumerate(frames):
        bar = 32 + abs(k % 40 - 20)
        frame[:, bar : bar + 8] += 20
    frames += torch.randint(-noise, noise + 1, frames.shape)
    sound = torch.from_numpy(sine(440, len(frames) / FPS)).float()
    frames = frames.clamp(0, 255).to(torch.uint8)
    write_video(path, frames, fps=FPS, audio=sound, audio_rate_hz=RATE_HZ)
    return path


def cuts_of(*shots):
    return [end / FPS for end in accumulate(shots)][:-1]


def colours(clip):
    """Which colour of the palette each frame of a clip has on its left."""
    left = clip.frames[:, :, :8].float().mean((1, 2))
    return torch.cdist(left, PALETTE.float()).argmin(1)


@pytest.fixture
def settings(tmp_path):
    return lambda **options: ShotSettings(folder=str(tmp_path / "kept"), **options)


def test_shots_lie_between_the_cuts_and_inside_the_margins():
    assert shots_between([0.5, 4.0, 9.7], 10.0, edge_margin=0.1) == [Shot(1.0, 4.0), Shot(4.0, 9.0)]
    assert shots_between([], 10.0, edge_margin=0.0, margin_seconds=0.5) == [Shot(0.0, 10.0)]
    assert shots_between([3.0, 3.5, 7.0], 10.0, edge_margin=0.0, margin_seconds=0.5) == [
        Shot(0.0, 2.5), Shot(3.5, 3.5), Shot(4.0, 6.5), Shot(7.5, 10.0),
    ]  # fmt: skip


def test_one_shot_takes_a_draw_as_it_always_was_taken():
    for draw in torch.rand(200, generator=torch.Generator().manual_seed(0)).double().tolist():
        for seconds in (2.9, 7.3, 61.7):
            (whole,) = shots_between([], seconds, edge_margin=0.05)
            earliest, latest = 0.05 * seconds, (1 - 0.05) * seconds - 2.5
            expected = (whole, 73, earliest + draw * (latest - earliest))
            assert place(draw, [whole], lengths={73: 2.5}) == expected


def test_longer_shots_are_met_more_often_and_starts_fill_them():
    shots = [Shot(1.0, 4.0), Shot(6.0, 7.0), Shot(8.0, 16.0)]
    placed = [place((k + 0.5) / 1200, shots, lengths={25: 1.0}) for k in range(1200)]
    assert [sum(shot is s for s, *_ in placed) for shot in shots] == [300, 100, 800]
    for shot in shots:
        starts = [start for s, _, start in placed if s is shot]
        assert shot.start_seconds <= min(starts) < shot.start_seconds + 0.01
        assert shot.end_seconds - 1.01 < max(starts) <= shot.end_seconds - 1.0
    assert place(1 - 2**-53, shots, lengths={25: 1.0})[2] <= 15.0


def test_a_clip_is_as_long_as_its_shot_allows():
    shots, lengths = [Shot(0.0, 1.0), Shot(2.0, 4.5), Shot(6.0, 16.5)], {25: 1.0, 49: 1.7, 73: 2.5}
    placed = [place((k + 0.5) / 1400, shots, lengths=lengths) for k in range(1400)]
    taken = {(shots.index(shot), frames) for shot, frames, _ in placed}
    assert taken == {(0, 25), (1, 73), (2, 73)}
    assert [sum(shot is s for s, *_ in placed) for shot in shots] == [100, 250, 1050]
    for shot, frames, start in placed:
        assert shot.start_seconds <= start <= shot.end_seconds - lengths[frames] + 1e-12
    assert place(0.5, [Shot(0.0, 2.4)], lengths=lengths)[1] == 49


@pytest.mark.parametrize("detector", ["adaptive", "content"])
def test_cuts_are_found_where_the_picture_changes(tmp_path, detector):
    shots = (30, 40, 4, 8, 50, 2)
    path = write_edited(tmp_path / "a.mp4", shots, noise=2)
    assert detect_cuts(path, ShotSettings(detector)) == pytest.approx(cuts_of(*shots))


def test_a_threshold_decides_what_is_a_cut(tmp_path):
    path = write_edited(tmp_path / "a.mp4", (30, 30))
    assert detect_cuts(path, ShotSettings("content", threshold=20.0)) == pytest.approx([1.0])
    assert detect_cuts(path, ShotSettings("content", threshold=200.0)) == []
    assert detect_cuts(path, ShotSettings("adaptive", threshold=254.0)) == []


def test_no_clip_crosses_a_cut(tmp_path, settings):
    write_edited(tmp_path / "wild" / "a.mp4", (30, 45, 5, 28, 1, 60))

    few = SMALL | {"crops_per_minute": 100}

    def mixed(dataset):
        clips = [dataset[i] for i in range(len(dataset))]
        assert all(isinstance(clip, RawClip) for clip in clips)
        return [len(set(colours(clip).tolist())) > 1 for clip in clips]

    anywhere = mixed(cut(YouTubeDataset, tmp_path / "wild", **few))
    assert sum(anywhere) >= 2
    dataset = cut(YouTubeDataset, tmp_path / "wild", shots=settings(), **few)
    assert not any(mixed(dataset))
    assert {spec.attributes["shot"] for spec in dataset.clips} == {
        "0.282-0.900 s", "1.100-2.400 s", "2.767-3.500 s", "3.700-5.352 s",
    }  # fmt: skip
    # As many per minute as ever, of the 4.30 s that are used of the 5.07 between the margins.
    assert len(anywhere) == math.ceil(100 / 60 * 169 / 30)
    assert len(dataset) == math.ceil(100 / 60 * 169 / 30 * 4.30 / 5.07)
    assert [(r["kind"], r["reason"], r["count"]) for r in left_out_of(dataset)] == [
        ("shots", "shot shorter than a clip", 1)
    ]


def test_a_video_of_one_shot_gives_the_clips_it_always_gave(tmp_path, settings):
    write_edited(tmp_path / "wild" / "a.mp4", (90,))
    write_edited(tmp_path / "wild" / "b.mp4", (18,))
    plain = cut(YouTubeDataset, tmp_path / "wild", **SMALL)
    assert cut(YouTubeDataset, tmp_path / "wild", shots=settings(), **SMALL).clips == plain.clips
    assert len(plain) == 10 + 2


def test_short_shots_give_no_clip_and_are_counted(tmp_path, settings):
    write_edited(tmp_path / "wild" / "a.mp4", (12, 19, 11, 6))
    write_edited(tmp_path / "wild" / "b.mp4", (30, 90))
    dataset = cut(YouTubeDataset, tmp_path / "wild", shots=settings(min_seconds=2.0), **SMALL)
    assert {spec.attributes["shot"] for spec in dataset.clips} == {"1.100-3.800 s"}
    (skip,) = dataset.skipped
    assert skip.path.name == "a.mp4"
    assert skip.reason == "no shot is long enough: the longest of 4 has 0.43 s"
    assert dataset.num_shots_left_out == {
        "shot shorter than a clip": 4,
        "shot shorter than min_seconds": 1,
    }


def test_each_file_is_looked_at_once(tmp_path, settings):
    path = write_edited(tmp_path / "wild" / "ダンス.mp4", (30, 40))
    shots = settings()
    before = cut(YouTubeDataset, tmp_path / "wild", shots=shots, **SMALL).clips
    kept = tmp_path / "kept" / "adaptive" / f"{clip_stem('ダンス.mp4')}.json"
    found = json.loads(kept.read_text())
    assert found["file"] == "ダンス.mp4" and found["cuts_seconds"] == [1.0]
    assert [p for p in (tmp_path / "kept").rglob("*") if p.is_file()] == [kept]
    assert cut(YouTubeDataset, tmp_path / "wild", shots=shots, **SMALL).clips == before

    (first,) = {spec.attributes["shot"].split("-")[0] for spec in before} - {"1.100"}

    def cuts_now(**options):
        clips = cut(YouTubeDataset, tmp_path / "wild", shots=settings(**options), **SMALL).clips
        return {spec.attributes["shot"].split("-")[0] for spec in clips} - {first}

    # What is kept is believed, for this detector alone, until the file changes.
    kept.write_text(json.dumps(found | {"cuts_seconds": [1.2]}))
    assert cuts_now() == {"1.300"}
    assert cuts_now(threshold=2.5) == cuts_now(detector="content") == {"1.100"}
    os.utime(path, (1e9, 1e9))
    assert cuts_now() == {"1.100"}
    kept.write_text("broken")
    assert cuts_now() == {"1.100"}
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"cuts_seconds": [1.2]}))
    assert cuts_now() == {"1.300"}
    with path.open("ab") as file:  # another size at the same time
        file.write(b"\0" * 8)
    os.utime(path, (1e9, 1e9))
    assert cuts_now() == {"1.100"}


def test_a_file_whose_cuts_cannot_be_found_is_skipped(tmp_path, settings):
    write_edited(tmp_path / "wild" / "a.mp4", (40,))
    damaged = write_edited(tmp_path / "wild" / "b.mp4", (40, 40), noise=60)
    damage_packet(damaged, "video", 50, whole=True)
    dataset = cut(YouTubeDataset, tmp_path / "wild", shots=settings(), **SMALL)
    assert {spec.path.name for spec in dataset.clips} == {"a.mp4"}
    (skip,) = dataset.skipped
    assert skip.path == damaged
    assert skip.reason.startswith("its cuts cannot be found: ") and "is damaged near" in skip.reason


def test_several_processes_share_the_work_and_agree(tmp_path, settings):
    paths = [write_edited(tmp_path / f"{k}.mp4", (20 + k, 20)) for k in range(4)]
    videos = [SourceVideo(p, p.stem, "", "", attributes={"file": p.name}) for p in paths]
    infos = {path: probe_video(path) for path in paths}
    # One process has found the first two by the time the other starts.
    find_cuts(videos[:2], infos, settings(), time_limit_seconds=60)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*.json")}
    with stored_cuts_only():
        found = find_cuts(videos, infos, settings(), time_limit_seconds=60)
        assert [found[path] for path in paths] == [[20 / 30], [21 / 30], None, None]
    found = find_cuts(videos, infos, settings(), time_limit_seconds=60)
    assert [found[path] for path in paths] == [[k / 30] for k in (20, 21, 22, 23)]
    assert {path: path.stat().st_mtime_ns for path in made} == made


def test_without_pyscenedetect_a_sentence_says_what_to_do(tmp_path, settings, monkeypatch):
    write_edited(tmp_path / "wild" / "a.mp4", (40,))
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    with pytest.raises(ValueError, match=r"needs PySceneDetect.*pip install '\.\[shots\]'.*null"):
        cut(YouTubeDataset, tmp_path / "wild", shots=settings(), **SMALL)
    assert len(cut(YouTubeDataset, tmp_path / "wild", **SMALL)) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"detector": "hash"}, "shots.detector must be 'adaptive' or 'content', not 'hash'"),
        ({"threshold": 0}, "shots.threshold is 0; it must be above 0"),
        ({"min_seconds": -1}, "shots.min_seconds is -1; it must be at least 0"),
        ({"margin_seconds": -1}, "shots.margin_seconds is -1; it must be at least 0"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        ShotSettings(**options)


def test_check_looks_at_no_video_and_encoding_keeps_to_the_shots(small_parts, tmp_path):
    write_edited(tmp_path / "youtube" / "a.mp4", (30, 40))
    arguments = encode_arguments(small_parts, tmp_path, tmp_path / "cache")
    arguments[-1] = (
        "--data.init_args.sources=[{class_path: datamodules.YouTubeDataset, init_args: {root: "
        f"{tmp_path}/youtube, shots: {{detector: content, folder: {tmp_path}/kept}}}}}}]"
    )
    report = main(["check", *arguments[1:]]).report
    assert report.problems == [] and not (tmp_path / "kept").exists()
    assert (
        "1 video whose cuts the encode job will look for first" in dict(report.sections)["sources"]
    )
    main(arguments)
    (header,) = read_headers(tmp_path / "cache")
    start, end = header.attributes["shot"].removesuffix(" s").split("-")
    assert start == "1.100" or end == "0.900"
    assert float(start) <= float(header.attributes["start_seconds"]) <= float(end) - 0.3


def test_configs_and_requirements_agree_on_the_extra():
    def sources(name):
        return yaml.safe_load((ROOT / "configs" / name).read_text())["data"]["init_args"]["sources"]

    assert sources("encode.yaml")[1]["init_args"]["shots"]["detector"] == "adaptive"
    # An overlay keeps what it does not name; the demo installs no extra.
    assert sources("small_world/encode.yaml")[1]["init_args"]["shots"] is None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pin,) = project["optional-dependencies"]["shots"]
    assert f"\n{pin} " in (ROOT / "requirements-dev.txt").read_text()
    assert "scenedetect" not in (ROOT / "requirements.txt").read_text()
