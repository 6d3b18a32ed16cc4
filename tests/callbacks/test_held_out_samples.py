"""Samples while training of the cache's held-out clips, where no requests are named."""

import argparse
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from benchmarks.profiles import build_on_meta, read_profile
from benchmarks.vae import counted_tflop
from callbacks import SampleGeneration
from callbacks.sample_generation import SampleRequest
from datamodules.generation_requests import held_out_requests
from musicinfuser.generation import SamplingSpec
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.media.latents import read_headers
from musicinfuser.memory.out_of_memory import OutOfMemoryError
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.networks.work import Work
from tests.callbacks.test_sample_generation import PROMPT, manifest, process_of
from tests.conftest import ROOT
from tests.handmade_cache import RECIPE, header
from tests.small_training import Line


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
    found = SampleGeneration.obstacle(module, None)
    assert found == reason if reason is None else found.startswith(reason.format(parts))


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
    whole = build_on_meta(read_profile(), compile_blocks=False)
    work = Work.of(whole, size.frames, size.height, size.width, text_tokens=256)
    assert size.frames == 73 and (size.height, size.width) == (480, 848)
    clip = 2 * num_steps * work.forward + counted_tflop(size, "decode")
    run = (
        max_steps
        * data["batch_size"]
        * work.training_step(model["memory"]["gradient_checkpointing"])
    )
    share = num_clips * clip / run
    assert share < 0.05
    assert f"{100 * share:.1f} % of the run's work" in text
