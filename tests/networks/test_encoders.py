import json
import shutil

import huggingface_hub
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLMochi
from diffusers.video_processor import VideoProcessor
from transformers import ByT5Tokenizer, T5EncoderModel, Wav2Vec2Model

from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.networks.vae_memory import tile_size_for, use_tiles
from musicinfuser.pretrained_sources import MissingWeightsError

CPU = torch.device("cpu")
CAPTIONS = ["a dancer turns", "", "two people dance in the street, slowly"]


@pytest.fixture(scope="module")
def make_encoders(small_parts):
    def make(**changes):
        settings = {
            "mochi": str(small_parts),
            "audio": str(small_parts),
            "audio_subfolder": "audio_encoder",
            "dtype": "float32",
        }
        return Encoders(EncodersSpec(**(settings | changes)))

    return make


@pytest.fixture(scope="module")
def encoders(make_encoders):
    return make_encoders()


@pytest.fixture(scope="module")
def vae(small_parts):
    return AutoencoderKLMochi.from_pretrained(small_parts / "vae").eval()


@pytest.fixture
def frames():
    stream = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 7, 32, 48, 3), generator=stream, dtype=torch.uint8)


def test_video_becomes_the_posterior_of_the_vae(encoders, vae, frames):
    mean, logvar = encoders.encode_video(frames, device=CPU)
    assert mean.shape == logvar.shape == (2, 12, 2, 4, 6)
    # The VAE's Fourier features multiply rounding by up to 2^8.
    pixels = np.moveaxis(frames.numpy(), -1, 1).astype(np.float64) / 255 * 2 - 1
    with torch.no_grad():
        posterior = vae.encode(torch.from_numpy(pixels).float()).latent_dist
    torch.testing.assert_close(mean, posterior.mean, rtol=0, atol=2e-4)
    torch.testing.assert_close(logvar, posterior.logvar, rtol=0, atol=2e-4)
    assert mean.std() > 0.05 and not mean.requires_grad


def test_normalised_latents_become_pixels(encoders, vae):
    latents = torch.randn(2, 12, 2, 4, 6, generator=torch.Generator().manual_seed(1))
    decoded = encoders.decode_video(latents)
    assert decoded.shape == (2, 7, 32, 48, 3) and decoded.dtype == torch.uint8
    # As MochiPipeline decodes.
    mean = torch.tensor(vae.config.latents_mean).view(1, 12, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, 12, 1, 1, 1)
    with torch.no_grad():
        video = vae.decode(latents * std / vae.config.scaling_factor + mean, return_dict=False)[0]
    expected = VideoProcessor(vae_scale_factor=8).postprocess_video(video, output_type="np")
    expected = np.round(255 * expected)
    assert np.abs(decoded.numpy() - expected).max() <= 1
    assert (decoded.numpy() == expected).mean() > 0.999
    assert decoded.float().std() > 1


def test_pixels_beyond_the_range_are_clamped(encoders, vae):
    """Latents far outside: values beyond [-1, 1] become 0 and 255, they do not wrap around."""
    latents = 400 * torch.randn(1, 12, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    decoded = encoders.decode_video(latents).permute(0, 4, 1, 2, 3)
    mean = torch.tensor(vae.config.latents_mean).view(1, 12, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, 12, 1, 1, 1)
    with torch.no_grad():
        video = vae.decode(latents * std + mean, return_dict=False)[0]
    assert video.max() > 1.1 and video.min() < -1.1, "the test reaches beyond the range"
    assert (decoded[video > 1.01] == 255).all() and (decoded[video < -1.01] == 0).all()


def test_mean_and_spread_include_the_scaling_factor(small_parts, make_encoders, tmp_path):
    shutil.copytree(small_parts / "vae", tmp_path / "vae")
    path = tmp_path / "vae" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"scaling_factor": 2.0}))
    scaled = make_encoders(mochi=str(tmp_path))
    assert scaled.latents_mean.tolist() == pytest.approx(config["latents_mean"])
    assert scaled.latents_std.tolist() == pytest.approx([s / 2 for s in config["latents_std"]])
    assert scaled.latents_std.dtype == torch.float32 and scaled.latents_std.shape == (12,)


def test_captions_equal_a_padded_run_of_t5_on_their_valid_tokens(encoders, small_parts):
    features = encoders.encode_captions(CAPTIONS, device=CPU)
    tokenizer = ByT5Tokenizer.from_pretrained(small_parts / "tokenizer")
    text_encoder = T5EncoderModel.from_pretrained(small_parts / "text_encoder").eval()
    for caption, found in zip(CAPTIONS, features, strict=True):
        if not caption:
            continue
        tokens = tokenizer(caption, padding="max_length", max_length=256, return_tensors="pt")
        with torch.no_grad():
            padded = text_encoder(tokens.input_ids, tokens.attention_mask)[0][0]
        expected = padded[tokens.attention_mask[0].bool()]
        assert found.shape == expected.shape == (len(caption.encode()) + 1, 64)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_an_empty_caption_has_no_tokens(encoders, make_encoders):
    for device_encoders in (encoders, make_encoders(dtype="bfloat16")):
        empty, full = device_encoders.encode_captions(["", "a"], device=CPU)
        assert empty.shape == (0, 64) and full.shape == (2, 64)
        assert empty.dtype == full.dtype == device_encoders.text_encoder.dtype


def test_long_captions_are_cut_and_end_as_short_ones_do(make_encoders, small_parts):
    (found,) = make_encoders(max_text_tokens=9).encode_captions(["x" * 300], device=CPU)
    tokenizer = ByT5Tokenizer.from_pretrained(small_parts / "tokenizer")
    (expected,) = make_encoders().encode_captions(["x" * 8], device=CPU)
    assert found.shape == (9, 64) and tokenizer("x" * 8).input_ids[-1] == tokenizer.eos_token_id
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_each_caption_is_encoded_once_and_order_is_kept(make_encoders):
    encoders = make_encoders()
    num_calls = []
    encoders.text_encoder.register_forward_hook(lambda *_: num_calls.append(1))
    first = encoders.encode_captions(["a", "b", "a", ""], device=CPU)
    second = encoders.encode_captions(["b", "a"], device=CPU)
    assert len(num_calls) == 2
    assert torch.equal(first[0], first[2]) and not torch.equal(first[0], first[1])
    assert torch.equal(second[0], first[1]) and torch.equal(second[1], first[0])


def test_many_captions_are_encoded_one_at_a_time_and_not_kept(make_encoders):
    encoders = make_encoders()
    expected = make_encoders().encode_captions(["a", "bc"], device=CPU)
    num_calls = []
    encoders.text_encoder.register_forward_hook(lambda *_: num_calls.append(1))
    features = encoders.iterate_captions(iter(["a", "bc"]), device=CPU)
    assert torch.equal(next(features), expected[0]) and len(num_calls) == 1
    (second,) = features
    assert torch.equal(second, expected[1]) and not second.requires_grad
    assert torch.equal(encoders.encode_captions(["a"], device=CPU)[0], expected[0])
    assert len(num_calls) == 3


def test_40000_samples_become_124_audio_tokens(encoders, small_parts):
    waveforms = torch.randn(2, 40_000, generator=torch.Generator().manual_seed(2)) * 0.1 + 0.02
    features = encoders.encode_audio(waveforms, device=CPU)
    assert features.shape == (2, 124, 96) and features.dtype == torch.float32
    model = Wav2Vec2Model.from_pretrained(small_parts / "audio_encoder").eval()
    for b in range(2):
        x = waveforms[b].double().numpy()
        normalised = (x - x.mean()) / np.sqrt(x.var() + 1e-7)
        with torch.no_grad():
            expected = model(torch.from_numpy(normalised).float()[None]).last_hidden_state
        torch.testing.assert_close(features[b : b + 1], expected, rtol=1e-3, atol=1e-4)


def test_audio_and_text_do_not_depend_on_autocast_or_the_audio_on_the_type(make_encoders):
    waveform = torch.randn(1, 8000, generator=torch.Generator().manual_seed(2))
    encoders, half = make_encoders(), make_encoders(dtype="bfloat16")
    expected = encoders.encode_audio(waveform, device=CPU)
    (text,) = encoders.encode_captions(["a dancer"], device=CPU)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(make_encoders().encode_audio(waveform, device=CPU), expected)
        assert torch.equal(half.encode_audio(waveform, device=CPU), expected)
        assert torch.equal(make_encoders().encode_captions(["a dancer"], device=CPU)[0], text)


def test_types_freezing_and_tiling(make_encoders, frames):
    encoders = make_encoders(dtype="bfloat16", vae_tiling=True)
    assert encoders.vae.dtype == encoders.text_encoder.dtype == torch.bfloat16
    assert encoders.audio.module.dtype == torch.float32
    for part in (encoders.vae, encoders.text_encoder, encoders.audio.module):
        assert not part.training and not any(p.requires_grad for p in part.parameters())
    mean, _ = encoders.encode_video(frames[:1], device=CPU)
    assert mean.dtype == torch.bfloat16
    assert encoders.vae is encoders.vae
    assert encoders.vae.use_tiling
    whole = make_encoders()
    whole.decode_video(mean.float())
    assert not whole.vae.use_tiling
    encoders.decode_video(mean.float())
    assert encoders.vae.use_tiling


@pytest.mark.parametrize(
    ("frames", "free_gib", "size"),
    [(13, 60, None), (13, 21, 256), (25, 60, 256), (25, 17, 192), (25, 8, 128), (25, 1, 128)],
)
def test_tiles_are_as_large_as_memory_allows(frames, free_gib, size):
    """Clips of 73 and 145 frames of 480x848 on GPUs with 80 and 24 GB."""
    assert tile_size_for((1, 12, frames, 60, 106), free_gib * 2**30) == size


def test_the_size_of_tiles_is_set_anew(make_encoders, frames):
    encoders = make_encoders(vae_tiling=True)
    use_tiles(encoders.vae, 128)
    vae = encoders.vae
    assert (vae.tile_sample_min_height, vae.tile_sample_stride_width) == (128, 96)
    encoders.encode_video(frames[:1], device=CPU)
    assert (vae.tile_sample_min_width, vae.tile_sample_stride_height) == (256, 192)


def test_sizes_are_checked_before_the_vae_runs(encoders):
    for shape, message in (
        ((1, 8, 32, 32, 3), r"num_frames is 8; Mochi takes 6k \+ 1"),
        ((1, 7, 40, 32, 3), "height is 40 px"),
        ((1, 7, 32, 24, 3), "width is 24 px"),
    ):
        with pytest.raises(ValueError, match=message):
            encoders.encode_video(torch.zeros(shape, dtype=torch.uint8), device=CPU)


def test_fingerprints_tell_folders_apart(encoders, make_encoders, small_parts, tmp_path):
    first = encoders.fingerprints()
    assert set(first) == {"vae", "text_encoder", "audio_encoder"}
    assert len(set(first.values())) == 3
    copy = tmp_path / "copy"
    shutil.copytree(small_parts, copy)
    assert make_encoders(mochi=str(copy), audio=str(copy)).fingerprints() == first
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    changed = make_encoders(mochi=str(copy)).fingerprints()
    assert {name for name in first if first[name] != changed[name]} == {"vae"}
    remote = Encoders(EncodersSpec(audio="someone/wav2vec")).fingerprints()
    assert remote["audio_encoder"] == "someone/wav2vec"
    assert remote["vae"] == "genmo/mochi-1-preview"


def test_missing_weights_are_named_when_first_used(make_encoders, tmp_path, monkeypatch):
    encoders = make_encoders(mochi=str(tmp_path / "nowhere"))
    with pytest.raises(MissingWeightsError, match="nowhere/vae does not exist; give a folder"):
        _ = encoders.vae
    with pytest.raises(MissingWeightsError, match="nowhere/text_encoder does not exist"):
        encoders.encode_captions(["a"], device=CPU)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    encoders = make_encoders(audio="someone/wav2vec-not-here", audio_subfolder=None)
    with pytest.raises(MissingWeightsError, match="`hf download someone/wav2vec-not-here --local"):
        encoders.encode_audio(torch.zeros(1, 8000), device=CPU)
