import json
import shutil
from dataclasses import replace

import av
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from musicinfuser.adapters.loading import LORA_FILE, AdapterMismatchError
from musicinfuser.app.generator import num_frames_of
from musicinfuser.app.handlers import Handlers
from musicinfuser.app.options import default_settings
from musicinfuser.clip_size import MOCHI
from musicinfuser.generation import OUTPUT_RATE_HZ, SamplingSpec, generate
from musicinfuser.generation_requests import NO_AUDIO, GenerationRequest
from musicinfuser.media.audio import read_audio
from musicinfuser.media.video import read_clip
from musicinfuser.media.video_writing import write_video
from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from musicinfuser.networks.backbones.mochi import MOCHI_HUB_ID
from musicinfuser.networks.backbones.wan import WAN_1B_HUB_ID
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.pretrained_sources import MissingWeightsError
from tests import small_wan


def make(generator, form, folder, *, with_music=True):
    steps = []
    return generator.generate(form, folder, with_music=with_music, on_step=steps.append), steps


def frames_of(path):
    return read_clip(path, start_seconds=0, num_frames=7, height=32, width=48, crop=None).float()


def predicted(
    form, model, parts, small_parts, *, num_frames, with_music=True, width=48, **sampling
):
    """The clip of a form as `predict` makes it."""
    audio = {"audio": str(small_parts), "audio_subfolder": "audio_encoder"}
    family = model.kind.family
    encoders = Encoders(EncodersSpec(mochi=str(parts), **audio, dtype="float32", family=family))
    request = GenerationRequest(
        track=form.song, prompt=form.prompt, seed=form.seed, num_frames=num_frames, height=32,
        width=width, track_offset_seconds=0.5, heard=None if with_music else NO_AUDIO,
        image=form.image,
    )  # fmt: skip
    spec = SamplingSpec(2, 2.0, family=family, **sampling)
    return generate(model, encoders, request, spec, device=torch.device("cpu"))


@pytest.mark.parametrize("with_music", [True, False])
def test_the_form_gives_what_predict_gives(
    generator, form, trained, small_parts, tmp_path, with_music
):
    path, steps = make(generator, form, tmp_path / "page", with_music=with_music)
    assert steps == [1, 2]
    clip = predicted(form, trained, small_parts, small_parts, num_frames=7, with_music=with_music)
    write_video(
        tmp_path / "clip.mp4", clip.frames, fps=30, audio=clip.waveform,
        audio_rate_hz=OUTPUT_RATE_HZ,
    )  # fmt: skip
    assert (frames_of(path) - frames_of(tmp_path / "clip.mp4")).abs().mean() < 0.5
    assert torch.equal(read_audio(path), read_audio(tmp_path / "clip.mp4"))
    if with_music:
        other, _ = make(generator, replace(form, seed=4), tmp_path / "other")
        assert (frames_of(path) - frames_of(other)).abs().mean() > 5


def test_a_wan_dances_too(
    load_generator, wan_parts, wan_adapter, wan_trained, small_parts, form, tmp_path
):
    ears = f"--audio_encoder={small_parts}/audio_encoder"
    generator = load_generator(ears, model=wan_parts, adapters=(wan_adapter,))
    assert generator.seconds_per_latent == 0.25 and generator.num_frames(0.6) == 9
    form = replace(form, adapter="wan", seconds=0.5)
    path, steps = make(generator, form, tmp_path / "page")
    assert steps == [1, 2] and video_file_fps(path) == 16
    clip = predicted(form, wan_trained, wan_parts, small_parts, num_frames=9, fps=16.0)
    write_video(
        tmp_path / "clip.mp4", clip.frames, fps=16, audio=clip.waveform,
        audio_rate_hz=OUTPUT_RATE_HZ,
    )  # fmt: skip
    assert (frames_of(path) - frames_of(tmp_path / "clip.mp4")).abs().mean() < 0.5
    assert torch.equal(read_audio(path), read_audio(tmp_path / "clip.mp4"))
    handlers = Handlers(generator, max_seconds=2.0)
    handlers.begin("a visitor")
    *_, last = handlers.generate(form, "a visitor", compare=False)
    assert "Done: 0.6 s" in last.status
    with pytest.raises(ValueError, match="the base of mochi"):
        load_generator(ears, adapters=(wan_adapter,))


def test_a_video_begins_with_a_picture(
    load_generator, wan_parts, wan_adapter, small_parts, form, tmp_path
):
    parts = small_wan.write_parts(tmp_path / "parts", is_5b=True)
    model = small_wan.trained_on(parts, "wan_5b")
    adapter = small_wan.write_adapter(tmp_path / "wan_5b", model)
    ears = f"--audio_encoder={small_parts}/audio_encoder"
    generator = load_generator(ears, "--width=64", model=parts, adapters=(str(adapter),))
    picture = tmp_path / "secret" / "red.png"
    picture.parent.mkdir()
    Image.new("RGB", (90, 70), (220, 30, 30)).save(picture)
    form = replace(form, adapter="wan_5b", seconds=0.4, image=str(picture))
    path, _ = make(generator, form, tmp_path / "page")
    clip = predicted(form, model, parts, small_parts, num_frames=9, width=64, fps=24.0)
    write_video(
        tmp_path / "clip.mp4", clip.frames, fps=24, audio=clip.waveform,
        audio_rate_hz=OUTPUT_RATE_HZ,
    )  # fmt: skip
    assert (frames_of(path) - frames_of(tmp_path / "clip.mp4")).abs().mean() < 0.5
    described = json.loads(path.with_suffix(".json").read_text())
    assert described["image"] == "red.png"
    plain, _ = make(generator, replace(form, image=None), tmp_path / "plain")
    assert (frames_of(path) - frames_of(plain)).abs().mean() > 1
    picture.write_text("no picture")
    handlers = Handlers(generator, max_seconds=2.0)
    handlers.begin("a visitor")
    *_, last = handlers.generate(form, "a visitor", compare=False)
    assert "red.png: cannot be read as a picture" in last.status and "secret" not in last.status


def video_file_fps(path):
    with av.open(str(path)) as video:
        return video.streams.video[0].average_rate


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
    with pytest.raises(ValueError, match="shortest video lasts 0.2 s"):
        load_generator("--max_seconds=0.1")
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
    assert [num_frames_of(seconds, MOCHI, 30.0) for seconds in (0.01, 0.2, 2.4, 2.5, 4.8)] == [
        7, 7, 73, 73, 145,
    ]  # fmt: skip


def test_a_published_base_starts_where_it_was_published(generator):
    with torch.device("meta"):
        mochi, wan = (
            default_settings(build_backbone(BackboneSpec(pretrained=hub_id, family=family)))
            for hub_id, family in ((MOCHI_HUB_ID, "mochi"), (WAN_1B_HUB_ID, "wan"))
        )
    small = default_settings(generator.pipeline.transformer)
    assert (mochi.height, mochi.width, mochi.num_steps, mochi.guidance_scale) == (480, 848, 64, 6.0)
    assert len(mochi.prompts) == 10 and all("dancer" in text for text in mochi.prompts.values())
    assert mochi.negative_prompt == small.negative_prompt == ""
    assert (wan.height, wan.width, wan.num_steps, wan.guidance_scale) == (480, 832, 50, 6.0)
    assert wan.prompts == mochi.prompts and wan.negative_prompt.startswith("色调艳丽")
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
