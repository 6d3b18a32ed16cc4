import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from musicinfuser.adapters.loading import LORA_FILE, AdapterMismatchError
from musicinfuser.app.generator import num_frames_of
from musicinfuser.app.options import default_settings
from musicinfuser.generation import OUTPUT_RATE_HZ, SamplingSpec, generate
from musicinfuser.generation_requests import NO_AUDIO, GenerationRequest
from musicinfuser.media.audio import read_audio
from musicinfuser.media.video import read_clip
from musicinfuser.media.video_writing import write_video
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.pretrained_sources import MissingWeightsError


def make(generator, form, folder, *, with_music=True):
    steps = []
    return generator.generate(form, folder, with_music=with_music, on_step=steps.append), steps


def frames_of(path):
    return read_clip(path, start_seconds=0, num_frames=7, height=32, width=48, crop=None).float()


@pytest.mark.parametrize("with_music", [True, False])
def test_the_form_gives_what_predict_gives(
    generator, form, trained, small_parts, tmp_path, with_music
):
    path, steps = make(generator, form, tmp_path / "page", with_music=with_music)
    assert steps == [1, 2]
    parts = str(small_parts)
    encoders = Encoders(
        EncodersSpec(mochi=parts, audio=parts, audio_subfolder="audio_encoder", dtype="float32")
    )
    request = GenerationRequest(
        track=form.song, prompt=form.prompt, seed=form.seed, num_frames=7, height=32, width=48,
        track_offset_seconds=0.5, heard=None if with_music else NO_AUDIO,
    )  # fmt: skip
    clip = generate(trained, encoders, request, SamplingSpec(2, 2.0), device=torch.device("cpu"))
    write_video(
        tmp_path / "clip.mp4", clip.frames, fps=30, audio=clip.waveform,
        audio_rate_hz=OUTPUT_RATE_HZ,
    )  # fmt: skip
    assert (frames_of(path) - frames_of(tmp_path / "clip.mp4")).abs().mean() < 0.5
    assert torch.equal(read_audio(path), read_audio(tmp_path / "clip.mp4"))
    if with_music:
        other, _ = make(generator, replace(form, seed=4), tmp_path / "other")
        assert (frames_of(path) - frames_of(other)).abs().mean() > 5


def test_each_adapter_is_itself(load_generator, generator, adapter, form, tmp_path):
    """With LoRA and without; the first one is left and taken again."""
    bare = tmp_path / "bare"
    shutil.copytree(adapter, bare)
    (bare / LORA_FILE).unlink()
    both = load_generator(adapters=(f"random={adapter}", f"bare={bare}"))
    with pytest.raises(ValueError, match="no adapter 'x'; choose random or bare"):
        both.choose("x")
    bare_of_both = frames_of(make(both, replace(form, adapter="bare"), tmp_path / "1")[0])
    random_of_both = frames_of(make(both, form, tmp_path / "2")[0])
    assert torch.equal(random_of_both, frames_of(make(generator, form, tmp_path / "3")[0]))
    assert not torch.equal(random_of_both, bare_of_both)
    generator.pipeline.disable_lora()
    try:
        assert torch.equal(bare_of_both, frames_of(make(generator, form, tmp_path / "4")[0]))
    finally:
        generator.pipeline.enable_lora()


def test_what_does_not_belong_together_is_said(load_generator, adapter, small_parts, tmp_path):
    with pytest.raises(MissingWeightsError, match="nowhere/zica does not exist"):
        load_generator(adapters=("./nowhere",))
    with pytest.raises(MissingWeightsError, match="no-mochi does not exist"):
        load_generator("--model=./no-mochi", f"--audio_encoder={small_parts}/audio_encoder")
    with pytest.raises(ValueError, match="height is 40 px"):
        load_generator("--height=40")
    with pytest.raises(ValueError, match="--offload model needs a GPU"):
        load_generator("--offload=model")
    with pytest.raises(ValueError, match="--device abacus is not there"):
        load_generator("--device=abacus")
    other = tmp_path / "other"
    shutil.copytree(adapter, other)
    tensors = load_file(other / LORA_FILE)
    deep = {name.replace("blocks.1.", "blocks.30."): t for name, t in tensors.items()}
    save_file(deep, other / LORA_FILE)
    with pytest.raises(AdapterMismatchError, match=r"the base has no transformer_blocks\.30\."):
        load_generator(adapters=(str(other),))


def test_lengths_are_what_mochi_takes():
    assert [num_frames_of(seconds) for seconds in (0.01, 0.2, 2.4, 2.5, 4.8)] == [
        7, 7, 73, 73, 145,
    ]  # fmt: skip


def test_mochi_starts_where_the_paper_did(generator):
    config = SimpleNamespace(num_attention_heads=24, attention_head_dim=128)
    mochi, small = (
        default_settings(SimpleNamespace(config=config)),
        default_settings(generator.pipeline.transformer),
    )
    assert (mochi.height, mochi.width, mochi.num_steps, mochi.guidance_scale) == (480, 848, 64, 6.0)
    assert len(mochi.prompts) == 10 and all("dancer" in text for text in mochi.prompts.values())
    assert (small.height, small.width, small.num_steps) == (64, 64, 20)
    assert (generator.defaults.height, generator.defaults.num_steps) == (32, 2)


@pytest.mark.gpu
@pytest.mark.parametrize("offload", ["none", "model", "group"])
def test_on_a_gpu(load_generator, form, tmp_path, offload):
    # The last --device counts.
    generator = load_generator("--device=cuda", f"--offload={offload}", "--vae_tiling")
    for with_music in (True, False):
        path, steps = make(generator, form, tmp_path / str(with_music), with_music=with_music)
        assert steps == [1, 2] and frames_of(path).shape == (7, 32, 48, 3)
