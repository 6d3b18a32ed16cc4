"""What the benchmark of songs in windows calls a seam, and what it says of one."""

import csv
import json
import math
from importlib.util import find_spec

import pytest
import torch

from musicinfuser.atomic_files import write_json_lines
from musicinfuser.diffusion.windows import Windows
from musicinfuser.media.pictures import read_picture
from musicinfuser.media.video_writing import write_video
from small_world.experiments.whole_song import (
    Song,
    at_seams,
    figures_of,
    halves,
    look,
    look_changes,
    main,
    outside_share,
    per_video,
    seam_frames,
)

WINDOWS = Windows(66, length=13, overlap=6)
NUM_FRAMES = 391
SEAMS = seam_frames(WINDOWS)


def curve(*, at: float, elsewhere: float = 1.0, seed: int = 0) -> torch.Tensor:
    """Motion with a beat that is other within six frames of seams."""
    stream = torch.Generator().manual_seed(seed)
    frames = torch.arange(NUM_FRAMES - 1) + 0.5
    values = elsewhere * (1 + 0.3 * torch.rand(len(frames), generator=stream))
    near = (frames[:, None] - torch.tensor(SEAMS)).abs().amin(dim=1) <= 6
    return torch.where(near, values * at / elsewhere, values)


def test_seams_are_the_middles_of_overlaps_on_the_clock_of_frames():
    # Windows from 0 and 7 on share latent frames 7 to 12, which show frames 37 to 72.
    assert seam_frames(Windows(20, length=13, overlap=6)) == [(37 + 72) / 2]
    assert len(SEAMS) == len(WINDOWS.starts) - 1 == 8


@pytest.mark.parametrize("at", [0.5, 1.0, 2.0])
def test_motion_that_differs_at_seams_is_seen(at):
    found = at_seams(curve(at=at), SEAMS)
    assert found["ratio"] == pytest.approx(at, rel=0.05) and len(found["ranks"]) == 8
    if at == 1.0:
        # One in eight may lie outside by chance.
        assert outside_share(found["ranks"]) <= 0.25 and 0.2 < sum(found["ranks"]) / 8 < 0.8
    else:
        assert outside_share(found["ranks"]) == 1 and set(found["ranks"]) == {float(at > 1)}


def test_halves_are_told_apart():
    """Rests on the beats of the first half, and halfway between those of the second."""
    frames = torch.arange(NUM_FRAMES - 1) + 0.5
    shifted = torch.where(frames < NUM_FRAMES / 2, frames, frames + 7.5)
    motion = 1 - torch.cos(2 * math.pi * shifted / 15)
    beats = torch.arange(26) * 0.5
    first, second = halves(Song({}, motion, beats, torch.zeros(NUM_FRAMES, 3)))
    assert first > 0.9 and second < 0.15


def test_the_look_is_that_of_what_has_a_colour():
    """A red square on white that turns blue in the end, wherever it is."""
    frames = torch.full((150, 16, 16, 3), 240, dtype=torch.uint8)
    for k in range(150):
        colour = [200, 20, 20] if k < 77 else [20, 20, 200]
        frames[k, k % 10 : k % 10 + 5, 3:8] = torch.tensor(colour, dtype=torch.uint8)
    looks = look(frames)
    assert looks[0].tolist() == [200, 20, 20] and looks[-1].tolist() == [20, 20, 200]
    far, near = look_changes(looks, 73)
    assert (far, near) == (pytest.approx(180 * 2**0.5), 0)
    assert look(frames[:, :2, :2]).tolist() == [[0, 0, 0]] * 150


def test_figures_name_their_intervals_and_counts():
    motion = 1 - torch.cos(2 * math.pi * (torch.arange(NUM_FRAMES - 1) + 0.5) / 15)
    songs = [
        Song(
            {"joint speed": curve(at=1.0, seed=i)},
            motion,
            torch.arange(26) * 0.5,
            torch.arange(NUM_FRAMES)[:, None].expand(-1, 3) / 10.0,
        )  # fmt: skip
        for i in range(5)
    ]
    figures = {figure.what: figure for figure in figures_of(per_video(songs, WINDOWS))}
    ratio = figures["joint speed: at seams / elsewhere"]
    assert ratio.value == pytest.approx(1, abs=0.05) and "n = 5" in ratio.note
    assert "40 seams" in figures["joint speed: seams beyond the middle 95 % of elsewhere"].note
    assert figures["beat alignment, second half - first"].value == pytest.approx(0, abs=0.02)
    assert figures["beat alignment, first half"].value > 0.9
    assert figures["colours, first window to last"].value == pytest.approx(31.8 * 3**0.5)
    assert figures["colours, within the first window"].value == pytest.approx(3.65 * 3**0.5)


def test_colours_that_leave_the_first_frame_are_seen(tmp_path):
    """Of two videos in windows of 9 frames one keeps its red and one turns blue."""
    red, blue = torch.tensor([220.0, 20.0, 20.0]), torch.tensor([20.0, 20.0, 220.0])
    share = torch.linspace(0, 1, 33)[:, None]
    for name, colours in (("kept", red.repeat(33, 1)), ("turned", red + share * (blue - red))):
        frames = colours.round().byte()[:, None, None].repeat(1, 64, 64, 1)
        sound = torch.zeros(44_100 * 33 // 24)
        write_video(tmp_path / f"{name}.mp4", frames, fps=24, audio=sound, audio_rate_hz=44_100)
    rows = [
        {"file": f"{name}.mp4", "num_frames": 33, "fps": 24.0, "window_frames": 9}
        for name in ("kept", "turned")
    ]
    write_json_lines(tmp_path / "manifest.jsonl", rows)
    main(["colours", str(tmp_path), "--out", str(tmp_path / "colours.json")])
    result = json.loads((tmp_path / "colours.json").read_text())
    module = result["command"].split()[2]
    assert module == "small_world.experiments.whole_song" and find_spec(module)
    kept, turned = result["details"].values()
    assert all(value < 10 for value in kept.values())
    whole = (blue - red).norm().item()
    expected = {"to first window": 1 / 8, "to last window": 7 / 8, "first window to last": 3 / 4}
    for what, portion in expected.items():
        (value,) = (found for name, found in turned.items() if name.endswith(what))
        assert value == pytest.approx(portion * whole, abs=25)


def test_dances_begin_with_pictures_of_videos(tmp_path):
    """Of two videos in turn, as they are decoded."""
    for name, value in {"a": 60, "b": 200}.items():
        frames = torch.full((8, 64, 64, 3), value, dtype=torch.uint8)
        write_video(tmp_path / "videos" / f"{name}.mp4", frames, fps=30)
    folder = tmp_path / "songs"
    songs = ["music", str(folder), "--seconds=3"]
    main([*songs, "--songs=3", f"--pictures={tmp_path / 'videos'}"])
    rows = list(csv.DictReader((folder / "requests.csv").read_text().splitlines()))
    found = [read_picture(folder / row["image"], height=64, width=64) for row in rows]
    assert [float(p.float().mean()) for p in found] == pytest.approx([60, 200, 60], abs=4)
    main([*songs, "--songs=1"])
    (row,) = csv.DictReader((folder / "requests.csv").read_text().splitlines())
    assert "image" not in row
