"""Against diffusers' own pipeline, and against predict."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, MochiPipeline

from musicinfuser import MusicInfuserPipeline, keyed_random
from musicinfuser.generation import SamplingSpec, generate
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from tests.pipeline.conftest import SIZE, distance, latents_of

# diffusers asks for fp32 autocast, which torch has on CUDA only.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")


@pytest.fixture(scope="module")
def mochi(small_parts) -> MochiPipeline:
    pipeline = MochiPipeline.from_pretrained(
        small_parts,
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        # The authors' code, too, gives an empty prompt no tokens.
        force_zeros_for_empty_prompt=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize(
    "num_steps", [4, pytest.param(64, marks=pytest.mark.slow)], ids=["short", "full"]
)
def test_without_music_latents_equal_those_of_mochi_pipeline(base, mochi, num_steps):
    settings = {"num_inference_steps": num_steps, "guidance_scale": 6.0}
    theirs = latents_of(mochi, **settings)
    assert distance(latents_of(base, **settings), theirs) < 1e-5
    if num_steps == 4:
        # Its blocks are ours, yet it runs in diffusers' own pipeline, which it was taken from.
        parts = {name: part for name, part in base.components.items() if name in mochi.components}
        own = MochiPipeline(**parts, force_zeros_for_empty_prompt=True)
        own.set_progress_bar_config(disable=True)
        assert distance(latents_of(own, **settings), theirs) < 1e-5


def test_a_new_adapter_changes_nothing_whatever_it_hears(fresh, base, song):
    for name, parameter in fresh.zica.named_parameters():
        if ".to_out." in name:
            parameter.data.zero_()
    fresh.unload_lora_weights()
    assert torch.equal(latents_of(fresh, audio=song), latents_of(base))


def test_latents_equal_those_of_predict(loaded, trained, small_parts, song):
    parts = str(small_parts)
    encoders = Encoders(
        EncodersSpec(mochi=parts, audio=parts, audio_subfolder="audio_encoder", dtype="float32")
    )
    request = GenerationRequest(
        track=song, prompt="a dancer", seed=4, track_offset_seconds=0.25, **SIZE
    )
    clip = generate(
        trained, encoders, request, SamplingSpec(2, 3.0, 1.5), device=torch.device("cpu")
    )
    stream = keyed_random.generator(request.seed, 0, "sampling noise")
    video = loaded(
        "a dancer", song, **SIZE, num_inference_steps=2, guidance_scale=3.0,
        music_guidance_scale=1.5, audio_start_seconds=0.25,
        latents=torch.randn(1, 12, 3, 4, 6, generator=stream), output_type="pt",
    ).frames  # fmt: skip
    difference = (video[0].permute(0, 2, 3, 1) * 255).round() - clip.frames.float()
    assert difference.abs().max() <= 1 and difference.abs().mean() < 0.01


def test_in_bf16_latents_and_timesteps_stay_fp32(small_parts, adapter, song):
    pipeline = MusicInfuserPipeline.from_pretrained(
        small_parts, adapter=adapter, dtype=torch.bfloat16
    )
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.transformer.dtype == pipeline.vae.dtype == torch.bfloat16
    assert pipeline.audio_encoder.dtype == pipeline.zica.dtype == torch.float32
    seen = []
    pipeline.transformer.time_embed.time_proj.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].dtype)
    )

    def watch(pipe, step, timestep, tensors):
        seen.extend((tensors["latents"].dtype, timestep.dtype))
        return {}

    latents = latents_of(pipeline, audio=song, callback_on_step_end=watch)
    assert latents.dtype == torch.float32 and latents.isfinite().all()
    assert len(seen) == 2 * 2 + 2 * 2 and set(seen) == {torch.float32}
    # Not values of bf16 in a larger type.
    assert not torch.equal(latents, latents.bfloat16().float())


def test_empty_prompts_are_zeroed_one_by_one(base):
    """In a batch as alone, at its end or not; diffusers looks at the last prompt only."""
    # A base saved by diffusers says so if nobody asked for it.
    base = MusicInfuserPipeline(**base.components, force_zeros_for_empty_prompt=False)
    base.set_progress_bar_config(disable=True)
    noise = torch.randn(3, 12, 3, 4, 6, generator=torch.Generator().manual_seed(1))
    prompts = ["", "a dancer on a roof", ""]
    together = latents_of(base, prompts, latents=noise)
    for i, prompt in enumerate(prompts):
        alone = latents_of(base, prompt, latents=noise[i : i + 1])
        assert distance(together[i : i + 1], alone) < 1e-5
    assert not torch.equal(together[0], latents_of(base, "a man", latents=noise[:1])[0])


def test_several_videos_of_each_prompt(loaded, song):
    noise = torch.randn(4, 12, 3, 4, 6, generator=torch.Generator().manual_seed(2))
    prompts, songs = ["a", "a much longer prompt"], [song, (torch.rand(16_000) - 0.5, 16_000)]
    both = latents_of(loaded, prompts, songs, latents=noise, num_videos_per_prompt=2)
    for i in range(4):
        alone = latents_of(loaded, prompts[i // 2], songs[i // 2], latents=noise[i : i + 1])
        assert distance(both[i : i + 1], alone) < 1e-5


def test_guidance_identities(loaded, song):
    def of(text, music=1.0, prompt="a dancer", negative="a tree"):
        return latents_of(
            loaded, prompt, song, negative_prompt=negative, num_inference_steps=1,
            guidance_scale=text, music_guidance_scale=music,
        )  # fmt: skip

    conditional, unconditional = of(1.0, negative="whatever"), of(0.0, prompt="whatever")
    assert torch.equal(conditional, of(1.0)) and torch.equal(unconditional, of(0.0))
    assert distance(of(1.0, prompt="a tree"), unconditional) < 1e-5
    assert distance(of(6.0), unconditional + 6 * (conditional - unconditional)) < 1e-5
    without = latents_of(loaded, num_inference_steps=1, guidance_scale=1.0)
    assert distance(without, conditional) > 1e-4
    guided = of(6.0) + 2 * (conditional - without)
    assert distance(of(6.0, 3.0), guided) < 1e-5
