"""The decoder a piece at a time against the decoder at once."""

import pytest
import torch

from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.networks.vae_memory import decode_pieces
from tests.conftest import ROOT

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoders() -> Encoders:
    parts = str(ROOT / "assets" / "small-mochi")
    return Encoders(EncodersSpec(mochi=parts, audio=parts, dtype="float32"))


def latents_of(num_frames: int, *, batch: int = 1, side: int = 4) -> torch.Tensor:
    stream = torch.Generator().manual_seed(num_frames)
    return torch.randn(batch, 12, num_frames, side, side, generator=stream)


@torch.no_grad()
def whole(vae, latents: torch.Tensor) -> torch.Tensor:
    return vae.decode(latents, return_dict=False)[0]


def pieces_of(vae, latents: torch.Tensor, length: int) -> list[torch.Tensor]:
    return list(decode_pieces(lambda z: whole(vae, z), vae, latents, length=length))


@pytest.mark.parametrize(("num_frames", "length"), [(7, 1), (7, 3), (9, 4), (4, 6), (1, 6)])
def test_pieces_together_equal_what_is_decoded_at_once(encoders, num_frames, length):
    vae, latents = encoders.vae, latents_of(num_frames)
    expected = whole(vae, latents)
    pieces = pieces_of(vae, latents, length)
    assert [p.shape[2] for p in pieces][:1] == [6 * min(length, num_frames) - 5]
    found = torch.cat(pieces, dim=2)
    assert found.shape == expected.shape == (1, 3, 6 * num_frames - 5, 32, 32)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    # Frames before a piece matter: by itself it is another picture.
    if num_frames > length:
        alone = whole(vae, latents[:, :, length:])
        assert (alone - expected[:, :, 6 * length :]).abs().max() > 1e-2
    # What follows is decoded as ever.
    assert torch.equal(whole(vae, latents), expected)


def test_tiles_and_slices_go_on_each_by_itself(encoders):
    vae, latents = encoders.vae, latents_of(5, batch=2, side=6)
    try:
        vae.enable_slicing()
        vae.enable_tiling(32, 32, 24, 24)
        expected = whole(vae, latents)
        found = torch.cat(pieces_of(vae, latents, 2), dim=2)
    finally:
        vae.disable_slicing()
        vae.disable_tiling()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (expected - whole(vae, latents)).abs().max() > 1e-3


def test_frames_come_in_pieces_and_the_decoder_never_sees_more(encoders, monkeypatch):
    latents = latents_of(15)
    expected = encoders.decode_video(latents)
    sizes, decoder = [], encoders.vae.decoder.forward

    def noted(part, **kwargs):
        sizes.append(part.shape[2])
        return decoder(part, **kwargs)

    monkeypatch.setattr(encoders.vae.decoder, "forward", noted)
    pieces = encoders.decode_pieces(latents, device=CPU)
    first = next(pieces)
    assert sizes == [6] and first.shape == (1, 31, 32, 32, 3)
    found = torch.cat([first, *pieces], dim=1)
    assert sizes == [6, 6, 3] and found.dtype == torch.uint8
    assert found.shape == expected.shape == (1, 85, 32, 32, 3)
    difference = (found.int() - expected.int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 1e-3


def test_what_fails_leaves_the_decoder_as_it_was(encoders):
    vae, latents = encoders.vae, latents_of(4)
    expected = whole(vae, latents)

    def fail(part):
        whole(vae, part)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        next(decode_pieces(fail, vae, latents, length=2))
    assert torch.equal(whole(vae, latents), expected)
