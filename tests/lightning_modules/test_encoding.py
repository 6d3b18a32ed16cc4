from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datamodules.clips import ClipSpec, CutSettings, RawClip, SkippedClip
from lightning_modules import ClipEncoder
from musicinfuser.fingerprint import fingerprint_folder
from musicinfuser.networks.encoders import EncodersSpec

SPEC = ClipSpec(
    source="aist",
    clip_stem="a",
    clip_id="a",
    path=Path("a.mp4"),
    start_seconds=0.0,
    num_frames=7,
    height=32,
    width=48,
    crop="aist",
    caption="踊る",
    base_caption="a dance video",
    music="mBR1",
    split="train",
)


@pytest.fixture
def encoder(small_parts: Path) -> ClipEncoder:
    return ClipEncoder(
        EncodersSpec(str(small_parts), str(small_parts), "audio_encoder", dtype="float32")
    )


def raw_clip(seed: int, spec: ClipSpec = SPEC) -> RawClip:
    stream = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (7, 32, 48, 3), generator=stream).to(torch.uint8)
    return RawClip(spec, frames, 0.1 * torch.randn(4800, generator=stream))


def test_encodes_clips_and_passes_on_what_was_skipped(encoder: ClipEncoder) -> None:
    skipped = SkippedClip("aist", Path("b.mp4"), "no sound: none")
    one, passed, two = encoder.predict_step(
        [raw_clip(0), skipped, raw_clip(1, replace(SPEC, clip_id="b"))], 0
    )
    assert passed is skipped
    assert (one.spec.clip_id, two.spec.clip_id) == ("a", "b")
    assert one.latent_mean.shape == one.latent_logvar.shape == (12, 2, 4, 6)
    assert one.audio.shape == (14, 96)
    assert not torch.equal(one.latent_mean, two.latent_mean)
    assert not torch.equal(one.audio, two.audio)


def test_equals_the_parts_one_by_one(encoder: ClipEncoder, small_parts: Path) -> None:
    from diffusers import AutoencoderKLMochi
    from transformers import Wav2Vec2Model

    clip, cpu = raw_clip(3), torch.device("cpu")
    assert encoder.device == cpu
    encoded = encoder.encode(clip)
    vae = AutoencoderKLMochi.from_pretrained(small_parts / "vae").eval()
    listener = Wav2Vec2Model.from_pretrained(small_parts / "audio_encoder").eval()
    with torch.no_grad():
        pixels = clip.frames.permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        posterior = vae.encode(pixels).latent_dist
        wave = (clip.waveform - clip.waveform.mean()) / clip.waveform.std(correction=0)
        heard = listener(wave[None]).last_hidden_state
    assert torch.allclose(encoded.latent_mean, posterior.mean[0], atol=1e-6)
    assert torch.allclose(encoded.latent_logvar, posterior.logvar[0], atol=1e-6)
    assert torch.allclose(encoded.audio, heard[0], atol=1e-4)


def test_the_recipe_names_everything(encoder: ClipEncoder, small_parts: Path) -> None:
    recipe = encoder.recipe_of(
        CutSettings(num_frames=7, height=32, width=48, fps=24.0, audio_channel="first")
    )
    assert (recipe.num_frames, recipe.height, recipe.width, recipe.fps, recipe.audio_channel) == (
        7, 32, 48, 24.0, "first",
    )  # fmt: skip
    for part in ("vae", "text_encoder", "audio_encoder"):
        assert getattr(recipe, part) == fingerprint_folder(small_parts / part)
    config = encoder.encoders.vae.config
    assert recipe.latents_mean == pytest.approx(config.latents_mean)
    assert recipe.latents_std == pytest.approx(
        [std / config.scaling_factor for std in config.latents_std]
    )
    assert (recipe.dtype, recipe.max_text_tokens) == ("float32", 256)
