"""Latents of the adapted Wan against those of diffusers' `WanPipeline`, and from a picture."""

import copy

import numpy as np
import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
)
from PIL import Image
from transformers import ByT5Tokenizer

from musicinfuser.diffusion.guidance import text_guidance
from musicinfuser.diffusion.sampler import Euler, euler_sample, sample
from musicinfuser.generation import Conditions, SamplingSpec, denoise
from musicinfuser.media.pictures import fitted_picture
from musicinfuser.networks.backbones import Wan
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec
from tests import small_wan

PROMPT, NEGATIVE = "a dancer on a roof", "blurred, static"
NUM_STEPS, GUIDANCE = 4, 5.0


@pytest.fixture(scope="module")
def noise():
    return torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(5))


def theirs(pipeline, noise):
    return pipeline(
        PROMPT, negative_prompt=NEGATIVE, height=32, width=48, num_frames=9,
        num_inference_steps=NUM_STEPS, guidance_scale=GUIDANCE, latents=noise,
        output_type="latent",
    ).frames  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return MusicModel(
        copy.deepcopy(small_wan.transformer()), layers=[0, 2], zica=ZicaSpec(num_heads=4),
        lora=LoraSpec(rank=2, alpha=2.0), audio_width=96,
    )  # fmt: skip


def velocities(pipeline, model, audio=None):
    """Of prompt and negative prompt, cut to their own tokens as captions are kept."""

    def of(text):
        # With gradients the CPU takes another kernel, and other last bits.
        with torch.no_grad():
            features, _ = pipeline.encode_prompt(text, None, False, 1, max_sequence_length=512)
        length = int(features[0].any(dim=-1).sum())

        def velocity(latents, timestep):
            text = features[:, :length]
            return model(latents, text, timestep, None, audio, text_lengths=(length,))

        return velocity

    return of(PROMPT), of(NEGATIVE)


@pytest.mark.parametrize("with_audio", [False, True])
def test_euler_on_their_noise_levels_gives_their_latents_bit_for_bit(model, noise, with_audio):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipeline = small_wan.pipeline(scheduler)
    expected = theirs(pipeline, noise)
    audio = torch.randn(1, 20, 96, generator=torch.Generator().manual_seed(6))
    denoisers = [
        lambda latents, sigma, velocity=velocity: velocity(latents, model.timestep(sigma))
        for velocity in velocities(pipeline, model, audio if with_audio else None)
    ]
    with torch.no_grad():
        found = euler_sample(text_guidance(*denoisers, GUIDANCE), noise, scheduler.sigmas)
    assert torch.equal(found, expected)
    assert (found - noise).abs().mean() > 0.1


def test_unipc_gives_their_latents_bit_for_bit(model, noise):
    """What Wan's folders name, with its own levels and whole-number timesteps."""
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    pipeline = small_wan.pipeline(scheduler)
    expected = theirs(pipeline, noise)
    denoisers = [
        lambda latents, sigma, velocity=velocity: velocity(latents, model.timestep(sigma))
        for velocity in velocities(pipeline, model)
    ]
    solver = Wan.solver("unipc", NUM_STEPS, linear_threshold=0.0, shift=3.0)
    with torch.no_grad():
        found = sample(text_guidance(*denoisers, GUIDANCE), noise, solver)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("num_done", [1, 2, 3, 4])
def test_unipc_goes_on_after_any_step_to_the_bit(noise, num_done):
    def velocity(latents, sigma):
        return (latents * sigma.float().view(-1, 1, 1, 1, 1)).sin()

    def made():
        return Wan.solver("unipc", 5, linear_threshold=0.0, shift=5.0)

    kept = {}
    solver = made()

    def note(step, latents):
        kept[step + 1] = latents, {name: t.clone() for name, t in solver.memory().items()}

    whole = sample(velocity, noise, solver, on_step_end=note)
    latents, memory = kept[num_done]
    solver = made()
    solver.remember(num_done, memory)
    assert torch.equal(sample(velocity, latents, solver, first_step=num_done), whole)


SIZE = {"height": 32, "width": 64}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """diffusers' pipeline from a picture, of small parts of the 5B, and encoders of the same."""
    folder = small_wan.write_parts(tmp_path_factory.mktemp("parts"), is_5b=True)
    encoders = Encoders(EncodersSpec(str(folder), family="wan_5b", max_text_tokens=512,
                                     dtype="float32"))  # fmt: skip
    pipeline = WanImageToVideoPipeline(
        tokenizer=ByT5Tokenizer(), text_encoder=encoders.text_encoder, vae=encoders.vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=small_wan.transformer(in_channels=48, out_channels=48), expand_timesteps=True,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, encoders


@pytest.fixture(scope="module")
def picture():
    pixels = np.random.default_rng(7).integers(0, 256, (*SIZE.values(), 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("with_audio", "solver"), [(False, "euler"), (True, "euler"), (False, "unipc")]
)
def test_from_a_picture_they_are_those_of_the_image_pipeline_bit_for_bit(
    monkeypatch, begun, picture, with_audio, solver
):
    """By Euler's method on its noise levels, and by UniPC on its own."""
    pipeline, encoders = begun
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    if solver == "unipc":
        scheduler = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        )
    pipeline.register_modules(scheduler=scheduler)
    # Through the other pipeline: this one cleans prompts with a package that is not needed here.
    with torch.no_grad():
        text, negative = (
            small_wan.pipeline(None).encode_prompt(p, None, False, max_sequence_length=512)[0]
            for p in (PROMPT, NEGATIVE)
        )
    noise = torch.randn(1, 48, 3, 2, 4, generator=torch.Generator().manual_seed(5))
    expected = pipeline(
        picture, prompt_embeds=text, negative_prompt_embeds=negative, **SIZE, num_frames=9,
        num_inference_steps=NUM_STEPS, guidance_scale=GUIDANCE, latents=noise,
        output_type="latent",
    ).frames  # fmt: skip
    model = MusicModel(
        copy.deepcopy(pipeline.transformer), layers=[0, 2], zica=ZicaSpec(num_heads=4),
        lora=LoraSpec(rank=2, alpha=2.0), audio_width=96,
    )  # fmt: skip
    first = encoders.encode_picture(fitted_picture(picture, **SIZE), device=torch.device("cpu"))
    audio = torch.randn(1, 20, 96, generator=torch.Generator().manual_seed(6))
    lengths = [(int(features[0].any(dim=-1).sum()),) for features in (text, negative)]
    conditions = Conditions(text, negative, audio if with_audio else None, *lengths, first)
    if solver == "euler":
        monkeypatch.setattr(SamplingSpec, "make_solver", lambda _: Euler(scheduler.sigmas))
    sampling = SamplingSpec(NUM_STEPS, GUIDANCE, family="wan_5b", shift=3.0, solver=solver)
    found = denoise(model, conditions, noise, sampling)
    assert torch.equal(found, expected)
    assert torch.equal(found[:, :, :1], first) and (found - noise).abs().mean() > 0.1
    conditions.first_frame = None
    without = denoise(model, conditions, noise, sampling)
    assert (found - without)[:, :, 1:].abs().mean() > 1e-3


def test_the_first_latent_frame_of_a_video_is_that_of_its_first_picture(begun):
    """So a cache holds what a training from pictures needs; up to the last layer, bit for bit.

    That one is a product over all latent frames: of more of them the last bits may differ.
    """
    _, encoders = begun
    stream = torch.Generator().manual_seed(3)
    frames = torch.randint(0, 256, (1, 9, 32, 64, 3), generator=stream, dtype=torch.uint8)
    whole, first = (
        encoders.encode_video(f, device=torch.device("cpu"))[0] for f in (frames, frames[:, :1])
    )
    assert (whole[:, :, :1] - first).abs().max() < 1e-6 < 1e-2 < first.abs().mean()
    frames[:, 1:] = 0
    other, _ = encoders.encode_video(frames, device=torch.device("cpu"))
    assert torch.equal(other[:, :, :1], whole[:, :, :1])
