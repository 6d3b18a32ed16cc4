"""A song from music to frames: what windows hear, and that one window is a clip."""

import math
from dataclasses import asdict, replace
from functools import partial

import pytest
import torch

from musicinfuser import keyed_random
from musicinfuser.diffusion.sampler import Euler, linear_quadratic_sigmas
from musicinfuser.diffusion.windows import Windows
from musicinfuser.generation import (
    Conditions,
    LatentCheckpoint,
    SamplingSpec,
    audio_by_windows,
    audio_seconds,
    denoise,
    generate,
    read_track,
    sample_latents,
)
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.media.audio import write_wav
from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec
from tests.adapted import with_trained_values

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")
CPU = torch.device("cpu")
RATE_HZ = 16_000
# Windows of 3 latent frames that share 1, over 8: from 0, 2, 3 and 5 on.
SAMPLING = SamplingSpec(
    2, 3.0, 2.0, window_frames=13, window_overlap_frames=6, window_noise="independent"
)
SONG = {"prompt": "a dancer", "seed": 4, "num_frames": 43, "height": 32, "width": 48}


@pytest.fixture(scope="module")
def model(small_parts):
    """Adapters as training might leave them: nothing is zero."""
    model = MusicModel(
        build_backbone(BackboneSpec(pretrained=str(small_parts), dtype="float32")),
        layers=[0, 2],
        zica=ZicaSpec(num_heads=4),
        lora=LoraSpec(rank=2, alpha=2.0),
        audio_width=96,
    )
    return with_trained_values(model)


@pytest.fixture(scope="module")
def encoders(small_parts):
    parts = str(small_parts)
    return Encoders(
        EncodersSpec(mochi=parts, audio=parts, audio_subfolder="audio_encoder", dtype="float32")
    )


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    """A tone that rises steadily: every moment has its own pitch."""
    seconds = torch.arange(int(2.0 * RATE_HZ)) / RATE_HZ
    path = tmp_path_factory.mktemp("music") / "song.wav"
    write_wav(path, 0.5 * torch.sin(2 * math.pi * (200 + 100 * seconds) * seconds), rate_hz=RATE_HZ)
    return str(path)


def noted(module, sizes):
    return module.register_forward_pre_hook(lambda m, inputs: sizes.append(inputs[0].shape[2]))


def test_a_song_of_one_window_is_a_clip_to_the_bit(model, encoders, song):
    clip = GenerationRequest(track=song, **SONG | {"num_frames": 13})
    plain = generate(model, encoders, clip, SAMPLING, device=CPU)
    made = generate(model, encoders, replace(clip, in_windows=True), SAMPLING, device=CPU)
    assert torch.equal(made.frames, plain.frames) and torch.equal(made.waveform, plain.waveform)
    assert made.windows is None and not list(made.more_frames)
    # As does the way through windows, with one that holds all.
    wide = Windows(8, length=8, overlap=1)
    request = GenerationRequest(track=song, **SONG, in_windows=True)
    one_pass = generate(model, encoders, replace(request, in_windows=False), SAMPLING, device=CPU)
    _, heard, _, _ = read_track(request, fps=30.0, windows=wide)
    text, negative = encoders.encode_captions(["a dancer", ""], device=CPU)
    encode = partial(encoders.encode_audio, device=CPU)
    audio = audio_by_windows(encode, heard[None], wide, fps=30.0)
    latents = sample_latents(
        model, text=text, negative=negative, audio=audio, request=request, sampling=SAMPLING,
        device=CPU, windows=wide,
    )  # fmt: skip
    assert torch.equal(encoders.decode_video(latents)[0], one_pass.frames)


def test_each_window_hears_what_a_clip_there_would(encoders, song):
    windows = SAMPLING.windows(43)
    assert windows.starts == (0, 2, 3, 5)
    request = GenerationRequest(track=song, **SONG, track_offset_seconds=0.25)
    assert audio_seconds(43, fps=30.0, windows=windows) == pytest.approx(1.0 + 0.5)
    _, heard, waveform, padded = read_track(request, fps=30.0, windows=windows)
    assert (len(heard), padded) == (24_000, 0) and len(waveform) == round(43 / 30 * 44_100)
    encode = partial(encoders.encode_audio, device=CPU)
    found = audio_by_windows(encode, heard[None], windows, fps=30.0)
    assert tuple(found) == windows.starts
    for start, features in found.items():
        there = replace(request, num_frames=13, track_offset_seconds=0.25 + 0.2 * start)
        _, expected, _, _ = read_track(there, fps=30.0)
        assert torch.equal(features, encoders.encode_audio(expected[None], device=CPU))


def test_a_song_is_the_integration_of_blended_guided_velocities(model, encoders, song):
    """Against the formula, window by window, in two steps with text and music guidance."""
    windows = SAMPLING.windows(43)
    request = GenerationRequest(track=song, **SONG, in_windows=True)
    made = generate(model, encoders, request, SAMPLING, device=CPU)
    _, heard, _, _ = read_track(request, fps=30.0, windows=windows)
    text, _ = encoders.encode_captions(["a dancer", ""], device=CPU)
    # As a clip of one pass of this length is given: it does not depend on windows.
    latents = torch.randn(1, 12, 8, 4, 6, generator=keyed_random.generator(4, 0, "sampling noise"))
    sigmas = linear_quadratic_sigmas(2)

    def velocity(part, start, sigma, *, has_text=True, drop_audio=False):
        sound = heard[None, 3200 * start : 3200 * start + 8000]
        features = text[None] if has_text else text[None, :0]
        with torch.no_grad():
            return model(
                part, features, (1 - sigma) * 1000,
                audio_features=None if drop_audio else encoders.encode_audio(sound, device=CPU),
                text_lengths=(features.shape[1],),
            )  # fmt: skip

    for i in range(2):
        sigma, blended = sigmas[i : i + 1], torch.zeros_like(latents)
        for start, weights in zip(windows.starts, windows.weights, strict=True):
            part = latents[:, :, start : start + 3]
            v_c, v_un = (velocity(part, start, sigma, has_text=has) for has in (True, False))
            v = (
                v_un
                + 3.0 * (v_c - v_un)
                + 1.0 * (v_c - velocity(part, start, sigma, drop_audio=True))
            )
            blended[:, :, start : start + 3] += weights[:, None, None] * v
        latents = latents + (sigmas[i] - sigmas[i + 1]) * blended
    expected = encoders.decode_video(latents)[0]
    frames = torch.cat([made.frames, *made.more_frames])
    assert frames.shape == expected.shape == (43, 32, 48, 3)
    assert (frames.int() - expected.int()).abs().max() <= 1


def test_a_song_starts_from_the_noise_of_a_clip_with_its_seed(model):
    """Or, independent, from that of one pass over its length; the same for any windows."""
    text = torch.randn(1, model.backbone.config.text_embed_dim)
    sampling = replace(SAMPLING, num_steps=1, guidance_scale=1.0, music_guidance_scale=1.0)
    seen = []
    hook = model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))

    def starts_of(num_frames, **changes):
        seen.clear()
        request = GenerationRequest("song.wav", **SONG | {"num_frames": num_frames})
        spec = replace(sampling, **changes)
        windows = spec.windows(num_frames)
        sample_latents(
            model, text=text, negative=text[:0], audio=None, request=request, sampling=spec,
            device=CPU, windows=windows,
        )  # fmt: skip
        return dict(zip(windows.starts if windows else [0], seen, strict=True))

    [clip] = starts_of(13).values()
    for num_frames in (43, 31):
        for start, noise in starts_of(num_frames, window_noise="repeated").items():
            assert torch.equal(noise, clip.roll(-start, dims=2))
    [one_pass] = starts_of(43, window_frames=43).values()
    for overlap in (6, 12):
        for start, noise in starts_of(43, window_overlap_frames=overlap).items():
            assert torch.equal(noise, one_pass[:, :, start : start + 3])
    hook.remove()


def test_no_network_sees_more_than_a_window_and_frames_are_decoded_when_taken(
    model, encoders, song
):
    sizes, decoded, ticks = [], [], []
    hooks = [noted(model, sizes), noted(encoders.vae.decoder, decoded)]
    request = GenerationRequest(track=song, **SONG, in_windows=True)
    made = generate(
        model, encoders, request, SAMPLING, device=CPU, on_window=lambda total: ticks.append(total)
    )
    # Two steps of four windows, each with three branches.
    assert sizes == [3] * 24 and ticks == [8] * 8
    assert decoded == [6] and made.frames.shape == (31, 32, 48, 3)
    assert [piece.shape[0] for piece in made.more_frames] == [12] and decoded == [6, 2]
    assert made.windows == SAMPLING.windows(43)
    for hook in hooks:
        hook.remove()
    silent = generate(model, encoders, replace(request, heard="nothing"), SAMPLING, device=CPU)
    assert not torch.equal(silent.frames, made.frames)


def frames_of(clip):
    return torch.cat([clip.frames, *clip.more_frames])


def test_a_song_is_resumed_from_its_latent_checkpoint_to_the_bit(model, encoders, song, tmp_path):
    request = GenerationRequest(track=song, in_windows=True, **SONG)
    sampling = replace(SAMPLING, num_steps=3)
    whole = generate(model, encoders, request, sampling, device=CPU)

    def cut_off(num_done: int) -> None:
        if num_done == 2:
            raise KeyboardInterrupt

    made_by = {"request": asdict(request)}
    kept = LatentCheckpoint(tmp_path / "kept", "song", made_by, on_saved=cut_off)
    with pytest.raises(KeyboardInterrupt):
        generate(model, encoders, request, sampling, device=CPU, checkpoint=kept)
    assert [p.name[:5] for p in (tmp_path / "kept").iterdir()] == ["song_"]
    other = LatentCheckpoint(
        tmp_path / "kept", "song", {"request": asdict(replace(request, seed=5))}
    )
    kept = LatentCheckpoint(tmp_path / "kept", "song", made_by)
    assert (other.num_done(), kept.num_done()) == (0, 2)
    ticks: list[int] = []
    rest = generate(
        model, encoders, request, sampling, device=CPU, checkpoint=kept, on_window=ticks.append
    )
    assert ticks == [4] * 4  # of three steps one is left
    assert torch.equal(frames_of(rest), frames_of(whole))
    kept.remove()
    assert not (tmp_path / "kept").exists()


def test_a_latent_checkpoint_that_cannot_be_read_is_left_aside(tmp_path):
    kept = LatentCheckpoint(tmp_path, "song", {})
    noise = torch.randn(1, 2, 3, 4, 4)
    kept.save(Euler(linear_quadratic_sigmas(2)), 0, noise + 1)
    step, latents = kept.resume(noise, Euler(linear_quadratic_sigmas(2)))
    assert step == 1
    assert torch.equal(latents, noise + 1)
    kept.path.write_bytes(kept.path.read_bytes()[:40])
    step, latents = kept.resume(noise, Euler(linear_quadratic_sigmas(2)))
    assert step == 0
    assert latents is noise


def test_windows_show_as_much_of_a_batch_as_each_clip_alone(model):
    """Several clips at a time, as a pipeline has them, with prompts of different lengths."""
    stream = torch.Generator().manual_seed(0)
    width = model.backbone.config.text_embed_dim
    text = torch.randn(2, 5, width, generator=stream)
    noise = torch.randn(2, 12, 6, 4, 4, generator=stream)
    windows = Windows(6, length=3, overlap=1)
    audio = {s: torch.randn(2, 20, 96, generator=stream) for s in windows.starts}
    plain = replace(SAMPLING, music_guidance_scale=1.0)

    def sampled(rows, lengths):
        heard = {start: features[rows] for start, features in audio.items()}
        text_rows = text[rows, : max(lengths)]
        conditions = Conditions(text_rows, text_rows[:, :0], heard, lengths, None)
        return denoise(model, conditions, noise[rows], plain, windows=windows)

    both = sampled(slice(0, 2), (5, 3))
    for i, length in enumerate((5, 3)):
        alone = sampled(slice(i, i + 1), (length,))
        torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window_frames": 72}, r"sampling\.window_frames is 72; use 6k \+ 1"),
        ({"window_frames": 1}, r"sampling\.window_frames is 1; use 6k \+ 1 from 7 on"),
        ({"window_overlap_frames": 10}, "overlap_frames is 10; .* share 6k frames, 6 to 72"),
        ({"window_overlap_frames": 78}, "windows of 73 frames can share 6k frames, 6 to 72"),
        (
            {"window_noise": "pink"},
            r"sampling\.window_noise must be 'repeated' or 'independent', not 'pink'",
        ),
        ({"window_overlap_frames": 0}, r"sampling\.window_overlap_frames is 0"),
    ],
)
def test_windows_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SamplingSpec(4, 6.0, **settings)
