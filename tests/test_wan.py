"""A small Wan through every command: encode, check, fit, validate and predict."""

import json
import re
from dataclasses import replace
from pathlib import Path

import av
import pytest
import torch

from datamodules.batch import collate
from datamodules.mixing import SampleKey
from musicinfuser.adapters.card import CardFacts
from musicinfuser.adapters.folder import read_folder, write_folder
from musicinfuser.adapters.loading import AdapterMismatchError, check_belongs
from musicinfuser.adapters.official import write_official_adapter
from musicinfuser.adapters.settings import AdapterSettings, adapter_of_checkpoint
from musicinfuser.diffusion.noise_levels import beta_quantile, shifted
from musicinfuser.media.latents import caption_path, read_caption, read_clip, read_headers
from musicinfuser.networks.music_adapter import MusicAdapter
from tests import small_wan
from tests.conftest import ROOT, encode_arguments
from train import main

SIZE = {"num_frames": 9, "height": 32, "width": 32}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return small_wan.write_parts(tmp_path_factory.mktemp("wan") / "parts")


@pytest.fixture(scope="module")
def cache(parts, small_parts, media, tmp_path_factory):
    """The session's media, encoded for Wan."""
    cache = tmp_path_factory.mktemp("wan_cache") / "cache"
    first, config, *others = encode_arguments(small_parts, media, cache)
    main(
        [
            first, config, f"--config={ROOT}/configs/wan_encode.yaml", *others,
            f"--model.init_args.encoders.mochi={parts}",
            *(f"--data.init_args.{name}={value}" for name, value in SIZE.items()),
        ]
    )  # fmt: skip
    return cache


@pytest.fixture(scope="module")
def run(parts, small_parts, cache, tmp_path_factory):
    """``run(verb, *arguments)`` on base.yaml, wan_1b.yaml and tests/tiny.yaml."""
    root = tmp_path_factory.mktemp("wan_run")

    def command(verb, *arguments, parts=parts):
        return main(
            [
                verb,
                *(f"--config={ROOT}/{name}.yaml"
                  for name in ("configs/base", "configs/wan_1b", "tests/tiny")),
                f"--trainer.default_root_dir={root}",
                f"--model.init_args.backbone.pretrained={parts}",
                f"--model.init_args.encoders.mochi={parts}",
                f"--model.init_args.encoders.audio={small_parts}",
                f"--data.init_args.cache_dir={cache}",
                *(f"--data.init_args.{name}={value}" for name, value in SIZE.items()),
                *arguments,
            ]
        )  # fmt: skip

    command.root = root
    return command


@pytest.fixture(scope="module")
def fitted(run):
    return run("fit").model


def test_clips_are_encoded_for_wan(cache):
    headers = read_headers(cache)
    assert len(headers) > 4
    recipe = headers[0].recipe
    assert (recipe.num_frames, recipe.fps, recipe.max_text_tokens) == (9, 16.0, 512)
    assert len(recipe.latents_mean) == 16
    tensors = read_clip(headers[0].path)
    assert tensors["latent_mean"].shape == tensors["latent_logvar"].shape == (16, 3, 4, 4)
    # What a dropped caption shows: the mark of the end, no less.
    assert caption_path(cache, "").is_file() and read_caption(cache, "").shape == (1, 64)


def test_nothing_is_wrong(run, capsys):
    report = run("check").report
    assert report.problems == []
    assert "parameters are trained" in capsys.readouterr().out


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
    u = torch.stack([fitted._uniform(i, "sigma") for i in batch.sample_index])
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
