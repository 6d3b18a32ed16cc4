"""Latents of the adapted Wan against those of diffusers' `WanPipeline`."""

import copy

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from musicinfuser.diffusion.guidance import text_guidance
from musicinfuser.diffusion.sampler import euler_sample
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.music_mochi import MusicMochi
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
    return MusicMochi(
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


def test_their_own_scheduler_on_our_velocity_gives_their_latents_bit_for_bit(model, noise):
    """UniPC, which Wan's folders name."""
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    pipeline = small_wan.pipeline(scheduler)
    expected = theirs(pipeline, noise)
    positive, negative = velocities(pipeline, model)
    scheduler = UniPCMultistepScheduler.from_config(scheduler.config)
    scheduler.set_timesteps(NUM_STEPS)
    found = noise
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            without = -negative(found, timestep[None])
            predicted = without + GUIDANCE * (-positive(found, timestep[None]) - without)
            found = scheduler.step(predicted, timestep, found, return_dict=False)[0]
    assert torch.equal(found, expected)
