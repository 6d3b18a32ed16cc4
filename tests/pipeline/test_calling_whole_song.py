"""Videos as long as a song from a pipeline."""

import math

import numpy as np
import pytest
import torch

from musicinfuser import keyed_random
from musicinfuser.generation import SamplingSpec, generate
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.media.video_writing import write_video
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from tests.pipeline.conftest import SIZE, distance, latents_of

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")
# 43 frames: windows of 3 latent frames from 0, 2, 3 and 5 on.
SONG = {"num_frames": None, "num_seconds": 1.5, "window_frames": 13, "window_overlap_frames": 6}
ONE_STEP = {"num_inference_steps": 1, "guidance_scale": 1.0}


def test_the_pipeline_makes_the_song_that_predict_makes(trained, loaded, small_parts, song):
    parts = str(small_parts)
    encoders = Encoders(
        EncodersSpec(mochi=parts, audio=parts, audio_subfolder="audio_encoder", dtype="float32")
    )
    size = {"height": 32, "width": 48}
    request = GenerationRequest(
        song, "a dancer", 4, 43, **size, track_offset_seconds=0.25, in_windows=True
    )
    sampling = SamplingSpec(2, 3.0, 1.5, window_frames=13, window_overlap_frames=6)
    clip = generate(trained, encoders, request, sampling, device=torch.device("cpu"))
    expected = torch.cat([clip.frames, *clip.more_frames])
    noises = []

    def look(pipe, step, timestep, tensors):
        noises.append(tensors["latents"].device.type)
        return {}

    stream = keyed_random.generator(4, 0, "sampling noise")
    video = loaded(
        "a dancer", song, height=32, width=48, num_inference_steps=2, guidance_scale=3.0,
        music_guidance_scale=1.5, audio_start_seconds=0.25, generator=stream, output_type="pt",
        callback_on_step_end=look, **SONG,
    ).frames  # fmt: skip
    assert video.shape == (1, 43, 3, 32, 48) and noises == ["cpu", "cpu"]
    difference = (video[0].permute(0, 2, 3, 1) * 255).round() - expected.float()
    assert difference.abs().max() <= 1 and difference.abs().mean() < 0.01


def test_a_video_of_one_window_is_one_pass_to_the_bit(loaded, song):
    one_pass = latents_of(loaded, audio=song)
    settings = SONG | {"num_seconds": 13 / 30}
    assert torch.equal(latents_of(loaded, audio=song, **settings), one_pass)
    assert torch.equal(latents_of(loaded, audio=song, **settings, latents=None), one_pass)


def test_infinite_seconds_end_with_the_shortest_sound(loaded, song):
    settings = SONG | ONE_STEP | {"num_seconds": math.inf}
    # Two seconds are 60 frames: 55 of 6k + 1.
    assert latents_of(loaded, audio=song, **settings).shape == (1, 12, 10, 4, 6)
    sounds = [song, (torch.rand(16_000) - 0.5, 16_000)]
    both = latents_of(loaded, ["a", "b"], sounds, **settings, audio_start_seconds=0.1)
    assert both.shape == (2, 12, 5, 4, 6)


@pytest.mark.parametrize("audio", [True, False])
def test_several_videos_are_those_of_each_alone(loaded, song, audio):
    noise = torch.randn(2, 12, 8, 4, 6, generator=torch.Generator().manual_seed(2))
    sounds = [song, (torch.rand(32_000) - 0.5, 16_000)] if audio else [None, None]
    both = latents_of(
        loaded, ["a", "much longer"], sounds if audio else None, latents=noise, **SONG
    )
    for i, prompt in enumerate(("a", "much longer")):
        alone = latents_of(loaded, prompt, sounds[i], latents=noise[i : i + 1], **SONG)
        assert distance(both[i : i + 1], alone) < 1e-5


def test_frames_come_in_pieces_or_as_ever(base, tmp_path):
    def run(output_type, **changes):
        stream = torch.Generator().manual_seed(3)
        settings = SIZE | SONG | ONE_STEP | changes
        return base("a", generator=stream, output_type=output_type, **settings).frames

    latents = run("latent")
    pieces = list(base.decode_pieces(latents))
    assert [tuple(p.shape) for p in pieces] == [(1, 31, 32, 48, 3), (1, 12, 32, 48, 3)]
    frames = torch.cat(pieces, dim=1)
    images, array, tensor = run("pil"), run("np"), run("pt")
    assert len(images) == 1 and len(images[0]) == 43 and array.shape == frames.shape
    assert np.abs(array * 255 - frames.numpy()).max() < 1.01
    assert np.array_equal(tensor.permute(0, 1, 3, 4, 2).numpy(), array)
    assert np.abs(np.asarray(images[0][42]).astype(int) - frames[0, 42].numpy()).max() <= 1
    # As one pass would decode these latents, but for the last bit.
    with torch.no_grad():
        whole = base._decode(latents, "np", in_pieces=False)
    assert np.allclose(whole, array, atol=1e-4)
    write_video(tmp_path / "a.mp4", (piece[0] for piece in base.decode_pieces(latents)), fps=30)
    assert (tmp_path / "a.mp4").stat().st_size > 1000


def test_the_bar_counts_windows(base, capsys):
    base.set_progress_bar_config(desc="dancing")
    latents_of(base, **SONG)
    base.set_progress_bar_config(disable=True)
    assert "8/8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 13}, "num_seconds is 1.5, but num_frames is 13 too; give one of them"),
        ({"num_seconds": 0}, "num_seconds is 0; it must be above 0"),
        ({"num_seconds": math.inf, "audio": None}, "infinite, but there is no audio"),
        ({"num_seconds": 9.0}, "2.00 s of sound .* ask for .* num_seconds=math.inf to end with"),
        ({"window_frames": 14}, "window_frames is 14; use 6k"),
    ],
)
def test_what_does_not_fit_is_said(loaded, song, changes, message):
    with pytest.raises(ValueError, match=message):
        latents_of(loaded, **({"audio": song} | SONG | ONE_STEP | changes))
