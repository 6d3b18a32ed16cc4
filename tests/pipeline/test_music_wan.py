"""MusicInfuserWanPipeline: against diffusers' own, against predict, from and to folders."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from PIL import Image

from musicinfuser import MusicInfuserPipeline, MusicInfuserWanPipeline, keyed_random
from musicinfuser.adapters.folder import LORA_FILE, read_folder
from musicinfuser.adapters.loading import AdapterMismatchError, load_lora
from musicinfuser.clip_size import LatentTimes
from musicinfuser.errors import UserError
from musicinfuser.generation import SamplingSpec, generate
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from musicinfuser.networks.backbones import Wan
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.pipelines import calling
from tests import small_wan
from tests.pipeline.conftest import distance, latents_of, quiet
from tests.small_wan import trained_on, write_adapter

SIZE = {"num_frames": 9, "height": 32, "width": 48}


@pytest.fixture(scope="module")
def parts_5b(tmp_path_factory):
    return small_wan.write_parts(tmp_path_factory.mktemp("wan_5b") / "small-5b", is_5b=True)


@pytest.fixture(scope="module")
def load(wan_parts, wan_adapter, small_parts):
    """``load(base, **options)``: our pipeline with the adapter."""

    def load(base=wan_parts, **options):
        ears = {"audio_encoder": small_parts / "audio_encoder"}
        given = {"adapter": wan_adapter, **ears, **options}
        return quiet(MusicInfuserWanPipeline.from_pretrained(base, **given))

    return load


@pytest.fixture(scope="module")
def loaded(load):
    return load()


def latents(pipeline, prompt="a dancer", **changes):
    return latents_of(pipeline, prompt, **(SIZE | changes))


@pytest.mark.parametrize(("is_5b", "solver"), [(False, "euler"), (True, "euler"), (False, "unipc")])
def test_without_music_latents_are_those_of_wan_pipeline(
    wan_parts, parts_5b, is_5b, solver, monkeypatch
):
    """Euler on its noise levels; the 5B's pipeline gives every token a level of its own."""
    source = parts_5b if is_5b else wan_parts
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    if solver == "unipc":
        scheduler = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        )
    plain = quiet(WanPipeline.from_pretrained(source, scheduler=scheduler))
    settings = {
        "num_inference_steps": 4,
        "guidance_scale": 5.0,
        "negative_prompt": ["blurred, static", ""],
        "prompt": ["a dancer", "a much longer prompt &amp; more"],
        "height": 64,
        "width": 64,
        "num_videos_per_prompt": 2,
    }
    expected = latents(plain, **settings)
    if solver == "euler":
        levels = scheduler.sigmas.clone()
        monkeypatch.setattr(Wan, "noise_levels", classmethod(lambda cls, *args, **options: levels))
    pipeline = quiet(MusicInfuserWanPipeline.from_pretrained(source))
    found = latents(pipeline, **settings, solver=solver, shift=3.0)
    assert found.shape == ((4, 48, 3, 4, 4) if is_5b else (4, 16, 3, 8, 8))
    if is_5b:
        assert distance(found, expected) < 2e-6
    else:
        assert torch.equal(found, expected)


def pictures_of(number):
    """Of the size of a video of the 5B's."""
    pixels = np.random.default_rng(7).integers(0, 256, (number, 32, 64, 3), dtype=np.uint8)
    return [Image.fromarray(own) for own in pixels]


def test_from_a_picture_latents_are_those_of_the_image_pipeline(parts_5b, monkeypatch, tmp_path):
    """Bit for bit on its noise levels; of a list each prompt has its own, also from a file."""
    ours = quiet(MusicInfuserWanPipeline.from_pretrained(parts_5b))
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    theirs = quiet(
        WanImageToVideoPipeline(
            ours.tokenizer, ours.text_encoder, ours.vae, scheduler,
            transformer=WanTransformer3DModel.from_pretrained(parts_5b / "transformer"),
            expand_timesteps=True,
        )
    )  # fmt: skip
    settings = {"num_inference_steps": 4, "guidance_scale": 5.0, "width": 64}
    prompts, images = ["a dancer", "a much longer prompt"], pictures_of(2)
    stream = torch.Generator().manual_seed(2)
    noise = torch.randn(4, 48, 3, 2, 4, generator=stream)
    # Prompts as features: theirs cleans them with a package that is not needed here.
    with torch.no_grad():
        *text, negative = (
            ours.encode_prompt(p, None, False, max_sequence_length=512)[0].repeat(2, 1, 1)
            for p in (*prompts, "blurred, static")
        )
    expected = [
        latents(
            theirs, image, prompt_embeds=text[i], negative_prompt_embeds=negative,
            latents=noise[2 * i : 2 * i + 2], **settings,
        )
        for i, image in enumerate(images)
    ]  # fmt: skip
    levels = scheduler.sigmas.clone()
    monkeypatch.setattr(Wan, "noise_levels", classmethod(lambda cls, *args, **options: levels))
    images[1].save(tmp_path / "second.png")
    for i, image in enumerate([images[0], tmp_path / "second.png"]):
        found = latents(
            ours, prompts[i], image=image, negative_prompt="blurred, static",
            num_videos_per_prompt=2, latents=noise[2 * i : 2 * i + 2], **settings,
        )  # fmt: skip
        assert torch.equal(found, expected[i])
    both = latents(
        ours, prompts, image=images, negative_prompt="blurred, static", num_videos_per_prompt=2,
        latents=noise, **settings,
    )  # fmt: skip
    assert distance(both, torch.cat(expected)) < 2e-6


def test_what_an_image_cannot_be(loaded, parts_5b, tmp_path):
    with pytest.raises(ValueError, match="an image is given, but Wan cannot begin a clip with a"):
        latents(loaded, image=pictures_of(1)[0])
    ours = quiet(MusicInfuserWanPipeline.from_pretrained(parts_5b))
    with pytest.raises(ValueError, match="there are 2 images for 1 prompts; give one each"):
        latents(ours, image=pictures_of(2), width=64)
    with pytest.raises(ValueError, match="none.png: there is no such file"):
        latents(ours, image=tmp_path / "none.png", width=64)
    pictures_of(1)[0].save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    for image, message in (
        (np.zeros((8, 8, 3), np.uint8), "image is a path, a picture of Pillow's, .* not ndarray"),
        ([None], "one for each prompt, not NoneType"),
        (Image.open(tmp_path / "cut.png"), "the image: cannot be read as a picture"),
        (Image.new("RGB", (0, 4)), "the image: it has no pixels"),
    ):
        with pytest.raises(UserError, match=message):
            latents(ours, image=image, width=64)


@pytest.mark.parametrize("seconds", [None, 21 / 16])
def test_it_makes_what_predict_makes(wan_trained, loaded, wan_parts, small_parts, song, seconds):
    """In one pass and in windows, each with its own sound and rate."""
    audio = {"audio": str(small_parts), "audio_subfolder": "audio_encoder"}
    encoders = Encoders(EncodersSpec(mochi=str(wan_parts), **audio, dtype="float32", family="wan"))
    frames, windowed = (9, False) if seconds is None else (21, True)
    request = GenerationRequest(
        song, "a dancer", 4, frames, 32, 48, track_offset_seconds=0.25, in_windows=windowed
    )
    sampling = SamplingSpec(
        2, 3.0, 1.5, fps=16.0, window_frames=9, window_overlap_frames=4, family="wan", shift=5.0
    )
    clip = generate(wan_trained, encoders, request, sampling, device=torch.device("cpu"))
    expected = torch.cat([clip.frames, *clip.more_frames])
    video = loaded(
        "a dancer", song, height=32, width=48, num_frames=None if windowed else frames,
        num_seconds=seconds, num_inference_steps=2, guidance_scale=3.0, music_guidance_scale=1.5,
        audio_start_seconds=0.25, window_frames=9, shift=5.0, output_type="pt",
        generator=keyed_random.generator(4, 0, "sampling noise"),
    ).frames  # fmt: skip
    assert video.shape == (1, frames, 3, 32, 48)
    difference = (video[0].permute(0, 2, 3, 1) * 255).round() - expected.float()
    assert difference.abs().max() <= 1 and difference.abs().mean() < 0.01
    assert (expected[0].float() - expected[-1].float()).abs().mean() > 0.1


def test_a_saved_pipeline_comes_back_whole(loaded, song, tmp_path):
    loaded.save_pretrained(tmp_path)
    again = quiet(MusicInfuserWanPipeline.from_pretrained(tmp_path))
    assert isinstance(again, WanPipeline)
    settings = {"audio": song, "num_inference_steps": 1, "num_videos_per_prompt": 2}
    assert torch.equal(latents(again, **settings), latents(loaded, **settings))
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "MusicInfuserWanPipeline" and index["has_lora"]
    plain = WanTransformer3DModel.from_pretrained(tmp_path / "transformer")
    assert not any("lora" in name for name in plain.state_dict())


def test_wan_pipeline_takes_the_lora(wan_adapter, wan_trained, wan_parts):
    """On its own it gives what our model does without audio, as LoRA and merged."""
    pipeline = quiet(WanPipeline.from_pretrained(wan_parts))
    pipeline.load_lora_weights(wan_adapter, weight_name=LORA_FILE)
    stream = torch.Generator().manual_seed(5)
    z, text = torch.randn(1, 16, 3, 4, 6, generator=stream), torch.randn(1, 512, 64)
    timestep = torch.tensor([500.0])
    with torch.no_grad():
        ours = wan_trained(z, text, timestep, text_lengths=(512,))
        theirs = pipeline.transformer(z, timestep, text, return_dict=False)[0]
        assert torch.equal(theirs, -ours)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
        fused = pipeline.transformer(z, timestep, text, return_dict=False)[0]
        bare = quiet(WanPipeline.from_pretrained(wan_parts)).transformer
        without = bare(z, timestep, text, return_dict=False)[0]
    assert distance(fused, theirs) < 1e-5 < 1e-3 < distance(without, theirs)


def test_what_a_call_means_is_the_base_s(loaded, monkeypatch):
    """A base of the 1.3B's depth and heads has its shift and guidance; others the family's."""
    sizes = {"num_layers": 30, "num_attention_heads": 12, "attention_head_dim": 128}
    usual = Wan.usual_of(sizes)
    assert (usual.guidance_scale, usual.shift, usual.num_frames) == (6.0, 8.0, 81)
    usual = Wan.usual_of(loaded.transformer.config)
    assert (usual.guidance_scale, usual.shift, usual.num_steps) == (5.0, None, 50)
    asked = []

    def noted(model, conditions, noise, sampling, **options):
        asked.append((sampling, tuple(noise.shape)))
        return noise

    monkeypatch.setattr(calling, "denoise", noted)
    loaded("a dancer", height=32, width=32, output_type="latent")
    sampling, shape = asked[0]
    loaded("a dancer", height=32, width=32, num_seconds=2.0, window_frames=5, output_type="latent")
    assert (asked[1][0].window_frames, asked[1][0].window_overlap_frames) == (5, 4)
    assert shape == (1, 16, 21, 4, 4) and sampling.fps == 16.0
    assert (sampling.num_steps, sampling.guidance_scale, sampling.family) == (50, 5.0, "wan")
    assert (sampling.window_frames, sampling.window_overlap_frames) == (81, 40)


def test_videos_have_the_rate_the_adapter_was_trained_at(wan_adapter, load, song, tmp_path):
    folder = tmp_path / "at_20"
    shutil.copytree(wan_adapter, folder)
    path = folder / "zica" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fps": 20.0}))
    assert read_folder(folder).settings.fps == 20.0
    pipeline = load(adapter=folder)
    assert pipeline.fps == 20.0
    assert pipeline.zica.audio_projector.latent_times == LatentTimes(4, 1 / 20)
    with pytest.raises(ValueError, match=r"49 frames last 2\.45 s; ask for num_frames=37"):
        latents(pipeline, audio=song, num_frames=49)
    pipeline.save_pretrained(tmp_path / "saved")
    assert MusicInfuserWanPipeline.from_pretrained(tmp_path / "saved").fps == 20.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 13, "height": 40}, "height is 40 px; it must be a multiple of 16"),
        ({"num_frames": 7}, r"num_frames is 7; Wan takes 4k \+ 1 frames, e.g. 5 or 9"),
        ({"window_frames": 10}, r"window_frames is 10; use 4k \+ 1"),
        ({"shift": 0.0}, "sampling.shift is 0"),
        ({"latents": torch.zeros(1, 16, 3, 4, 4)}, r"need \(1, 16, 3, 4, 6\)"),
        ({"num_frames": 49}, "2.00 s of sound .* 49 frames last 3.06 s; ask for num_frames=29"),
    ],
)
def test_what_does_not_fit_is_said(loaded, song, changes, message):
    with pytest.raises(ValueError, match=message):
        latents(loaded, audio=song, **changes)


def test_sizes_of_the_5b(parts_5b):
    pipeline = quiet(MusicInfuserWanPipeline.from_pretrained(parts_5b))
    with pytest.raises(ValueError, match="height is 48 px; it must be a multiple of 32"):
        latents(pipeline, height=48, width=32)


def test_families_are_not_taken_for_each_other(
    load, wan_parts, parts_5b, wan_adapter, small_parts, tmp_path
):
    with pytest.raises(ValueError, match="another family of backbones; use MusicInfuserWanPipel"):
        MusicInfuserPipeline.from_pretrained(wan_parts)
    with pytest.raises(ValueError, match="another family of backbones; use MusicInfuserPipeline"):
        load(small_parts)
    with pytest.raises(AdapterMismatchError, match="it is of wan, the base of wan_5b; load"):
        load(parts_5b)
    # As wide as the base, as the published Mochi is as wide as the 5B.
    mochi = write_adapter(tmp_path / "mochi", trained_on(small_parts, "mochi"))
    assert json.loads((mochi / "zica" / "config.json").read_text())["width"] == 128
    for base in (wan_parts, parts_5b):
        with pytest.raises(AdapterMismatchError, match="it is of mochi, the base of wan"):
            load(base, adapter=mochi)
    with pytest.raises(AdapterMismatchError, match="it is of wan, the base of mochi"):
        MusicInfuserPipeline.from_pretrained(small_parts, adapter=wan_adapter)
    # Of the LoRA alone.
    (mochi / "zica" / "config.json").unlink()
    pipeline = load(adapter=None, audio_encoder=None)
    with pytest.raises(AdapterMismatchError, match=r"the base has no transformer_blocks\.0\."):
        load_lora(pipeline, str(mochi))


@pytest.mark.parametrize("sign", ["folder", "index", "boundary", "name", "path"])
def test_two_experts_are_refused(wan_parts, load, tmp_path, sign):
    base = tmp_path / ("Wan2.2-T2V-A14B-Diffusers" if sign == "name" else "base")
    shutil.copytree(wan_parts, base)
    index = json.loads((base / "model_index.json").read_text())
    if sign == "folder":
        shutil.copytree(base / "transformer", base / "transformer_2")
    elif sign == "index":
        index["transformer_2"] = index["transformer"]
    elif sign == "boundary":
        index["boundary_ratio"] = 0.875
    elif sign == "path":
        config = json.loads((base / "transformer" / "config.json").read_text())
        config["_name_or_path"] = "/models/Wan2.2-T2V-A14B-Diffusers/transformer"
        (base / "transformer" / "config.json").write_text(json.dumps(config))
    (base / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="has two transformers, one for high noise and one for"):
        load(base)
    with pytest.raises(ValueError, match="has two transformers, one for high noise and one for"):
        build_backbone(BackboneSpec(pretrained=str(base), family="wan"))


def test_two_transformers_given_by_hand_are_refused(loaded):
    parts = {**loaded.components, "transformer_2": loaded.transformer}
    with pytest.raises(ValueError, match="this base has two transformers"):
        MusicInfuserWanPipeline(**parts)


def test_callbacks_see_the_noise_as_diffusers_counts_it(loaded):
    seen = []

    def look(pipe, step, timestep, tensors):
        seen.append((float(timestep), float(pipe.current_timestep)))
        return {}

    latents(loaded, callback_on_step_end=look, shift=3.0)
    assert seen == [(1000.0, 1000.0), (750.0, 750.0)]


def test_group_offload_of_diffusers(loaded, song):
    fresh = quiet(MusicInfuserWanPipeline(**copy.deepcopy(loaded.components)))
    expected = latents(fresh, audio=song)
    fresh.enable_group_offload(
        torch.device("cpu"), exclude_modules=["vae"], offload_type="leaf_level"
    )
    assert torch.equal(latents(fresh, audio=song), expected)


def test_in_bf16_what_must_stays_fp32(load, song):
    pipeline = load(dtype=torch.bfloat16)
    assert pipeline.transformer.dtype == torch.bfloat16
    for part in (pipeline.vae, pipeline.audio_encoder, pipeline.zica):
        assert part.dtype == torch.float32
    found = latents(pipeline, audio=song)
    assert found.dtype == torch.float32 and found.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 0}, "height is 0 px; it must be a multiple of 16"),
        ({"width": 0}, "width is 0 px; it must be a multiple of 16"),
        ({"max_sequence_length": 600}, "max_sequence_length is 600, but wan reads 512 tokens"),
        (
            {"prompt": None, "prompt_embeds": torch.zeros(1, 600, 64)},
            "the length of prompt_embeds is 600, but wan reads 512 tokens",
        ),
    ],
)
def test_what_a_call_cannot_mean_is_said_before_anything_is_encoded(
    loaded, monkeypatch, changes, message
):
    monkeypatch.setattr(type(loaded), "_encoded_prompts", None)
    with pytest.raises(UserError, match=message):
        latents(loaded, **changes)


def test_songs_in_slices_are_those_without(loaded):
    settings = {"num_seconds": 21 / 16, "window_frames": 9, "num_inference_steps": 1}
    noise = torch.randn(2, 16, 6, 4, 6, generator=torch.Generator().manual_seed(1))

    def run():
        return loaded(
            ["a", "b"], height=32, width=48, latents=noise, output_type="pt", **settings
        ).frames  # fmt: skip

    whole = run()
    loaded.vae.enable_slicing()
    sliced = run()
    loaded.vae.disable_slicing()
    assert torch.allclose(sliced, whole, atol=1e-5)
