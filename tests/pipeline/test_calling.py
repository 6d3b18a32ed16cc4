"""What a call takes and gives, and what it says when it cannot."""

import math

import numpy as np
import pytest
import torch

from musicinfuser.clip_size import MOCHI
from musicinfuser.generation import SamplingSpec, generate
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.media.audio import read_audio, write_wav
from musicinfuser.media.errors import MediaError
from musicinfuser.memory.out_of_memory import OutOfMemoryError
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.pipelines.conditions import frames_asked, waveforms
from tests.pipeline.conftest import RATE_HZ, SIZE, distance, latents_of

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")
ONE_STEP = {"num_inference_steps": 1, "guidance_scale": 1.0}


def test_a_sound_is_a_file_or_samples_at_any_rate(loaded, song):
    from_file = latents_of(loaded, audio=song, **ONE_STEP)
    samples = read_audio(song, rate_hz=RATE_HZ)
    stereo = np.stack([samples.numpy()] * 2)
    for sound in ((samples, RATE_HZ), (stereo, RATE_HZ)):
        assert torch.equal(latents_of(loaded, audio=sound, **ONE_STEP), from_file)
    later = latents_of(loaded, audio=song, audio_start_seconds=1.0, **ONE_STEP)
    assert distance(later, from_file) > 1e-4


def test_callbacks_see_and_change_tensors(base):
    seen = []

    def look(pipe, step, timestep, tensors):
        seen.append((step, float(timestep), sorted(tensors), pipe.current_timestep.item()))
        return {}

    names = ["latents", "negative_prompt_embeds", "prompt_embeds"]
    plain = latents_of(base, callback_on_step_end=look, callback_on_step_end_tensor_inputs=names)
    assert [(step, keys) for step, _, keys, _ in seen] == [(0, names), (1, names)]
    assert all(math.isclose(forward + back, 1000, abs_tol=1e-3) for _, forward, _, back in seen)

    latents = torch.ones(1, 12, 3, 4, 6)
    last = latents_of(base, callback_on_step_end=lambda p, i, t, tensors: {"latents": i * latents})
    assert torch.equal(last, latents)
    changed = latents_of(
        base,
        callback_on_step_end=lambda p, i, t, k: {"prompt_embeds": 2 * k["prompt_embeds"]},
        callback_on_step_end_tensor_inputs=["prompt_embeds"],
    )
    assert distance(changed, plain) > 1e-5


def test_a_callback_may_stop_the_sampling(base):
    steps = []

    def stop(pipe, step, timestep, tensors):
        steps.append(tensors["latents"])
        pipe._interrupt = True
        return {}

    assert torch.equal(latents_of(base, callback_on_step_end=stop), steps[0])
    assert len(steps) == 1


def test_the_progress_bar_is_set_like_others(base, capsys):
    base.set_progress_bar_config(desc="dancing")
    latents_of(base)
    base.set_progress_bar_config(disable=True)
    shown = capsys.readouterr().err
    assert "dancing" in shown and "2/2" in shown


def test_videos_are_decoded_in_slices_and_tiles(fresh, monkeypatch):
    sizes = []
    decoder = fresh.vae.decoder.forward

    def noted(latents, **kwargs):
        sizes.append(tuple(latents.shape))
        return decoder(latents, **kwargs)

    monkeypatch.setattr(fresh.vae.decoder, "forward", noted)
    settings = SIZE | ONE_STEP

    def video():
        stream = torch.Generator().manual_seed(0)
        return fresh(["a", "b"], generator=stream, output_type="np", **settings).frames

    whole = video()
    assert whole.shape == (2, 13, 32, 48, 3) and sizes == [(2, 12, 3, 4, 6)]
    fresh.vae.enable_slicing()
    assert np.allclose(video(), whole, atol=1e-5) and sizes[1:] == [(1, 12, 3, 4, 6)] * 2
    sizes.clear()
    fresh.vae.enable_tiling(16, 16, 16, 16)
    assert video().shape == whole.shape
    assert len(sizes) == 2 * 2 * 3 and set(sizes) == {(1, 12, 3, 2, 2)}


def test_output_is_what_was_asked(base):
    frames = base("a", **SIZE, **ONE_STEP).frames
    assert len(frames) == 1 and len(frames[0]) == 13 and frames[0][0].size == (48, 32)
    assert isinstance(base("a", **SIZE, **ONE_STEP, return_dict=False), tuple)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 14}, "num_frames is 14; Mochi takes 6k . 1 frames, e.g. 13 or 19"),
        ({"height": 40}, "height is 40 px"),
        ({"num_inference_steps": 0}, "at least 1"),
        ({"latents": torch.zeros(1, 12, 3, 4, 4)}, r"need \(1, 12, 3, 4, 6\)"),
        ({"audio_start_seconds": 5.0}, "lasts 2.00 s, but the clip is to start at 5.00 s"),
        ({"num_frames": 73}, "2.00 s of sound .* 73 frames last 2.43 s; ask for num_frames=55"),
        ({"audio": "nowhere.wav"}, "nowhere.wav"),
        ({"audio": __file__}, "test_calling.py"),
        ({"audio": (torch.zeros(2, 16_000), 16_000)}, "the given sound is silent"),
        ({"audio": (torch.ones(16_000, 2), 16_000)}, "channels come first"),
        ({"audio": ([1, 2], 16_000)}, "floats in"),
        ({"audio": torch.ones(16_000)}, "a path, .array, rate."),
        ({"audio": []}, "0 sounds for 1 prompts"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(loaded, song, changes, message):
    with pytest.raises(ValueError, match=message):
        latents_of(loaded, **({"audio": song} | changes))


def test_the_part_of_a_sound_that_is_asked_for_is_not_silent():
    sound = 0.1 * torch.randn(3 * RATE_HZ)
    sound[RATE_HZ : 2 * RATE_HZ] = 0
    size = {"rate_hz": RATE_HZ, "num_clips": 1, "num_frames": 13, "fps": 30.0, "geometry": MOCHI}
    [span] = waveforms((sound, RATE_HZ), **size, start_seconds=2.25)
    assert torch.equal(span, sound[9 * RATE_HZ // 4 : 11 * RATE_HZ // 4])
    with pytest.raises(MediaError, match=r"is silent from second 1\.25 on for 0\.50 s"):
        waveforms((sound, RATE_HZ), **size, start_seconds=1.25)


def test_a_song_without_an_end_lasts_as_long_as_the_shortest_sound():
    sounds = [(torch.ones(seconds * RATE_HZ), RATE_HZ) for seconds in (2, 1, 3)]
    found = frames_asked(None, math.inf, sounds, 0.25, usual=73, fps=30.0, geometry=MOCHI)
    assert found == 19  # 0.75 s are 22 frames


def test_the_longest_clip_that_is_offered_is_taken(loaded, song):
    latents_of(loaded, audio=song, num_frames=55, **ONE_STEP)


def test_music_without_adapter_and_silence_are_refused(base, loaded, tmp_path):
    write_wav(tmp_path / "still.wav", torch.zeros(RATE_HZ), rate_hz=RATE_HZ)
    with pytest.raises(MediaError, match="still.wav is silent"):
        latents_of(loaded, audio=tmp_path / "still.wav")
    with pytest.raises(ValueError, match="no music adapter"):
        latents_of(base, audio=tmp_path / "still.wav")


@pytest.mark.parametrize(
    ("part", "remedy"),
    [("transformer", "sampling: .*enable_model_cpu_offload"), ("vae.decoder", "enable_tiling")],
)
def test_out_of_memory_says_what_to_do(fresh, part, remedy):
    def fail(module, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 52 GiB. More text")

    owner, _, inner = part.partition(".")
    module = getattr(fresh, owner)
    module = module.get_submodule(inner or "transformer_blocks.1.attn1.to_k")
    module.register_forward_pre_hook(fail)
    with pytest.raises(OutOfMemoryError, match=remedy):
        latents_of(fresh, output_type="np", **ONE_STEP)


def test_predict_names_the_profile(trained, small_parts, song):
    def fail(module, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory. More text")

    parts = str(small_parts)
    encoders = Encoders(
        EncodersSpec(mochi=parts, audio=parts, audio_subfolder="audio_encoder", dtype="float32")
    )
    request = GenerationRequest(track=song, prompt="a dancer", seed=4, **SIZE)
    for module, remedy in (
        (encoders.vae.decoder, "encoders.vae_tiling to true"),
        (trained.backbone.proj_out, "the file of configs/profiles that train.py check names"),
    ):
        hook = module.register_forward_pre_hook(fail)
        with pytest.raises(OutOfMemoryError, match=remedy):
            generate(trained, encoders, request, SamplingSpec(1, 1.0), device=torch.device("cpu"))
        hook.remove()


def test_what_is_cut_from_prompts_is_named(base):
    long, other = 30 * "turning round ", 30 * "standing still "
    with pytest.warns(UserWarning) as caught:
        latents_of(base, [long, long], negative_prompt=[other, ""], num_inference_steps=1)
    said = [str(w.message) for w in caught if "are cut" in str(w.message)]
    for text in (long, other):
        number = len(text) + 1
        (sentence,) = [line for line in said if line.startswith(f"'{text[:20]}")]
        assert f"has {number} tokens, of which the text encoder reads 256: the" in sentence
    with pytest.warns(UserWarning, match="encoder reads 4: the last 5 are cut, after 'a d'"):
        latents_of(base, "a dancer", max_sequence_length=4, **ONE_STEP)
