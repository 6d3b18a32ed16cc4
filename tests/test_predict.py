"""``train.py predict``: music and prompts in, videos with sound out."""

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

import av
import lightning.pytorch as L
import numpy as np
import pytest
import torch

from musicinfuser.generation import OUTPUT_RATE_HZ, read_track, sample_latents
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.media.audio import read_audio, write_wav
from musicinfuser.media.errors import MediaError
from tests.conftest import write_moving_square

UNTRAINED = "--ckpt_path=null"
HELD_OUT = (
    "mBR0", "mHO5", "mJB5", "mJS3", "mKR2", "mLH4", "mLO2", "mMH3", "mPO1", "mWA0",
)  # fmt: skip


def write_tone(path: Path, *, seconds: float = 1.0, frequency_hz: float = 440.0) -> Path:
    time = torch.arange(round(16_000 * seconds)) / 16_000
    write_wav(path, 0.4 * torch.sin(2 * torch.pi * frequency_hz * time), rate_hz=16_000)
    return path


def generation(**options: object) -> list[str]:
    return [f"--data.init_args.generation={json.dumps(options)}"]


def rows(root: Path) -> list[dict]:
    lines = (root / "videos" / "manifest.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def test_every_combination_becomes_a_video_with_its_music(
    run_cli: Callable, tmp_path: Path, capsys
) -> None:
    low = write_tone(tmp_path / "low.wav", frequency_hz=300)
    high = write_tone(tmp_path / "高い.wav", frequency_hz=900)
    run_cli(
        "predict",
        UNTRAINED,
        *generation(
            music=[str(low), str(high)], prompts=["a dance", "踊る"], seeds=[0, 1], num_frames=13
        ),
    )
    found = rows(tmp_path)
    assert {(r["track"], r["prompt"], r["seed"]) for r in found} == {
        (str(t), p, s) for t in (low, high) for p in ("a dance", "踊る") for s in (0, 1)
    }
    assert len(found) == len({r["sha256"] for r in found}) == 8
    assert f"8 clips are listed in {tmp_path}/videos/manifest.jsonl" in capsys.readouterr().out
    for row in found:
        assert row.keys() == {
            "file", "system", "track", "track_offset_seconds", "prompt", "seed", "num_frames",
            "fps", "height", "width", "num_steps", "guidance_scale", "music_guidance_scale",
            "negative_prompt", "shift", "solver",
            "padded_seconds", "heard", "heard_offset_seconds", "in_windows", "window_frames",
            "window_overlap_frames", "window_noise", "image", "sha256",
        }  # fmt: skip
        assert (row["num_frames"], row["height"], row["width"], row["fps"]) == (13, 32, 32, 30.0)
        assert (row["num_steps"], row["guidance_scale"], row["padded_seconds"]) == (2, 6.0, 0.0)
        path = tmp_path / "videos" / row["file"]
        with av.open(str(path)) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
            assert video.average_rate == 30
        assert decode(path).shape == (13, 32, 32, 3)
        sound = read_audio(path, rate_hz=16_000)
        assert len(sound) / 16_000 == pytest.approx(13 / 30, abs=0.05)
        heard_hz = torch.fft.rfft(sound[:6400]).abs().argmax().item() * 2.5
        assert heard_hz == pytest.approx(300 if row["track"] == str(low) else 900, abs=5)


def test_a_list_of_requests_with_controls(run_cli: Callable, tmp_path: Path) -> None:
    write_tone(tmp_path / "lists" / "low.wav", frequency_hz=300)
    write_tone(tmp_path / "lists" / "high.wav", frequency_hz=900)
    requests = tmp_path / "lists" / "requests.csv"
    lines = ["low.wav,p,0,", "low.wav,p,0,high.wav", "low.wav,p,0,nothing", "high.wav,p,0,"]
    requests.write_text("\n".join(["track,prompt,seed,heard", *lines]))
    run_cli("predict", UNTRAINED, *generation(requests=str(requests), num_frames=13))
    found = {(Path(r["track"]).name, r["heard"]): r for r in rows(tmp_path)}
    other = str(tmp_path / "lists" / "high.wav")
    assert found.keys() == {
        ("low.wav", None), ("low.wav", other), ("low.wav", "nothing"), ("high.wav", None)
    }  # fmt: skip
    for (track, _), row in found.items():
        sound = read_audio(tmp_path / "videos" / row["file"], rate_hz=16_000)
        heard_hz = torch.fft.rfft(sound[:6400]).abs().argmax().item() * 2.5
        assert heard_hz == pytest.approx(300 if track == "low.wav" else 900, abs=5)
    # Without training the model makes the same of everything it hears, whatever is in the file.
    pictures = [decode(tmp_path / "videos" / row["file"]) for row in found.values()]
    assert all((picture == pictures[0]).all() for picture in pictures)

    requests.write_text("track,prompt,seed,heard\nlow.wav,p,0,low.wav\nlow.wav,p,1,hihg.wav\n")
    with pytest.raises(ValueError, match=r"requests\.csv, line 3: heard names hihg\.wav"):
        run_cli("predict", UNTRAINED, *generation(requests=str(requests)))
    with pytest.raises(ValueError, match=r"data\.generation\.prompts is given too"):
        run_cli("predict", UNTRAINED, *generation(requests=str(requests), prompts=["p"]))


class SigtermInFirstClip(L.Callback):
    """What a scheduler does when time is up."""

    def on_predict_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_ends_with_the_clip_in_work(run_cli: Callable, tmp_path: Path, capsys) -> None:
    track = write_tone(tmp_path / "low.wav")
    requests = generation(music=[str(track)], prompts=["p"], seeds=[0, 1, 2], num_frames=13)
    told = f"--trainer.callbacks+={__name__}.SigtermInFirstClip"
    with pytest.raises(SystemExit) as ended:
        run_cli("predict", UNTRAINED, *requests, told)
    assert ended.value.code == 128 + signal.SIGTERM
    assert "stopped after 1 of 3 batches" in capsys.readouterr().err
    assert len(list((tmp_path / "videos").glob("*.mp4"))) == 1
    one = generation(music=[str(track)], prompts=["p"], num_frames=13)
    run_cli("predict", UNTRAINED, *one, told, root=tmp_path / "one")
    assert len(rows(tmp_path / "one")) == 1


class SigtermInFirstStep(L.Callback):
    """The same in the middle of a song, whose first step is not done yet."""

    def on_predict_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        def told(module: torch.nn.Module, inputs: object) -> None:
            hook.remove()
            os.kill(os.getpid(), signal.SIGTERM)

        hook = pl_module.model.register_forward_pre_hook(told)


def test_a_song_goes_on_after_a_sigterm(run_cli: Callable, tmp_path: Path, capsys) -> None:
    track = write_tone(tmp_path / "low.wav", seconds=1.6)
    windows = "--model.init_args.sampling={num_steps: 3, guidance_scale: 2, window_frames: 13, "
    windows += "window_overlap_frames: 6}"
    asked = [windows, *generation(music=[str(track)], prompts=["p"], num_seconds=1.0)]
    run_cli("predict", UNTRAINED, *asked, root=tmp_path / "whole")
    told = f"--trainer.callbacks+={__name__}.SigtermInFirstStep"
    with pytest.raises(SystemExit) as ended:
        run_cli("predict", UNTRAINED, *asked, told)
    assert ended.value.code == 128 + signal.SIGTERM
    assert f"stopped after 1 of 3 steps of a song to {track}" in capsys.readouterr().err
    assert not (tmp_path / "videos").exists()
    [kept] = (tmp_path / "songs_under_way").iterdir()
    before = kept.read_bytes()
    # What another adapter began is not gone on with.
    run_cli("predict", UNTRAINED, *asked, "--seed_everything=7", "--model.init_args.seed=7")
    assert "goes on" not in capsys.readouterr().out
    assert kept.read_bytes() == before
    run_cli("predict", UNTRAINED, *asked)
    assert f"The song to {track} goes on after 1 of 3 steps." in capsys.readouterr().out
    assert not (tmp_path / "songs_under_way").exists()
    [made], [whole] = rows(tmp_path), rows(tmp_path / "whole")
    assert made["sha256"] == whole["sha256"]


@pytest.mark.parametrize("kind", ["wav", "mp4"])
def test_held_out_tracks_from_a_folder(run_cli: Callable, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "tracks"
    for i, code in enumerate(HELD_OUT):
        if kind == "wav":
            write_tone(folder / f"{code}.wav", frequency_hz=200 + 50 * i)
        else:
            name = f"g{code[1:3]}_sBM_c01_d04_{code}_ch02.mp4"
            write_moving_square(folder / name, number=i)
    run_cli("predict", UNTRAINED, *generation(music_dir=str(folder), prompts=["a dance"]))
    found = rows(tmp_path)
    assert len(found) == 10
    assert all(any(code in row["track"] for row in found) for code in HELD_OUT)


def test_seeds_repeat_and_a_repeated_command_overwrites(run_cli: Callable, tmp_path: Path) -> None:
    track = write_tone(tmp_path / "a.wav")
    command = (UNTRAINED, *generation(music=str(track), prompts=["p"], seeds=[3]))
    run_cli("predict", *command)
    [first] = rows(tmp_path)
    run_cli("predict", *command)
    assert rows(tmp_path) == [first]


def test_a_trained_model_is_another_model(run_cli: Callable, small_cache: Path, tmp_path: Path):
    track = write_tone(tmp_path / "a.wav")
    command = generation(music=str(track), prompts=["p"])
    run_cli("predict", UNTRAINED, *command)
    [plain] = rows(tmp_path)
    run_cli("fit", "--model.init_args.schedule.decay=constant", cache=small_cache)
    run_cli("predict", *command)
    [trained] = rows(tmp_path)
    assert plain["file"] == trained["file"] and plain["sha256"] != trained["sha256"]


def test_a_short_track_is_padded_and_said(run_cli: Callable, tmp_path: Path, capsys) -> None:
    track = write_tone(tmp_path / "short.wav", seconds=0.2)
    run_cli(
        "predict",
        UNTRAINED,
        *generation(music=str(track), prompts=["p"], num_frames=13, track_offset_seconds=0.1),
    )
    [row] = rows(tmp_path)
    # 13 frames hear 0.5 s, of which 0.1 s are there.
    assert row["padded_seconds"] == pytest.approx(0.4)
    said = "short.wav ends before the clip does: 0.40 s of silence were added."
    assert said in capsys.readouterr().out
    sound = read_audio(tmp_path / "videos" / row["file"], rate_hz=16_000)
    assert sound[: round(0.09 * 16_000)].abs().max() > 0.2
    assert sound[round(0.2 * 16_000) :].abs().max() < 0.02


def test_an_offset_beyond_the_end_is_refused(run_cli: Callable, tmp_path: Path) -> None:
    track = write_tone(tmp_path / "a.wav", seconds=1.0)
    with pytest.raises(ValueError, match=r"a\.wav lasts 1.00 s, but the clip is to start at 1.50"):
        run_cli(
            "predict",
            UNTRAINED,
            *generation(music=str(track), prompts=["p"], track_offset_seconds=1.5),
        )


def test_an_unreadable_track_is_one_clear_error(run_cli: Callable, tmp_path: Path) -> None:
    (tmp_path / "bad.mp3").write_text("no music")
    with pytest.raises(MediaError, match=r"bad\.mp3: cannot be read as audio"):
        run_cli("predict", UNTRAINED, *generation(music=f"{tmp_path}/bad.mp3", prompts=["p"]))


def test_a_drawn_start_is_drawn_again(run_cli: Callable, tmp_path: Path) -> None:
    tracks = [write_tone(tmp_path / name, seconds=3.0) for name in ("a.wav", "b.wav")]
    command = (
        UNTRAINED,
        *generation(
            music=list(map(str, tracks)), prompts=["p"], seeds=[0, 1], track_offset_seconds=None
        ),
    )
    run_cli("predict", *command)
    first = rows(tmp_path)
    starts = [row["track_offset_seconds"] for row in first]
    # A clip of seven frames hears 0.3 s of the three.
    assert len(set(starts)) == 4 and all(0 <= s <= 2.7 for s in starts)
    run_cli("predict", *command)
    assert rows(tmp_path) == first


def test_null_offset_of_a_track_as_short_as_the_clip(tmp_path: Path) -> None:
    track = write_tone(tmp_path / "a.wav", seconds=0.25)
    request, heard, sound, padded = read_track(
        GenerationRequest(str(track), "p", 0, 7, 32, 32, None), fps=30.0
    )
    assert request.track_offset_seconds == 0.0
    assert len(heard) == 4800 and len(sound) == round(7 / 30 * OUTPUT_RATE_HZ)
    assert padded == pytest.approx(0.05)
    assert heard[4000:].abs().max() == 0 and heard[:4000].abs().max() > 0.3


def test_audio_identity_starts_at_the_offset(tmp_path: Path) -> None:
    ramp = torch.linspace(0, 0.9, 32_000)
    write_wav(tmp_path / "ramp.wav", ramp, rate_hz=16_000)
    request = GenerationRequest(f"{tmp_path}/ramp.wav", "p", 0, 7, 32, 32, 0.75)
    found, heard, sound, padded = read_track(request, fps=30.0)
    assert (found, padded) == (request, 0.0)
    assert torch.allclose(heard, ramp[12_000 : 12_000 + 4800], atol=1e-3)
    assert sound[5000].item() == pytest.approx(0.45 * (0.75 + 5000 / OUTPUT_RATE_HZ), abs=1e-3)


def test_a_seed_is_the_same_noise_for_every_track_and_prompt(
    run_cli: Callable, tmp_path: Path
) -> None:
    track = write_tone(tmp_path / "a.wav")
    cli = run_cli("predict", UNTRAINED, *generation(music=str(track), prompts=["p"]))
    module, firsts = cli.model, {}

    class Recorder(torch.nn.Module):
        def __getattr__(self, name):
            return getattr(module.adapted, name)

        def forward(self, latents, *arguments, **options):
            firsts.setdefault(self.name, latents.clone())
            return module.adapted(latents, *arguments, **options)

    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        recorder = Recorder()
        recorder.name = name
        sample_latents(
            recorder,
            text=torch.randn(3, 64),
            negative=torch.zeros(0, 64),
            audio=torch.randn(1, 14, 96),
            request=GenerationRequest(f"{name}.wav", f"prompt {name}", seed, 7, 32, 32),
            sampling=module.sampling,
            device=torch.device("cpu"),
        )
    assert firsts["a"].shape == (1, 12, 2, 4, 4)
    assert torch.equal(firsts["a"], firsts["b"])
    assert not torch.equal(firsts["a"], firsts["c"])
    assert firsts["a"].std().item() == pytest.approx(1, abs=0.15)


def test_settings_of_sampling_arrive(run_cli: Callable, tmp_path: Path) -> None:
    track = write_tone(tmp_path / "a.wav")
    command = (UNTRAINED, *generation(music=str(track), prompts=["p"]))
    shas = []
    for name, value in (
        ("num_steps", 2), ("num_steps", 3), ("guidance_scale", 1.0), ("negative_prompt", "dull"),
    ):  # fmt: skip
        run_cli("predict", *command, f"--model.init_args.sampling.{name}={value}")
        [row] = rows(tmp_path)
        assert row.get(name, value) == value
        shas.append(row["sha256"])
    assert len(set(shas)) == 4


def test_predictions_need_no_cache(run_cli: Callable, tmp_path: Path) -> None:
    track = write_tone(tmp_path / "a.wav")
    command = generation(music=str(track), prompts=["p"])
    cli = run_cli("predict", UNTRAINED, *command, cache=tmp_path / "nowhere")
    assert len(rows(tmp_path)) == 1
    # Clips are written one by one, not kept.
    assert not cli.trainer.predict_loop.predictions
    assert not math.isnan(decode(next((tmp_path / "videos").glob("*.mp4"))).mean())
