import argparse
import json
import random
import shutil
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.loggers import TensorBoardLogger

from benchmarks.limits import Work
from benchmarks.vae import counted_tflop
from callbacks import SampleGeneration
from callbacks.sample_generation import SampleRequest, _untouched
from datamodules.generation_requests import held_out_requests
from musicinfuser.generation import GeneratedClip, SamplingSpec
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.media.audio import read_audio, write_wav
from musicinfuser.media.latents import read_headers
from musicinfuser.memory.out_of_memory import OutOfMemoryError
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from tests.conftest import ROOT
from tests.dancing_square import click_track, swinging_square
from tests.handmade_cache import RECIPE, header
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


def told(record: list[warnings.WarningMessage]) -> list[str]:
    return [str(w.message) for w in record if str(w.message).startswith("no sample")]


def test_without_named_requests_samples_are_of_the_caches_held_out_clips(
    run_cli: Callable, small_cache: Path, media: Path, tmp_path: Path
) -> None:
    """Their video, from where they were cut, their caption, whose features the cache has."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        cli = run_cli(
            "fit", "--sample_generation.every_n_steps=2", "--trainer.max_steps=4",
            "--model.init_args.sampling.num_steps=3", cache=small_cache,
        )  # fmt: skip
    assert told(record) == []
    headers = [h for h in read_headers(small_cache) if h.split == "held_out"]
    assert len(headers) == 3
    for step in (2, 4):
        rows = manifest(tmp_path / "samples" / f"step_00000{step}")
        assert sorted((r["track"], r["track_offset_seconds"], r["prompt"]) for r in rows) == sorted(
            (h.attributes["file"], float(h.attributes["start_seconds"]), h.caption)
            for h in headers[:2]
        )
        assert {(r["num_steps"], r["num_frames"], r["height"]) for r in rows} == {(3, 7, 32)}
    assert all(Path(row["track"]).is_relative_to(media / "aist") for row in rows)
    assert "text_encoder" not in vars(cli.model.encoders)
    # What `predict` makes of the same request, encoding the caption anew.
    [row] = [r for r in rows if r["track"] == headers[0].attributes["file"]]
    run_cli(
        "predict", "--model.init_args.sampling.num_steps=3",
        f"--data.init_args.generation.music=['{row['track']}']",
        f"--data.init_args.generation.prompts=['{row['prompt']}']",
        f"--data.init_args.generation.track_offset_seconds={row['track_offset_seconds']}",
    )  # fmt: skip
    assert manifest(tmp_path / "videos")[0]["sha256"] == row["sha256"]


def test_one_value_switches_samples_off(
    run_cli: Callable, small_cache: Path, tmp_path: Path
) -> None:
    run_cli(
        "fit", "--sample_generation.every_n_steps=0", "--trainer.max_steps=3", cache=small_cache
    )
    assert not (tmp_path / "samples").exists()


def moved(cache: Path, to: Path, *, keep: int = 0) -> Path:
    """The cache with headers that name videos which are not there, but for the first ones."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(cache, to)
    held_out = [h for h in read_headers(to) if h.split == "held_out"]
    for clip in held_out[keep:]:
        tensors = load_file(clip.path)
        attributes = clip.attributes | {"file": "/gone/" + Path(clip.attributes["file"]).name}
        described = {k: v for k, v in vars(replace(clip, attributes=attributes)).items()
                     if k not in ("path", "recipe")}  # fmt: skip
        metadata = {"clip": json.dumps(described), "recipe": json.dumps(vars(clip.recipe))}
        save_file(tensors, clip.path, metadata=metadata)
    return to


@pytest.mark.parametrize("keep", [0, 1])
def test_videos_that_are_gone_cost_the_samples_not_the_run(
    run_cli: Callable, small_cache: Path, tmp_path: Path, keep: int
) -> None:
    cache = moved(small_cache, tmp_path / "moved", keep=keep)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        cli = run_cli("fit", "--sample_generation.every_n_steps=2", cache=cache)
    assert cli.trainer.global_step == 2
    if keep:
        assert told(record) == []
        assert len(manifest(tmp_path / "samples" / "step_000002")) == 1
        return
    [line] = told(record)
    assert line.startswith(
        "no samples while training: of 3 clips of held-out music the video is not where the cache "
        "says (gBR_sBM_c01_d04_mBR0_ch02: /gone/gBR_sBM_c01_d04_mBR0_ch02.mp4); name tracks in "
    )
    assert not (tmp_path / "samples").exists()


def test_a_cache_without_held_out_clips(
    run_cli: Callable, small_cache: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "all_train"
    shutil.copytree(small_cache, cache)
    for clip in read_headers(cache):
        if clip.split == "held_out":
            clip.path.unlink()
    options = ("--sample_generation.every_n_steps=1", "--data.init_args.validation_source=null")
    with pytest.warns(UserWarning, match="no samples .* holds no clip of held-out music; name"):
        cli = run_cli("fit", *options, cache=cache)
    assert cli.trainer.global_step == 2
    # Nothing is said, and nothing looked for, where no sample would come due.
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        run_cli("fit", options[1], cache=cache, root=tmp_path / "short")
    assert told(record) == []


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


@pytest.mark.parametrize(("num_steps", "of_held_out"), [(64, 5), (3, 3)])
def test_only_clips_of_the_cache_take_fewer_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_steps: int, of_held_out: int
) -> None:
    taken: dict[str, int] = {}

    def note(model: object, encoders: object, request: GenerationRequest, sampling, **_) -> None:
        taken[request.track] = sampling.num_steps
        raise OutOfMemoryError("noted")

    class Sampled(Line):
        adapted = encoders = None
        sampling = SamplingSpec(num_steps, 6.0)

    monkeypatch.setattr("callbacks.sample_generation.generate", note)
    named = SampleGeneration(1, [SampleRequest("named.wav", PROMPT)], held_out_steps=5)
    of_cache = SampleGeneration(1, held_out_steps=5)
    of_cache._held_out = [replace(named.requests[0], track="held out.wav")]
    for sampling in (named, of_cache):
        sampling.generate(process_of(tmp_path), Sampled(), 1)
    assert taken == {"named.wav": num_steps, "held out.wav": of_held_out}


def test_clips_are_spread_over_pieces_of_music(media: Path, tmp_path: Path) -> None:
    files = sorted((media / "aist").glob("*.mp4"))
    there = {"file": str(files[0]), "start_seconds": "1.5"}

    def clip(name: str, music: str | None, attributes: dict = there, split: str = "held_out"):
        wide = replace(RECIPE, width=48)
        changes = {"music": music, "attributes": attributes, "split": split, "recipe": wide}
        return header(tmp_path, name, **changes)

    headers = [
        clip("a0", "mBR0"), clip("a1", "mBR0"), clip("b0", "mHO5"), clip("c0", "mJB0"),
        clip("d0", "mKR2", {"file": "/gone.mp4", "start_seconds": "0"}),
        clip("e0", "mLO2", {"file": str(files[1])}), clip("f0", "mBR1", split="train"),
        clip("g0", "mMH3"),
    ]  # fmt: skip
    names = [request.prompt.split()[-1] for request in held_out_requests(headers, 2)]
    assert names == ["a0", "c0"]
    every = [request.prompt.split()[-1] for request in held_out_requests(headers, 9)]
    assert every == ["a0", "b0", "c0", "g0", "a1"]
    [request] = held_out_requests(headers, 1)
    assert (request.track, request.track_offset_seconds, request.seed) == (str(files[0]), 1.5, 0)
    assert (request.num_frames, request.height, request.width) == (7, 32, 48)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"is_sharded": True}, "the backbone is spread over the processes (model.shard_backbone)"),
        (
            {"encoders": Encoders(EncodersSpec(mochi="someone/else"))},
            "the VAE of someone/else is not on this machine",
        ),
        ({"negative": "blurry", "without": "text_encoder"}, "the text encoder of {} is not on"),
        ({"without": "text_encoder"}, None),
        ({"without": "audio_encoder"}, "the audio encoder of {} is not on this machine"),
    ],
)
def test_what_stands_in_the_way(
    small_parts: Path, tmp_path: Path, changes: dict, reason: str | None
) -> None:
    parts = tmp_path / "parts"
    shutil.copytree(small_parts, parts)
    if "without" in changes:
        shutil.rmtree(parts / changes["without"])
    spec = EncodersSpec(mochi=str(parts), audio=str(parts), audio_subfolder="audio_encoder")
    module = SimpleNamespace(
        encoders=changes.get("encoders", Encoders(spec)),
        is_sharded=changes.get("is_sharded", False),
        sampling=SamplingSpec(2, 6.0, negative_prompt=changes.get("negative", "")),
    )
    found = SampleGeneration.obstacle(module)
    assert found == reason if reason is None else found.startswith(reason.format(parts))


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


def test_default_samples_take_less_than_a_twentieth_of_the_work() -> None:
    """Counted at full size: forward passes with guidance, decoding, and training steps."""
    text = (ROOT / "configs" / "base.yaml").read_text()
    base = yaml.safe_load(text)
    options, defaults = base["sample_generation"], SampleGeneration()
    max_steps, every = base["trainer"]["max_steps"], options["every_n_steps"]
    num_clips = max_steps // every * defaults.held_out_clips
    assert (num_clips, options["requests"]) == (8, [])
    model, data = base["model"]["init_args"], base["data"]["init_args"]
    num_steps = min(defaults.held_out_steps, model["sampling"]["num_steps"])
    # Guidance by text is a second pass; music guidance would be a third.
    assert model["sampling"]["guidance_scale"] > 1 == model["sampling"]["music_guidance_scale"]
    size = argparse.Namespace(
        size="full", frames=data["num_frames"], height=data["height"], width=data["width"]
    )
    work = Work(rank=model["lora"]["rank"], lora_on_text=True)
    assert size.frames == 73 and (size.height, size.width) == (480, 848)
    clip = 2 * num_steps * work.forward + counted_tflop(size, "decode", tiled=False)
    run = (
        max_steps
        * data["batch_size"]
        * work.training_step(model["memory"]["gradient_checkpointing"])
    )
    share = num_clips * clip / run
    assert share < 0.05
    assert f"{100 * share:.1f} % of the run's work" in text
