import json
import random
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from callbacks import SampleGeneration
from callbacks.sample_generation import SampleRequest, _untouched
from musicinfuser.generation import GeneratedClip
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.media.audio import read_audio, write_wav
from musicinfuser.memory.out_of_memory import OutOfMemoryError
from tests.dancing_square import click_track, swinging_square
from tests.small_training import Line
from tests.test_resume import assert_equal

PROMPT = "a square that dances"


@pytest.fixture
def track(tmp_path: Path) -> Path:
    path = tmp_path / "songs" / "song.wav"
    seconds = torch.arange(16_000) / 16_000
    write_wav(path, 0.4 * torch.sin(2 * torch.pi * 440 * seconds), rate_hz=16_000)
    return path


def sampling(*tracks: Path, every_n_steps: int = 1, offset: float = 0.25) -> list[str]:
    requests = ", ".join(
        f"{{track: {t}, prompt: {PROMPT}, seed: 5, track_offset_seconds: {offset}}}" for t in tracks
    )
    return [
        f"--sample_generation.every_n_steps={every_n_steps}",
        f"--sample_generation.requests=[{requests}]",
    ]


def manifest(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def checkpoint(root: Path) -> dict:
    return torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)


def test_a_run_writes_and_logs_its_samples(
    run_cli: Callable, small_cache: Path, track: Path, tmp_path: Path, events: Callable
) -> None:
    run_cli("fit", *sampling(track, every_n_steps=2), "--trainer.max_steps=5", cache=small_cache)
    folders = sorted((tmp_path / "samples").iterdir())
    assert [folder.name for folder in folders] == ["step_000002", "step_000004"]
    for folder, step in zip(folders, (2, 4), strict=True):
        [row] = manifest(folder)
        assert row["system"] == f"step {step}"
        assert (row["track"], row["prompt"], row["seed"]) == (str(track), PROMPT, 5)
        assert (row["track_offset_seconds"], row["num_steps"]) == (0.25, 2)
        path = folder / row["file"]
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.name == "h264"
            assert container.streams.audio[0].codec_context.name == "aac"
            frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        assert np.stack(frames).shape == (7, 32, 32, 3)
        sound = read_audio(path, rate_hz=16_000)
        spectrum = torch.fft.rfft(sound[:3200]).abs()
        assert spectrum.argmax() / 3200 * 16_000 == pytest.approx(440, abs=6)
    [(tag, pictures)] = events(tmp_path, "images").items()
    [(audio_tag, sounds)] = events(tmp_path, "audio").items()
    assert audio_tag == tag and tag.startswith("samples/song_a-square-that-dances_seed5")
    assert [e.step for e in pictures] == [e.step for e in sounds] == [2, 4]
    assert (pictures[0].height, pictures[0].width) == (32, 8 * 32)
    assert sounds[0].sample_rate == 44_100
    scalars = events(tmp_path, "scalars")
    for name in ("samples/beat_alignment", "samples/beat_alignment_chance"):
        assert [e.step for e in scalars[name]] == [2, 4]
    # Training moved the picture.
    assert len({manifest(folder)[0]["sha256"] for folder in folders}) == 2


def test_the_rhythm_of_samples_is_logged_beside_its_chance_level(tmp_path: Path) -> None:
    beats = [0.1 + 0.5 * k for k in range(24)]
    song = tmp_path / "song.wav"
    write_wav(song, click_track(beats, duration_seconds=12.5, rate_hz=32_000), rate_hz=32_000)
    logged: list[tuple[dict, int]] = []
    logger = SimpleNamespace(log_metrics=lambda values, step: logged.append((values, step)))
    trainer = SimpleNamespace(world_size=1, loggers=[logger])
    sampling = SampleGeneration()

    def step(number: int, *late_seconds: float) -> None:
        for late in late_seconds:
            # From second 3.2 of the track on, whose beats there are at 0.4 and every half second.
            frames = swinging_square(
                num_frames=73, fps=30.0, period_seconds=0.5, phase_seconds=0.4 + late
            )
            request = GenerationRequest(str(song), "p", 0, 73, 64, 64, track_offset_seconds=3.2)
            sampling._watch_rhythm(GeneratedClip(request, frames, torch.zeros(10), 0.0, 30.0))
        sampling._log_rhythm(trainer, number)

    step(1, 0.0, 0.0)
    step(2)  # no clip, nothing to log
    step(3, 0.25)
    [(on_beat, first), (off_beat, third)] = logged
    assert (first, third) == (1, 3)
    assert on_beat["samples/beat_alignment"] > 0.75 > 0.1 > off_beat["samples/beat_alignment"]
    assert 0.1 < on_beat["samples/beat_alignment_chance"] < 0.5


def test_a_run_with_samples_equals_one_without(
    run_cli: Callable, small_cache: Path, track: Path, tmp_path: Path
) -> None:
    common = ("--trainer.max_steps=4", "--data.init_args.batch_size=2")
    runs = {"with": sampling(track), "without": []}
    for name, extra in runs.items():
        run_cli("fit", *common, *extra, cache=small_cache, root=tmp_path / name)
    assert len(list((tmp_path / "with" / "samples").iterdir())) == 4
    one, other = (checkpoint(tmp_path / name) for name in runs)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert_equal(one[key], other[key])


def test_one_sample_per_optimizer_step_not_per_batch(
    run_cli: Callable, small_cache: Path, track: Path, events: Callable, tmp_path: Path
) -> None:
    arguments = (*sampling(track, every_n_steps=2), "--trainer.accumulate_grad_batches=3")
    run_cli("fit", *arguments, "--trainer.max_steps=3", cache=small_cache)
    run_cli("fit", *arguments, "--trainer.max_steps=4", cache=small_cache)
    [pictures] = events(tmp_path, "images").values()
    assert [e.step for e in pictures] == [2, 4]


def test_predict_makes_the_same_clip_from_the_same_weights(
    run_cli: Callable, small_cache: Path, track: Path, tmp_path: Path
) -> None:
    run_cli("fit", *sampling(track, every_n_steps=3), "--trainer.max_steps=3", cache=small_cache)
    run_cli(
        "predict",
        f"--data.init_args.generation.music=['{track}']",
        f"--data.init_args.generation.prompts=['{PROMPT}']",
        "--data.init_args.generation.seeds=[5, 6]",
        "--data.init_args.generation.track_offset_seconds=0.25",
    )
    [sample] = manifest(tmp_path / "samples" / "step_000003")
    predicted = {row["seed"]: row for row in manifest(tmp_path / "videos")}
    assert sample["sha256"] == predicted[5]["sha256"] != predicted[6]["sha256"]
    assert sample["file"] == predicted[5]["file"]


def test_samples_of_what_the_model_makes_of_other_music_and_none(
    run_cli: Callable, small_cache: Path, track: Path, tmp_path: Path
) -> None:
    other = tmp_path / "songs" / "other.wav"
    write_wav(other, 0.3 * torch.randn(16_000), rate_hz=16_000)
    listed = ", ".join(
        f"{{track: {track}, prompt: {PROMPT}{extra}}}"
        for extra in ("", ", heard: nothing", f", heard: {other}, heard_offset_seconds: 0.5")
    )
    options = ["--sample_generation.every_n_steps=2", f"--sample_generation.requests=[{listed}]"]
    run_cli("fit", *options, cache=small_cache)
    found = manifest(tmp_path / "samples" / "step_000002")
    assert {(r["track"], r["heard"], r["heard_offset_seconds"]) for r in found} == {
        (str(track), None, None), (str(track), "nothing", None), (str(track), str(other), 0.5),
    }  # fmt: skip
    other.unlink()
    with pytest.raises(ValueError, match=r"requests names .*other\.wav, which does not exist"):
        run_cli("fit", *options, cache=small_cache)


@pytest.mark.parametrize("kind", ["unreadable", "too short"])
def test_a_bad_track_costs_a_sample_not_the_run(
    run_cli: Callable, small_cache: Path, track: Path, tmp_path: Path, kind: str
) -> None:
    bad = tmp_path / "songs" / "bad.wav"
    bad.write_text("no music")
    if kind == "too short":
        write_wav(bad, torch.full((1600,), 0.1), rate_hz=16_000)
    with pytest.warns(UserWarning, match=r"no sample for .*bad\.wav: .*bad\.wav"):
        cli = run_cli("fit", *sampling(bad, track, every_n_steps=2), cache=small_cache)
    assert cli.trainer.global_step == 2
    [row] = manifest(tmp_path / "samples" / "step_000002")
    assert row["track"] == str(track)


def test_a_missing_track_is_refused_at_the_start(
    run_cli: Callable, small_cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"requests names .*missing\.wav, which does not exist"):
        run_cli("fit", *sampling(tmp_path / "missing.wav"), cache=small_cache)
    assert not (tmp_path / "checkpoints").exists()


def test_a_damaged_picture_is_found_at_the_start(track: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    request = SampleRequest(str(track), "p", image=str(bad))
    size = {"num_frames": 9, "height": 32, "width": 64}
    samples = SampleGeneration(every_n_steps=1, requests=[request], family="wan_5b", **size)
    (problem,) = samples.missing_tracks()
    assert problem.startswith(f"sample_generation.requests: {bad}: cannot be read as a picture")


def test_under_bf16(run_cli: Callable, small_cache: Path, track: Path, tmp_path: Path) -> None:
    cli = run_cli(
        "fit",
        *sampling(track, every_n_steps=2),
        "--trainer.precision=bf16-mixed",
        "--model.init_args.backbone.dtype=bfloat16",
        "--model.init_args.memory.gradient_checkpointing=attention",
        cache=small_cache,
    )
    assert cli.model.adapted.backbone.dtype == torch.bfloat16
    assert cli.model.adapted.memory.gradient_checkpointing == "attention"
    [row] = manifest(tmp_path / "samples" / "step_000002")
    run_cli(
        "predict",
        "--trainer.precision=bf16-mixed",
        "--model.init_args.backbone.dtype=bfloat16",
        f"--data.init_args.generation.music=['{track}']",
        f"--data.init_args.generation.prompts=['{PROMPT}']",
        "--data.init_args.generation.seeds=[5]",
        "--data.init_args.generation.track_offset_seconds=0.25",
    )
    assert manifest(tmp_path / "videos")[0]["sha256"] == row["sha256"]


def test_leaves_everything_as_it_was(
    run_cli: Callable, small_cache: Path, track: Path, tmp_path: Path
) -> None:
    cli = run_cli("fit", cache=small_cache)
    module = cli.model
    module.train()
    module.adapted.zica.eval()
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn_like(parameter)
    grads = {n: p.grad.clone() for n, p in module.named_parameters() if p.requires_grad}
    modes = {n: m.training for n, m in module.named_modules()}
    assert set(modes.values()) == {True, False}
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    callback = SampleGeneration(
        1, [SampleRequest(str(track), PROMPT)], num_frames=7, height=32, width=32
    )
    callback.generate(cli.trainer, module, 9)
    assert len(manifest(tmp_path / "samples" / "step_000009")) == 1
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert {n: m.training for n, m in module.named_modules()} == modes
    assert torch.is_grad_enabled()
    after = {n: p.grad for n, p in module.named_parameters() if p.requires_grad}
    assert_equal(after, grads)


def test_guard_puts_back_what_sampling_disturbs(run_cli: Callable, small_cache: Path) -> None:
    module = run_cli("fit", cache=small_cache).model
    module.adapted.train()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = (random.random(), np.random.rand(), torch.rand(()).item())
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    with pytest.raises(RuntimeError, match="in the middle"), _untouched(module):
        assert not any(part.training for part in module.modules())
        random.random(), np.random.rand(), torch.rand(3)
        module.adapted.zica.train()
        raise RuntimeError("in the middle")
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected
    assert all(part.training for part in module.adapted.modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out_clips": 0}, "held_out_clips is 0; it must be at least 1"),
        ({"held_out_steps": 0}, "held_out_steps is 0; it must be at least 1"),
        ({"every_n_steps": -1}, "every_n_steps is -1; it must be at least 0"),
        ({"num_frames": 8}, "num_frames is 8"),
        ({"requests": [SampleRequest("a.wav", "p", 0, -1.0)]}, "track_offset_seconds is -1.0"),
    ],
)
def test_bad_settings(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SampleGeneration(**options)


def test_a_full_memory_costs_a_sample_not_the_run(
    run_cli: Callable, small_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OutOfMemoryError("the device's memory is too small for decoding")

    monkeypatch.setattr("callbacks.sample_generation.generate", full)
    with pytest.warns(UserWarning, match="no sample for .*mp4: the device's memory is too small"):
        cli = run_cli("fit", "--sample_generation.every_n_steps=2", cache=small_cache)
    assert cli.trainer.global_step == 2


def process_of(folder: Path, *, rank: int = 0, world_size: int = 1) -> SimpleNamespace:
    return SimpleNamespace(
        global_rank=rank, world_size=world_size, is_global_zero=rank == 0, callbacks=[], loggers=[],
        default_root_dir=folder, fast_dev_run=False, overfit_batches=0,
        precision_plugin=SimpleNamespace(forward_context=nullcontext),
        strategy=SimpleNamespace(barrier=lambda name: None),
    )  # fmt: skip


def test_processes_share_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each clip is made by one of them."""
    made: dict[int, list[str]] = {0: [], 1: []}
    rank = 0

    def note(model: object, encoders: object, request: GenerationRequest, *_, **__) -> None:
        made[rank].append(request.track)
        raise OutOfMemoryError("noted")

    class Sampled(Line):
        adapted = encoders = sampling = None

    monkeypatch.setattr("callbacks.sample_generation.generate", note)
    sampling = SampleGeneration(1, [SampleRequest(f"{name}.wav", PROMPT) for name in "abc"])
    for rank in made:
        sampling.generate(process_of(tmp_path, rank=rank, world_size=2), Sampled(), 1)
    assert made == {0: ["a.wav", "c.wav"], 1: ["b.wav"]}


def test_loud_music_is_logged_as_it_is(tmp_path: Path, events: Callable, capsys) -> None:
    """Past full scale TensorBoard would cut it off, and say so without naming the clip."""
    seconds = torch.arange(44_100) / 44_100
    waveform = 1.6 * torch.sin(2 * torch.pi * 440 * seconds)
    request = SampleGeneration(1, [SampleRequest("song.wav", PROMPT)]).requests[0]
    frames = torch.zeros(7, 32, 32, 3, dtype=torch.uint8)
    clip = SimpleNamespace(request=request, frames=frames, waveform=waveform)
    logger = TensorBoardLogger(tmp_path, name="logs", version="")
    logged = []
    logger.experiment.add_audio = lambda tag, sound, *_: logged.append(sound)
    SampleGeneration(1)._log(SimpleNamespace(loggers=[logger]), clip, 3)
    [sound] = logged
    assert sound.abs().max() == 1.0
    assert torch.allclose(sound[0] * 1.6, waveform, atol=1e-5)
    assert "clipped" not in capsys.readouterr().out
