import csv

import pytest
import torch

from musicinfuser.media.audio import read_audio
from musicinfuser.media.video import probe_video, read_clip
from musicinfuser.media.video_writing import write_video
from small_world.experiments.reconstruct import main
from tests.conftest import ROOT


def test_clips_come_back_softer_with_their_sound_and_the_list_of_the_folder(tmp_path, capsys):
    source, out = tmp_path / "truth", tmp_path / "out"
    frames = torch.full((13, 64, 64, 3), 235, dtype=torch.uint8)
    for index in range(13):
        frames[index, 20:50, 15 + index : 35 + index] = torch.tensor([30, 90, 200]).byte()
    tone = 0.4 * torch.sin(torch.arange(24000) * 0.1)
    write_video(source / "a.mp4", frames, fps=30.0, audio=tone, audio_rate_hz=24000)
    (source / "clips.csv").write_text("file,system,track,prompt\na.mp4,truth,../a.wav,a b\n")
    main([str(source), str(out), f"--vae={ROOT}/assets/small-mochi"])
    with (out / "clips.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert row == {
        "file": "a.mp4", "system": "ground truth through the VAE", "track": "../a.wav",
        "prompt": "a b",
    }  # fmt: skip
    info = probe_video(out / "a.mp4")
    decoded = read_clip(
        out / "a.mp4", start_seconds=0.0, num_frames=13, height=64, width=64, fps=30.0, crop=None
    )
    assert (info.width, info.height) == (64, 64)
    assert read_audio(out / "a.mp4", rate_hz=24000).abs().max() > 0.2
    error = (decoded.float() - frames.float()).square().mean()
    measured = 10 * torch.log10(255**2 / error)
    printed = float(capsys.readouterr().out.split()[1])
    # The file's compression is not part of what is printed.
    assert printed == pytest.approx(float(measured), abs=1.5)
    assert 18 < printed < 45
