"""A small Wan through every command: encode, check, fit, validate and predict."""

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import pytest
import torch
import yaml

from datamodules.batch import collate
from datamodules.mixing import SampleKey
from musicinfuser.adapters.card import CardFacts
from musicinfuser.adapters.folder import read_folder, write_folder
from musicinfuser.adapters.loading import AdapterMismatchError, check_belongs
from musicinfuser.adapters.official import write_official_adapter
from musicinfuser.adapters.settings import AdapterSettings, adapter_of_checkpoint
from musicinfuser.diffusion.noise_levels import beta_quantile, shifted
from musicinfuser.generation import LatentCheckpoint, generate
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.keyed_random import uniform
from musicinfuser.media.latents import caption_path, read_caption, read_clip, read_headers
from musicinfuser.networks.backbones import Wan
from musicinfuser.networks.music_adapter import MusicAdapter
from sweeps.commands import sweep_command
from tests import small_wan
from tests.conftest import ROOT

SIZE = {"num_frames": 9, "height": 32, "width": 32}


@pytest.fixture(scope="module")
def run(small_parts, media, tmp_path_factory):
    return small_wan.Runs(tmp_path_factory.mktemp("wan"), small_parts, media, SIZE)


@pytest.fixture(scope="module")
def fitted(run):
    return run("fit").model


def test_clips_are_encoded_for_wan(run):
    cache = run.cache
    headers = read_headers(cache)
    assert len(headers) > 4
    recipe = headers[0].recipe
    assert (recipe.num_frames, recipe.fps, recipe.max_text_tokens) == (9, 16.0, 512)
    assert len(recipe.latents_mean) == 16
    tensors = read_clip(headers[0].path)
    assert tensors["latent_mean"].shape == tensors["latent_logvar"].shape == (16, 3, 4, 4)
    # What samples are guided away from, so that no training needs the text encoder.
    assert read_caption(cache, Wan.usual.negative_prompt).shape[1] == 64
    # What a dropped caption shows: the mark of the end, no less.
    assert caption_path(cache, "").is_file() and read_caption(cache, "").shape == (1, 64)


def test_nothing_is_wrong(run, capsys):
    report = run("check").report
    assert report.problems == []
    assert "parameters are trained" in capsys.readouterr().out


def test_check_refuses_what_fit_does(run):
    problems = run(
        "check", "--trainer.precision=bf16-true", "--model.init_args.sampling.fps=30"
    ).report.problems
    assert [p.partition(",")[0] for p in problems] == [
        "trainer.precision is bf16-true", "data.fps is 16",
    ]  # fmt: skip


def test_a_training_leaves_an_adapter_that_says_its_family(fitted, run):
    checkpoint = torch.load(run.root / "checkpoints" / "last.ckpt", weights_only=True)
    stored = checkpoint["musicinfuser"]["model"]
    assert stored["backbone"]["family"] == "wan" and stored["backbone"]["text_dim"] == 64
    assert AdapterSettings.from_model_settings(stored).family == "wan"
    assert fitted.adapted.kind.family == "wan"
    assert fitted.adapted.audio_projector.latent_times.frames_per_latent == 4
    assert fitted.adapted.audio_projector.latent_times.frame_seconds == pytest.approx(1 / 16)
    moved = [n for n in checkpoint["state_dict"] if n.startswith("model.zica.0.to_out")]
    assert moved and all(checkpoint["state_dict"][name].any() for name in moved)


def test_a_dropped_caption_shows_the_empty_text(fitted, monkeypatch):
    clips = fitted.trainer.datamodule.training_clips
    monkeypatch.setattr(clips, "caption_dropout", 1.0)
    item = clips[SampleKey("aist", 0, 3)]
    assert item.caption == "" and item.text.shape == (1, 64)


@pytest.mark.parametrize(("levels", "shift"), [("family", 8.0), ("plain", 1.0)])
def test_noise_levels_of_training_are_those_of_sampling_or_plain(
    fitted, monkeypatch, levels, shift
):
    clips = fitted.trainer.datamodule.training_clips
    batch = collate([clips[SampleKey("aist", 0, index)] for index in (0, 1)])
    monkeypatch.setattr(fitted, "objective", replace(fitted.objective, noise_levels=levels))
    monkeypatch.setattr(fitted.step_means, "log", lambda *arguments, **options: None)
    fitted.noise_beta = 3.0
    u = uniform(fitted.seed, batch.sample_index, "sigma")
    found = fitted.training_step(batch, 0)["sigma"]
    assert torch.equal(found, shifted(beta_quantile(u, 3.0), shift))


def test_it_goes_on_and_validates(fitted, run):
    assert run("fit", "--trainer.max_steps=3").trainer.global_step == 3
    run("validate", "--trainer.limit_val_batches=1", "--data.init_args.validation_source=aist")


def test_it_dances(fitted, run, media):
    song = str(next((media / "aist").glob("*.mp4")))
    asked = {"music": [song], "prompts": ["a dance"], "seeds": [0]}
    run("predict", f"--data.init_args.generation={json.dumps(asked)}")
    (row,) = map(json.loads, (run.root / "videos" / "manifest.jsonl").read_text().splitlines())
    assert row["fps"] == 16.0 and row["num_frames"] == 9
    with av.open(str(run.root / "videos" / row["file"])) as video:
        frames = list(video.decode(video=0))
        assert len(frames) == 9 and video.streams.video[0].average_rate == 16


@pytest.mark.parametrize(("solver", "left_after"), [("euler", 2), ("unipc", 1), ("unipc", 3)])
def test_a_whole_song_goes_on_after_a_step_to_the_bit(fitted, media, tmp_path, solver, left_after):
    """In windows, with text and music guidance."""
    song = str(next((media / "aist").glob("*.mp4")))
    sampling = replace(
        fitted.sampling, num_steps=4, music_guidance_scale=2.0, window_frames=9, solver=solver,
        window_overlap_frames=4,
    )  # fmt: skip
    request = GenerationRequest(song, "a dance", 4, 17, 32, 32, in_windows=True)
    make = partial(
        generate, fitted.adapted, fitted.encoders, request, sampling, device=torch.device("cpu")
    )
    clip = make()
    assert clip.windows.starts == (0, 2) and clip.fps == 16.0
    whole = torch.cat([clip.frames, *clip.more_frames])
    assert len(whole) == 17

    def give_up(num_done):
        if num_done == left_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(checkpoint=LatentCheckpoint(tmp_path, "song", {}, on_saved=give_up))
    steps = []
    clip = make(
        checkpoint=LatentCheckpoint(tmp_path, "song", {}),
        progress=lambda each: steps.extend(each) or each,
    )
    assert steps == list(range(left_after, 4))
    assert torch.equal(torch.cat([clip.frames, *clip.more_frames]), whole)


@pytest.mark.slow
def test_a_sweep_trains_makes_and_scores(run, small_parts, media, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    options = [a.removeprefix("--").split("=", 1) for a in run.line("fit")[1:]]
    sweep = {
        "folder": str(tmp_path / "out"),
        "configs": [value for name, value in options if name == "config"],
        "options": {
            name: yaml.safe_load(value)
            for name, value in options
            if name not in ("config", "trainer.default_root_dir")
        },
        "seeds": [1],
        "predict": {
            "data.init_args.generation": {
                "music": [str(next((media / "aist").glob("*.mp4")))],
                "prompts": ["a dancer"],
                "num_frames": 17,
            }
        },
        "rows": [
            {"name": "Ours"},
            {"name": "Plain noise", "options": {"model.init_args.objective.noise_levels": "plain"}},
        ],
        "score": {
            "metrics": f"{ROOT}/dance_eval/configs/metrics.yaml",
            "options": {"num_workers": 1},
        },
        "columns": {"beats": "beat_alignment/score"},
    }
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep))
    assert sweep_command(["sweep", str(path)]) == 0
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(document["systems"]) == ["Ours", "Plain noise"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.init_args.num_frames=7"], r"num_frames is 7; Wan takes 4k \+ 1 frames"),
        (["--data.init_args.height=40"], "height is 40 px; it must be a multiple of 16"),
        (["--trainer.precision=bf16-true"], "bf16-true, but parts of wan must stay in fp32"),
        (["--model.init_args.lora.share_qkv_a=true"], "share_qkv_a is for fused layers"),
        (["--model.init_args.memory.modulations_on_host=true"], "layers that wan does not have"),
        (["--model.init_args.encoders.family=mochi"], "model.encoders.family is mochi; give both"),
        (["--data.init_args.family=mochi", "--data.init_args.num_frames=13"], "has clips of Mochi"),
        (["--model.init_args.sampling.shift=0"], "sampling.shift is 0"),
        (["--model.init_args.sampling.fps=30"], "data.fps is 16, but model.sampling.fps is 30"),
        (["--data.init_args.fps=24"], "fps: 16.0 in the cache, 24.0 in"),
    ],
)
def test_what_is_refused(run, arguments, message, tmp_path, capsys):
    with pytest.raises((ValueError, SystemExit)) as stopped:
        run("fit", *arguments, f"--trainer.default_root_dir={tmp_path}")
    said = f"{stopped.value}{capsys.readouterr().err}"
    assert re.search(message, said), said


def test_an_adapter_of_mochi_is_refused_by_a_wan_as_wide():
    base = small_wan.transformer()
    of_mochi = MusicAdapter(width=128, layers=[0, 2], backbone_layers=3, audio_width=96)
    assert "family" not in of_mochi.config
    with pytest.raises(AdapterMismatchError, match="it is of mochi, the base of wan"):
        check_belongs(of_mochi, base, None)
    check_belongs(
        MusicAdapter(width=128, layers=[0, 2], backbone_layers=3, audio_width=96, family="wan"),
        base,
        None,
    )


def test_a_folder_says_its_family(run, tmp_path):
    adapter, _ = adapter_of_checkpoint(run.root / "checkpoints" / "last.ckpt")
    folder = tmp_path / "adapter"
    write_folder(folder, adapter, facts=CardFacts(base_model="Wan-AI/base"), config="")
    assert read_folder(folder).settings == adapter.settings
    assert json.loads((folder / "zica" / "config.json").read_text())["family"] == "wan"
    peft = json.loads((folder / "adapter_config.json").read_text())
    assert peft["auto_mapping"]["base_model_class"] == "WanTransformer3DModel"
    assert "attn2" in peft["target_modules"]
    card = (folder / "README.md").read_text()
    assert "WanPipeline" in card and "Mochi" not in card and "MusicInfuserPipeline" not in card
    assert MusicAdapter.from_pretrained(folder, subfolder="zica").family == "wan"
    with pytest.raises(ValueError, match="holds adapters of Mochi; this one is of wan"):
        write_official_adapter(adapter, tmp_path / "official.safetensors")


def test_an_adapter_of_mochi_is_refused_as_a_start(run, small_parts, tmp_path):
    other = Path(tmp_path, "other.ckpt")
    checkpoint = torch.load(run.root / "checkpoints" / "last.ckpt", weights_only=True)
    del checkpoint["musicinfuser"]["model"]["backbone"]["family"]
    torch.save(checkpoint, other)
    with pytest.raises(ValueError, match="backbone.family: None in the checkpoint, wan in the"):
        run(
            "fit",
            f"--model.init_args.init_adapter={other}",
            f"--trainer.default_root_dir={tmp_path}",
        )
