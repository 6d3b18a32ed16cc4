"""The frozen encoders of Wan: its VAE and its text encoder, against diffusers."""

import shutil

import pytest
import torch

from musicinfuser.errors import UserError
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from tests import small_wan

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("wan")
    return {
        family: small_wan.write_parts(root / family, is_5b=family == "wan_5b")
        for family in ("wan", "wan_5b")
    }


@pytest.fixture(params=["wan", "wan_5b"])
def encoders(request, folders):
    spec = EncodersSpec(mochi=str(folders[request.param]), family=request.param)
    return Encoders(spec)


def test_the_vae_is_fp32_and_has_its_own_statistics(encoders):
    assert {p.dtype for p in encoders.vae.parameters()} == {torch.float32}
    assert {p.dtype for p in encoders.text_encoder.parameters()} <= {torch.bfloat16, torch.float32}
    assert encoders.latents_mean.tolist() == pytest.approx(encoders.vae.config.latents_mean)
    assert encoders.latents_std.tolist() == pytest.approx(encoders.vae.config.latents_std)


def test_videos_become_the_posterior_and_back(encoders):
    unit, channels = encoders.geometry.unit, encoders.geometry.channels
    stream = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (1, 9, 2 * unit, 3 * unit, 3), generator=stream).byte()
    mean, logvar = encoders.encode_video(frames, device=CPU)
    assert mean.shape == logvar.shape == (1, channels, 3, 4, 6)
    with torch.no_grad():
        pixels = frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        theirs = encoders.vae.encode(pixels).latent_dist
    assert torch.equal(mean, theirs.mean) and torch.equal(logvar, theirs.logvar)
    assert encoders.decode_video(mean).shape == frames.shape
    with pytest.raises(ValueError, match=r"num_frames is 7; Wan.* takes 4k \+ 1 frames, e.g. 5 o"):
        encoders.encode_video(frames[:, :7], device=CPU)


@pytest.mark.parametrize(("batch", "slices"), [(1, False), (2, False), (1, True), (3, True)])
def test_pieces_together_are_what_is_decoded_whole(encoders, batch, slices):
    """With slices, which diffusers decodes one after the other, each goes on by itself."""
    encoders.vae.use_slicing = slices
    stream = torch.Generator().manual_seed(1)
    latents = torch.randn(batch, encoders.geometry.channels, 5, 4, 6, generator=stream)
    pieces = list(encoders.decode_pieces(latents, device=CPU))
    assert [piece.shape[1] for piece in pieces] == [1, 4, 4, 4, 4]
    # Before rounding too: nothing is left behind of a video that was decoded before.
    with torch.no_grad():
        whole = encoders.vae.decode(latents, return_dict=False)[0]
        parts = encoders.family.vae.decode_pieces(
            lambda z: encoders.vae.decode(z, return_dict=False)[0], encoders.vae, latents
        )
        assert torch.equal(torch.cat(list(parts), dim=2), whole)
    assert torch.equal(torch.cat(pieces, dim=1), encoders.decode_video(latents))


def test_captions_are_those_of_the_pipeline(folders):
    spec = EncodersSpec(
        mochi=str(folders["wan"]), family="wan", dtype="float32", max_text_tokens=512
    )
    captions = ["a dancer &amp;  two\n cats", "", "two people dance"]
    found = Encoders(spec).encode_captions(captions, device=CPU)
    pipeline = small_wan.pipeline(None)
    with torch.no_grad():
        theirs, _ = pipeline.encode_prompt(captions, None, False, 1, max_sequence_length=512)
    for features, expected in zip(found, theirs, strict=True):
        length = len(features)
        torch.testing.assert_close(features, expected[:length], rtol=0, atol=1e-5)
        assert not expected[length:].any() and expected[length - 1].any()
    # The mark of the end; and "&" for "&amp;", one space for several.
    assert [len(features) for features in found] == [1 + 19, 1, 1 + 16]


def test_parts_of_another_base_are_refused(folders):
    with pytest.raises(ValueError, match=r"wan makes latents of 16 channels, but wan_5b takes 48"):
        _ = Encoders(EncodersSpec(mochi=str(folders["wan"]), family="wan_5b")).vae
    with pytest.raises(ValueError, match="no backbone 'ltx'; choose mochi, wan, wan_5b"):
        EncodersSpec(family="ltx")


def test_parts_of_another_base_are_refused_before_they_are_read(folders, tmp_path, small_parts):
    mixed = tmp_path / "mixed"
    shutil.copytree(folders["wan"], mixed)
    for name, weights in (("vae", "*.safetensors"), ("text_encoder", "*.safetensors")):
        shutil.copytree(small_parts / name, mixed / name, dirs_exist_ok=True)
        for file in (mixed / name).glob(weights):
            file.unlink()
    encoders = Encoders(EncodersSpec(mochi=str(mixed), family="wan"))
    with pytest.raises(UserError, match="is AutoencoderKLMochi, but wan takes AutoencoderKLWan; g"):
        _ = encoders.vae
    with pytest.raises(UserError, match="text encoder of .* is a t5, but wan takes umt5; give mod"):
        _ = encoders.text_encoder
    with pytest.raises(UserError, match="makes latents of 16 channels, but wan_5b takes 48; give"):
        _ = Encoders(EncodersSpec(mochi=str(folders["wan"]), family="wan_5b")).vae


def test_no_text_is_longer_than_the_backbone_reads():
    with pytest.raises(UserError, match="encoders.max_text_tokens is 600, but wan reads 512 token"):
        EncodersSpec(family="wan", max_text_tokens=600)
    assert EncodersSpec(max_text_tokens=600).max_text_tokens == 600  # Mochi takes any number
