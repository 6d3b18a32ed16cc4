import csv
from itertools import pairwise

import pytest
import torch

from dance_eval.metrics.clip_folder import list_clips
from dance_eval.metrics.lag_response import LagResponse
from musicinfuser.media.audio import read_audio
from musicinfuser.media.video import probe_video, read_clip
from musicinfuser.media.video_writing import write_video
from small_world.experiments.changed_clips import blurred, main, with_noise
from tests.conftest import ROOT


def write_clips(source, frames, prompts):
    tone = 0.4 * torch.sin(torch.arange(24000) * 0.1)
    lines = ["file,system,track,prompt"]
    for index, prompt in enumerate(prompts):
        write_video(source / f"{index}.mp4", frames, fps=30.0, audio=tone, audio_rate_hz=24000)
        lines.append(f'{index}.mp4,ground truth,../{index}.wav,"{prompt}"')
    (source / "clips.csv").write_text("\n".join(lines) + "\n")


def rows_of(out):
    with (out / "clips.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_clips_come_back_softer_with_their_sound_and_the_list_of_the_folder(tmp_path, capsys):
    source, out = tmp_path / "truth", tmp_path / "out"
    frames = torch.full((13, 64, 64, 3), 235, dtype=torch.uint8)
    for index in range(13):
        frames[index, 20:50, 15 + index : 35 + index] = torch.tensor([30, 90, 200]).byte()
    write_clips(source, frames, ["a b"])
    main([str(source), str(out), f"--vae={ROOT}/assets/small-mochi"])
    assert rows_of(out) == [
        {
            "file": "0.mp4", "system": "ground truth through the VAE", "track": "../0.wav",
            "prompt": "a b",
        }
    ]  # fmt: skip
    info = probe_video(out / "0.mp4")
    decoded = read_clip(
        out / "0.mp4", start_seconds=0.0, num_frames=13, height=64, width=64, fps=30.0, crop=None
    )
    assert (info.width, info.height) == (64, 64)
    assert read_audio(out / "0.mp4", rate_hz=24000).abs().max() > 0.2
    error = (decoded.float() - frames.float()).square().mean()
    measured = 10 * torch.log10(255**2 / error)
    printed = float(capsys.readouterr().out.split()[1])
    # The file's compression is not part of what is printed.
    assert printed == pytest.approx(float(measured), abs=1.5)
    assert 18 < printed < 45


def test_damages_are_what_they_say():
    frames = torch.full((4, 32, 32, 3), 128, dtype=torch.uint8)
    frames[:, 8:24, 8:24] = 200
    for strength in (20, 60):
        changed = with_noise(frames, 0, level=strength)
        added = changed.float() - frames.float()
        assert added[:, :8].std() == pytest.approx(strength, rel=0.1)
        assert not torch.equal(with_noise(frames, 1, level=strength), changed)
    edges = [blurred(frames, 0, sigma_px=s).float().diff(dim=2).abs().max() for s in (2, 6)]
    assert 72 > edges[0] > edges[1]
    assert blurred(frames, 0, sigma_px=6).shape == frames.shape


def test_names_and_prompts_of_changed_clips(tmp_path):
    frames = torch.randint(0, 255, (7, 64, 64, 3), dtype=torch.uint8)
    source, prompts = tmp_path / "truth", ["a red shirt, a green wall", "a blue shirt"]
    write_clips(source, frames, prompts)
    main([str(source), str(tmp_path / "noise"), "--noise=60"])
    main([str(source), str(tmp_path / "swapped"), "--swap_prompts"])
    noise, swapped = rows_of(tmp_path / "noise"), rows_of(tmp_path / "swapped")
    assert {row["system"] for row in noise} == {"ground truth, noise 60"}
    assert {row["system"] for row in swapped} == {"ground truth, prompt of another clip"}
    assert [row["prompt"] for row in noise] == prompts
    assert [row["prompt"] for row in swapped] == prompts[::-1]
    assert len(list_clips(tmp_path / "noise")[0]) == 2


def moving(first, num=37):
    """A square that moves by a pixel a frame, so that a frame tells its number."""
    frames = torch.full((num, 64, 64, 3), 235, dtype=torch.uint8)
    for index in range(num):
        frames[index, 20:50, first + index : first + index + 10] = 20
    return frames


def left_edge(path):
    info = probe_video(path)
    num = round(info.duration_seconds * 30)
    read = dict(start_seconds=0.0, num_frames=num, height=64, width=64, fps=30.0, crop=None)
    row = read_clip(path, **read)[:, 35, :, 0]
    return (row < 128).int().argmax(dim=1), num


def test_late_dances_follow_their_sound(tmp_path):
    source, out = tmp_path / "truth", tmp_path / "out"
    write_clips(source, moving(5), ["a b"])
    main([str(source), str(out), "--late"])
    rows = rows_of(out)
    told = [(r["system"], r["track"], r["start"], r["heard"]) for r in rows]
    assert told == [("ground truth, shifted audio", "../0.wav", "0.4", "../0.wav")] * 5
    assert [r["heard_offset_seconds"] for r in rows] == ["0.4", "0.3", "0.2", "0.1", "0"]
    edges = [left_edge(out / r["file"]) for r in rows]
    assert {num for _, num in edges} == {25}
    # A clip whose sound is 0.1 s later shows what the other one showed three frames ago.
    for (earlier, _), (later, _) in pairwise(edges):
        assert ((earlier - later).float().mean() - 3).abs() < 0.5
    entries, _ = list_clips(out)
    metric = LagResponse()
    metric.prepare(entries, seed=0)
    labels = [metric.labels_of(e, system="ground truth") for e in entries]
    assert len({group for group, *_ in labels}) == 1
    assert sorted(shift for *_, shift in labels) == [0, 100, 200, 300, 400]


def test_a_dance_of_another_track_keeps_the_sound(tmp_path):
    source = tmp_path / "truth"
    write_clips(source, moving(5, 13), ["a", "b"])
    write_video(
        source / "1.mp4", moving(30, 13), fps=30.0, audio=torch.zeros(24000), audio_rate_hz=24000
    )
    for heard, control in (("silence", "silent audio"), ("track", "mismatched audio")):
        out = tmp_path / heard
        main([str(source), str(out), f"--dance_of_another={heard}"])
        first, second = rows_of(out)
        assert first["system"] == f"ground truth, {control}"
        own = ["silence", "silence"] if heard == "silence" else ["../1.wav", "../0.wav"]
        assert [first["heard"], second["heard"]] == own
        assert (first["track"], first["prompt"]) == ("../0.wav", "a")
        assert left_edge(out / "0.mp4")[0][0] == pytest.approx(30, abs=1)
        assert read_audio(out / "0.mp4", rate_hz=24000).abs().max() > 0.2
        assert read_audio(out / "1.mp4", rate_hz=24000).abs().max() < 0.01
    (source / "clips.csv").write_text("file,system,track,prompt\n0.mp4,a,x.wav,p\n")
    with pytest.raises(ValueError, match="one track only"):
        main([str(source), str(tmp_path / "none"), "--dance_of_another=track"])
