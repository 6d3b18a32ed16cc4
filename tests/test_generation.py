"""Sampling against diffusers' pipeline, and the sound that goes with a clip."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, MochiPipeline

from musicinfuser import keyed_random
from musicinfuser.diffusion.guidance import text_guidance
from musicinfuser.diffusion.sampler import linear_quadratic_sigmas
from musicinfuser.generation import SamplingSpec, generate, read_track, sample_latents
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.media.audio import write_wav
from musicinfuser.media.errors import MediaError
from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec
from tests.adapted import with_trained_values

# diffusers asks for fp32 autocast, which torch has on CUDA only.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")
CPU = torch.device("cpu")
RATE_HZ = 44_100
TRACK_SECONDS = 3.0
CELL = GenerationRequest(
    track="song.wav", prompt="a dancer", seed=4, num_frames=13, height=32, width=48
)
SAMPLING = SamplingSpec(num_steps=4, guidance_scale=6.0)


@pytest.fixture(scope="module")
def backbone(small_parts):
    return build_backbone(BackboneSpec(pretrained=str(small_parts), dtype="float32"))


@pytest.fixture(scope="module")
def encoders(small_parts):
    return Encoders(
        EncodersSpec(
            mochi=str(small_parts),
            audio=str(small_parts),
            audio_subfolder="audio_encoder",
            dtype="float32",
        )
    )


@pytest.fixture(scope="module")
def model(backbone):
    return with_trained_values(new_model(backbone))


def new_model(backbone):
    return MusicModel(
        copy.deepcopy(backbone),
        layers=[0, 2],
        zica=ZicaSpec(num_heads=4),
        lora=LoraSpec(rank=2, alpha=2.0),
        audio_width=96,
    )


@pytest.fixture(scope="module")
def track(tmp_path_factory):
    """A tone that rises steadily: every moment has its own pitch."""
    seconds = torch.arange(int(TRACK_SECONDS * RATE_HZ)) / RATE_HZ
    path = tmp_path_factory.mktemp("music") / "song.wav"
    phase = 2 * math.pi * (200 * seconds + 100 * seconds**2)
    write_wav(path, 0.5 * torch.sin(phase), rate_hz=RATE_HZ)
    return str(path)


def latents_of(model, encoders, *, prompt="a dancer", sampling=SAMPLING, audio=None, seed=4):
    text, negative = encoders.encode_captions([prompt, sampling.negative_prompt], device=CPU)
    return sample_latents(
        model, text=text, negative=negative, audio=audio, request=replace(CELL, seed=seed),
        sampling=sampling, device=CPU,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("num_steps", "guidance_scale", "negative_prompt"),
    [(4, 6.0, ""), (7, 6.0, ""), (4, 3.0, "blurry, a still picture"), (4, 1.0, "")],
)
def test_latents_equal_those_of_diffusers_pipeline(
    backbone, encoders, small_parts, num_steps, guidance_scale, negative_prompt
):
    model = new_model(backbone)
    sampling = SamplingSpec(
        num_steps=num_steps, guidance_scale=guidance_scale, negative_prompt=negative_prompt
    )
    ours = latents_of(model, encoders, sampling=sampling)
    audio = torch.randn(1, 20, 96, generator=torch.Generator().manual_seed(1))
    assert torch.equal(latents_of(model, encoders, sampling=sampling, audio=audio), ours)

    pipeline = MochiPipeline.from_pretrained(
        small_parts,
        transformer=backbone,
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        # The authors' code, too, gives an empty prompt no tokens.
        force_zeros_for_empty_prompt=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(
        1, 12, 3, 4, 6, generator=keyed_random.generator(CELL.seed, 0, "sampling noise")
    )
    theirs = pipeline(
        CELL.prompt,
        negative_prompt=negative_prompt,
        height=CELL.height,
        width=CELL.width,
        num_frames=CELL.num_frames,
        num_inference_steps=num_steps,
        guidance_scale=guidance_scale,
        latents=noise,
        output_type="latent",
    ).frames
    assert ours.shape == theirs.shape == (1, 12, 3, 4, 6)
    assert ((ours - theirs).norm() / theirs.norm()).item() < 1e-5
    assert ((ours - noise).norm() / noise.norm()).item() > 0.1


def test_both_branches_hear_the_music_at_every_level(model, encoders):
    """Against the integration written out."""
    audio = torch.randn(1, 20, 96, generator=torch.Generator().manual_seed(1))
    sampling = replace(SAMPLING, negative_prompt="blurry")
    text, negative = encoders.encode_captions(["a dancer", "blurry"], device=CPU)
    sigmas = linear_quadratic_sigmas(4)
    latents = torch.randn(1, 12, 3, 4, 6, generator=keyed_random.generator(4, 0, "sampling noise"))
    with torch.no_grad():
        for i in range(4):
            v_c, v_un = (
                model(
                    latents, features[None], (1 - sigmas[i : i + 1]) * 1000,
                    torch.ones(1, len(features)), audio,
                )
                for features in (text, negative)
            )  # fmt: skip
            latents = latents + (sigmas[i] - sigmas[i + 1]) * (v_un + 6.0 * (v_c - v_un))
    found = latents_of(model, encoders, sampling=sampling, audio=audio)
    torch.testing.assert_close(found, latents, rtol=1e-4, atol=1e-4)
    silent = latents_of(model, encoders, sampling=sampling)
    assert (found - silent).norm() / found.norm() > 1e-2


def test_latents_depend_on_seed_prompt_and_guidance_alone(model, encoders):
    torch.manual_seed(1)
    first = latents_of(model, encoders)
    torch.manual_seed(2)
    assert torch.equal(latents_of(model, encoders), first)
    for changes in (
        {"seed": 5},
        {"prompt": "two dancers"},
        {"sampling": replace(SAMPLING, guidance_scale=5.0)},
        {"sampling": replace(SAMPLING, num_steps=5)},
        {"sampling": replace(SAMPLING, linear_threshold=0.1)},
        {"sampling": replace(SAMPLING, negative_prompt="blurry")},
    ):
        other = latents_of(model, encoders, **changes)
        assert (other - first).norm() / first.norm() > 1e-4, changes
    assert first.dtype == torch.float32 and not first.requires_grad


def test_a_scale_of_one_never_runs_the_negative_prompt(model, encoders):
    num_calls = []
    handle = model.register_forward_hook(lambda *_: num_calls.append(1))
    latents_of(model, encoders, sampling=replace(SAMPLING, guidance_scale=1.0))
    assert len(num_calls) == 4
    latents_of(model, encoders)
    handle.remove()
    assert len(num_calls) == 4 + 8
    assert text_guidance(model, encoders, 1.0) is model


def test_a_clip_with_its_sound(model, encoders, track):
    request = replace(CELL, track=track, track_offset_seconds=0.5)
    steps = []

    def progress(numbers):
        for number in numbers:
            steps.append(number)
            yield number

    clip = generate(model, encoders, request, SAMPLING, device=CPU, progress=progress)
    assert steps == [0, 1, 2, 3]
    assert clip.frames.shape == (13, 32, 48, 3) and clip.frames.dtype == torch.uint8
    assert clip.waveform.shape == (round(13 / 30 * RATE_HZ),)
    assert (clip.request, clip.fps, clip.padded_seconds) == (request, 30.0, 0.0)
    again = generate(model, encoders, request, SAMPLING, device=CPU)
    assert torch.equal(again.frames, clip.frames) and torch.equal(again.waveform, clip.waveform)
    # The picture is what the encoded parts give, decoded.
    _, conditioning, _, _ = read_track(request, fps=30.0)
    audio = encoders.encode_audio(conditioning[None], device=CPU)
    latents = latents_of(model, encoders, audio=audio)
    assert torch.equal(encoders.decode_video(latents)[0], clip.frames)
    later = generate(
        model, encoders, replace(request, track_offset_seconds=1.5), SAMPLING, device=CPU
    )
    assert not torch.equal(later.waveform, clip.waveform)
    with pytest.raises(ValueError, match="num_frames is 12"):
        generate(model, encoders, replace(request, num_frames=12), SAMPLING, device=CPU)


def test_sound_is_cut_at_the_offset_for_the_model_and_for_the_file(track):
    request = replace(CELL, track=track, num_frames=37, track_offset_seconds=0.75)
    settled, conditioning, waveform, padded_seconds = read_track(request, fps=30.0)
    assert settled == request and padded_seconds == 0
    # 37 frames last 1.233 s; the authors' span adds 0.09 s and keeps one decimal.
    assert conditioning.shape == (round(1.3 * 16_000),)
    assert waveform.shape == (round(37 / 30 * RATE_HZ),)
    for sound, rate_hz in ((conditioning, 16_000), (waveform, RATE_HZ)):
        seconds = 0.75 + torch.arange(len(sound)) / rate_hz
        expected = 0.5 * torch.sin(2 * math.pi * (200 * seconds + 100 * seconds**2))
        inside = slice(rate_hz // 10, -rate_hz // 10)
        assert (sound - expected)[inside].abs().max() < 5e-3


def test_a_track_that_ends_early_is_filled_with_silence(track):
    request = replace(CELL, track=track, num_frames=37, track_offset_seconds=2.5)
    _, conditioning, waveform, padded_seconds = read_track(request, fps=30.0)
    assert padded_seconds == pytest.approx(1.3 - 0.5, abs=1e-3)
    assert conditioning.shape == (round(1.3 * 16_000),) and waveform.shape == (
        round(37 / 30 * RATE_HZ),
    )
    assert not conditioning[8100:].any() and conditioning[:7900].std() > 0.3
    assert not waveform[22_200:].any() and waveform[:21_900].std() > 0.3


def test_an_open_offset_is_drawn_from_the_seed_inside_the_track(track):
    request = replace(CELL, track=track, num_frames=37, track_offset_seconds=None)

    def offset(seed, **changes):
        settled, conditioning, _, padded = read_track(
            replace(request, seed=seed, **changes), fps=30.0
        )
        fixed = read_track(settled, fps=30.0)
        assert torch.equal(fixed[1], conditioning) and padded == 0
        return settled.track_offset_seconds

    offsets = [offset(seed) for seed in range(12)]
    assert len(set(offsets)) == 12
    assert all(0 <= o <= TRACK_SECONDS - 1.3 for o in offsets)
    assert max(offsets) - min(offsets) > 0.5
    assert [offset(seed, prompt="another") for seed in range(3)] == offsets[:3]
    # A clip longer than the track starts at its beginning.
    settled, _, _, padded = read_track(replace(request, num_frames=145), fps=30.0)
    assert settled.track_offset_seconds == 0
    assert padded == pytest.approx(4.9 - TRACK_SECONDS, abs=1e-3)


def test_errors(track, tmp_path):
    with pytest.raises(ValueError, match=r"lasts 3\.00 s, but the clip is to start at 3\.50 s"):
        read_track(replace(CELL, track=track, track_offset_seconds=3.5), fps=30.0)
    with pytest.raises(MediaError, match="nothing"):
        read_track(replace(CELL, track=str(tmp_path / "nothing.wav")), fps=30.0)
    with pytest.raises(ValueError, match=r"sampling\.num_steps is 0; it must be at least 1"):
        SamplingSpec(num_steps=0, guidance_scale=6.0)
    with pytest.raises(ValueError, match=r"sampling\.guidance_scale is -1"):
        SamplingSpec(num_steps=4, guidance_scale=-1.0)


@pytest.fixture(scope="module")
def other_track(tmp_path_factory):
    """A tone that falls, two seconds long."""
    seconds = torch.arange(2 * RATE_HZ) / RATE_HZ
    path = tmp_path_factory.mktemp("music") / "other.wav"
    write_wav(path, 0.5 * torch.sin(2 * math.pi * (900 - 150 * seconds) * seconds), rate_hz=RATE_HZ)
    return str(path)


def test_other_music_makes_the_picture_but_not_the_sound(model, encoders, track, other_track):
    request = replace(CELL, track=track, track_offset_seconds=0.5)
    own = generate(model, encoders, request, SAMPLING, device=CPU)
    for offset_seconds, start_seconds in ((None, 0.5), (1.25, 1.25), (0.0, 0.0)):
        crossed = replace(request, heard=other_track, heard_offset_seconds=offset_seconds)
        made = generate(model, encoders, crossed, SAMPLING, device=CPU)
        of_other = replace(request, track=other_track, track_offset_seconds=start_seconds)
        expected = generate(model, encoders, of_other, SAMPLING, device=CPU)
        assert made.request == crossed and made.padded_seconds == 0
        assert torch.equal(made.frames, expected.frames)
        assert torch.equal(made.waveform, own.waveform)
        assert not torch.equal(made.frames, own.frames)
        assert not torch.equal(made.waveform, expected.waveform)


def test_without_audio_the_model_has_no_audio_layers(model, encoders, track):
    request = replace(CELL, track=track, track_offset_seconds=0.5)
    own = generate(model, encoders, request, SAMPLING, device=CPU)
    made = generate(model, encoders, replace(request, heard="nothing"), SAMPLING, device=CPU)
    latents = latents_of(model, encoders, audio=None)
    assert torch.equal(made.frames, encoders.decode_video(latents)[0])
    assert torch.equal(made.waveform, own.waveform)
    assert not torch.equal(made.frames, own.frames)
    # It is not what silence sounds like.
    silence = torch.zeros(1, round(0.5 * 16_000))
    conditioning = latents_of(model, encoders, audio=encoders.encode_audio(silence, device=CPU))
    assert (conditioning - latents).norm() / latents.norm() > 1e-3


def test_other_audio_starts_where_the_clip_does(track, other_track):
    drawn = replace(CELL, track=track, heard=other_track, track_offset_seconds=None, seed=1)
    settled, conditioning, waveform, padded = read_track(drawn, fps=30.0)
    own = read_track(replace(settled, heard=None), fps=30.0)
    assert settled.track_offset_seconds > 0 and settled.heard_offset_seconds is None
    assert torch.equal(waveform, own[2]) and own[3] == 0
    offset = settled.track_offset_seconds
    assert padded == pytest.approx(max(offset + 0.5 - 2.0, 0.0), abs=1e-3)
    other = replace(settled, track=other_track, heard=None, track_offset_seconds=offset)
    assert torch.equal(conditioning, read_track(other, fps=30.0)[1])
    assert read_track(replace(drawn, heard="nothing"), fps=30.0)[1] is None
    # Silence is added to whichever ends first.
    late = replace(settled, track_offset_seconds=0.0, heard_offset_seconds=1.75)
    _, conditioning, _, padded = read_track(late, fps=30.0)
    assert padded == pytest.approx(0.25, abs=1e-3) and not conditioning[-3900:].any()
    late = replace(settled, track_offset_seconds=2.75, heard_offset_seconds=0.0)
    assert read_track(late, fps=30.0)[3] == pytest.approx(0.25, abs=1e-3)
    with pytest.raises(
        MediaError, match=r"other\.wav lasts 2\.00 s, but the clip is to start at 2"
    ):
        read_track(replace(late, track_offset_seconds=2.5, heard_offset_seconds=None), fps=30.0)
    with pytest.raises(ValueError, match="`heard` names no file in place of"):
        replace(drawn, heard=None, heard_offset_seconds=1.0)


def test_names_of_requests_are_readable_and_unique():
    request = replace(CELL, track="/music/My Song #2.mp3", prompt="a dancer, in the rain!")
    stem = request.file_stem()
    assert request.track_name == "My Song #2"
    assert stem.startswith("My-Song-2_a-dancer-in-the-rain_seed4_")
    changes = [
        {"track": "/other/My Song #2.mp3"}, {"prompt": "a dancer in the rain"}, {"seed": 5},
        {"num_frames": 19}, {"height": 48}, {"width": 64}, {"track_offset_seconds": 1.0},
    ]  # fmt: skip
    stems = {stem} | {replace(request, **change).file_stem() for change in changes}
    assert len(stems) == len(changes) + 1
    assert replace(request).file_stem() == stem
    long = replace(request, prompt="x" * 500, track="y" * 500 + ".wav").file_stem()
    assert len(long) < 120 and "/" not in long


def test_music_guidance_compares_with_silence(model, encoders):
    """One Euler step from noise, by the formula: three branches, ZICA off in the third."""
    torch.manual_seed(0)
    audio = torch.randn(1, 20, 96)
    sampling = replace(SAMPLING, num_steps=1, music_guidance_scale=3.0)
    latents = latents_of(model, encoders, sampling=sampling, audio=audio)
    stream = keyed_random.generator(4, 0, "sampling noise")
    noise = torch.randn(latents.shape, generator=stream)
    text, empty = encoders.encode_captions(["a dancer", ""], device=CPU)

    def velocity(features, conditioning):
        with torch.no_grad():
            return model(
                noise,
                features[None],
                torch.zeros(1),
                audio_features=conditioning,
                text_lengths=(len(features),),
            )

    conditional, unconditional = velocity(text, audio), velocity(empty, audio)
    expected = unconditional + 6.0 * (conditional - unconditional)
    expected = expected + 2.0 * (conditional - velocity(text, None))
    torch.testing.assert_close(latents, noise + expected, rtol=1e-4, atol=1e-4)
    # Without sound there is nothing to guide by, and no third branch.
    calls = []
    with model.register_forward_hook(lambda *_: calls.append("branch")):
        silent = latents_of(model, encoders, sampling=sampling)
    plain = latents_of(model, encoders, sampling=replace(sampling, music_guidance_scale=1.0))
    assert torch.equal(silent, plain) and len(calls) == 2
