import json
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from callbacks import VideoWriter
from musicinfuser.generation import GeneratedClip, SamplingSpec, write_clip
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.media.audio import read_audio
from musicinfuser.media.generated import write_manifest
from musicinfuser.media.video import probe_video
from tests.short_clip import read

SAMPLING = SamplingSpec(num_steps=7, guidance_scale=2.5, music_guidance_scale=1.5)


def clip(seed: int = 0, padded_seconds: float = 0.0, **heard: object) -> GeneratedClip:
    return GeneratedClip(
        request=GenerationRequest("music/mBR0.wav", "a dance", seed, 7, 32, 48, 0.5, **heard),
        frames=torch.full((7, 32, 48, 3), 40 * seed + 20, dtype=torch.uint8),
        waveform=0.5 * torch.sin(torch.arange(round(44_100 * 7 / 30)) / 10),
        padded_seconds=padded_seconds,
        fps=30.0,
    )


def as_trainer(root: Path, *, is_global_zero: bool = True) -> SimpleNamespace:
    printed: list[str] = []
    return SimpleNamespace(
        default_root_dir=str(root),
        is_global_zero=is_global_zero,
        print=printed.append,
        printed=printed,
        strategy=SimpleNamespace(barrier=lambda name: None),
    )


def write(writer: VideoWriter, trainer: SimpleNamespace, *clips: object) -> None:
    module = SimpleNamespace(sampling=SAMPLING)
    writer.write_on_batch_end(trainer, module, list(clips), None, None, 0, 0)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_the_entry_says_what_was_asked_and_how(tmp_path: Path) -> None:
    entry = write_clip(tmp_path, clip(3, 0.25), sampling=SAMPLING, system="ours")
    stored = json.loads((tmp_path / entry.file).with_suffix(".json").read_text())
    assert len(stored.pop("sha256")) == 64
    assert stored == {
        "file": f"{clip(3).request.file_stem()}.mp4",
        "system": "ours",
        "track": "music/mBR0.wav",
        "track_offset_seconds": 0.5,
        "prompt": "a dance",
        "seed": 3,
        "num_frames": 7,
        "fps": 30.0,
        "height": 32,
        "width": 48,
        "num_steps": 7,
        "guidance_scale": 2.5,
        "music_guidance_scale": 1.5,
        "negative_prompt": "",
        "shift": None,
        "solver": "euler",
        "padded_seconds": 0.25,
        "heard": None,
        "heard_offset_seconds": None,
        "image": None,
        "in_windows": False,
        "window_frames": None,
        "window_overlap_frames": None,
        "window_noise": None,
    }
    info = probe_video(tmp_path / entry.file)
    assert (info.width, info.height, info.has_audio) == (48, 32, True)
    assert read_audio(tmp_path / entry.file, rate_hz=44_100).abs().max() > 0.3


def test_frames_of_a_song_are_written_as_they_are_taken(tmp_path: Path) -> None:
    song = clip(3)
    held = []

    def later() -> Iterator[torch.Tensor]:
        for shade in (90, 200):
            piece = torch.full((60, 32, 48, 3), shade, dtype=torch.uint8)
            # What was given before is no longer held.
            assert all(before() is None for before in held[:-1])
            held.append(weakref.ref(piece))
            yield piece

    request = replace(song.request, num_frames=127, in_windows=True)
    windows = SAMPLING.windows(127)
    made = replace(song, request=request, more_frames=later(), windows=windows,
                   waveform=torch.zeros(round(127 / 30 * 44_100)))  # fmt: skip
    entry = write_clip(tmp_path, made, sampling=SAMPLING, system="ours")
    assert (entry.in_windows, entry.window_frames, entry.window_overlap_frames) == (True, 73, 36)
    assert entry.window_noise == SAMPLING.window_noise
    path = tmp_path / entry.file
    back = read(path, num_frames=127, height=32, width=48)
    assert [round(back[k].float().mean().item()) for k in (6, 7, 66, 67, 126)] == pytest.approx(
        [140, 90, 90, 200, 200], abs=3
    )
    assert len(read_audio(path, rate_hz=44_100)) / 44_100 == pytest.approx(127 / 30, abs=0.05)


def test_the_entry_says_what_was_heard_instead(tmp_path: Path) -> None:
    crossed = clip(heard="music/mHO5.wav", heard_offset_seconds=1.5)
    for made in (clip(), clip(heard="nothing"), crossed):
        write_clip(tmp_path, made, sampling=SAMPLING, system="ours")
    write_manifest(tmp_path)
    asked = ("track", "heard", "heard_offset_seconds", "system")
    assert {tuple(row[name] for name in asked) for row in rows(tmp_path)} == {
        ("music/mBR0.wav", None, None, "ours"),
        ("music/mBR0.wav", "nothing", None, "ours, no audio"),
        ("music/mBR0.wav", "music/mHO5.wav", 1.5, "ours, mismatched audio"),
    }


@pytest.mark.parametrize("output_dir", [None, "elsewhere"])
def test_clips_go_to_the_folder_and_the_manifest(tmp_path: Path, output_dir: str | None) -> None:
    folder = tmp_path / (output_dir or "run/videos")
    options = {"output_dir": str(folder)} if output_dir else {}
    writer, trainer = VideoWriter(system="a row", **options), as_trainer(tmp_path / "run")
    write(writer, trainer, clip(1), clip(2))
    assert not (folder / "manifest.jsonl").exists()
    writer.teardown(trainer, None, "predict")
    assert [(r["seed"], r["system"]) for r in rows(folder)] == [(1, "a row"), (2, "a row")]
    assert trainer.printed == [f"2 clips are listed in {folder}/manifest.jsonl"]


def test_added_silence_is_said(tmp_path: Path) -> None:
    trainer = as_trainer(tmp_path)
    write(VideoWriter(), trainer, clip(1), clip(2, padded_seconds=1.234))
    assert trainer.printed == [
        "music/mBR0.wav ends before the clip does: 1.23 s of silence were added."
    ]
    write(VideoWriter(), trainer, clip(3, 0.5, heard="mHO5.wav"), clip(4, 0.5, heard="nothing"))
    assert trainer.printed[1:] == [
        "music/mBR0.wav or mHO5.wav ends before the clip does: 0.50 s of silence were added.",
        "music/mBR0.wav ends before the clip does: 0.50 s of silence were added.",
    ]


def test_predictions_of_others_are_left_alone(tmp_path: Path) -> None:
    writer, trainer = VideoWriter(), as_trainer(tmp_path)
    write(writer, trainer, torch.zeros(3), "text")
    writer.teardown(trainer, None, "predict")
    assert list(tmp_path.iterdir()) == [] and trainer.printed == []


def test_only_rank_zero_writes_the_manifest(tmp_path: Path) -> None:
    writer, trainer = VideoWriter(), as_trainer(tmp_path, is_global_zero=False)
    write(writer, trainer, clip(1))
    writer.teardown(trainer, None, "predict")
    assert sorted(p.suffix for p in (tmp_path / "videos").iterdir()) == [".json", ".mp4"]
    zero = VideoWriter()
    write(zero, as_trainer(tmp_path), clip(2))
    zero.teardown(as_trainer(tmp_path), None, "predict")
    assert [row["seed"] for row in rows(tmp_path / "videos")] == [1, 2]
