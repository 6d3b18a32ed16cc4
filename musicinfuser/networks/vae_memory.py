"""Mochi's VAE where memory is short: over pieces of time, and in tiles of an area.

Convolutions of its decoder are causal: a frame depends on that frame and earlier ones. So they are
given the last frames before a piece, and pieces together equal what is decoded at once.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKLMochi
    from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXCausalConv3d

# Of 1.2 s: half of what a clip takes in the decoder, and no more work in all.
PIECE_LATENT_FRAMES = 6
# Mochi's decoder in bf16, untiled, by simulation: 52 GiB for the 12x13x60x106 latents of a clip.
DECODE_BYTES_PER_LATENT = 52 * 2**30 // (12 * 13 * 60 * 106)
# Sides of tiles in pixels, the largest first (diffusers': 256); a quarter overlaps the next.
TILE_SIZES = (256, 192, 128)
# Free memory that a tile wants, over the estimate: workspaces of convolutions, fragmentation.
TILE_ROOM = 1.25


def decode_pieces(
    decode: Callable[[Tensor], Tensor],
    vae: "AutoencoderKLMochi",
    latents: Tensor,
    *,
    length: int = PIECE_LATENT_FRAMES,
) -> Iterator[Tensor]:
    """Decode a piece at a time; tiles and slices stay as they are set.

    Between pieces the VAE may not be used, nor its tiles be changed.

    Args:
        decode: What gives pixels ``(B, 3, 6 t, H, W)`` of latents ``(B, C, t, h, w)`` by
            ``vae.decode``, which drops the first five frames of a first piece.
        vae: Whose decoder is to go on.
        latents: ``(B, C, T, h, w)``, anywhere; a piece at a time is given to ``decode``.
        length: Latent frames of a piece.

    Yields:
        Pixels of the pieces in order: 6 length - 5 frames, then 6 length.
    """
    from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXCausalConv3d

    convolutions = [m for m in vae.decoder.modules() if isinstance(m, CogVideoXCausalConv3d)]
    pasts = [_Past(convolution) for convolution in convolutions]
    for first in range(0, latents.shape[2], length):
        with _going_on(pasts, vae, is_later=first > 0), torch.no_grad():
            pixels = decode(latents[:, :, first : first + length])
        yield pixels


class _Past:
    """The frames before a piece that a convolution needs: its own last inputs.

    With tiles or slices it is called several times per piece, each time in the same order.
    """

    def __init__(self, convolution: "CogVideoXCausalConv3d") -> None:
        self.convolution = convolution
        self.before: list[Tensor] = []
        self.now: list[Tensor] = []

    def pad(self, inputs: Tensor, conv_cache: Tensor | None = None) -> Tensor:
        """Inputs with frames before them and, like diffusers', the edge repeated around them."""
        num_frames = self.convolution.time_pad
        if self.before:
            past = self.before.pop(0)
        else:
            past = inputs[:, :, :1].expand(-1, -1, num_frames, -1, -1)
        inputs = torch.cat([past, inputs], dim=2)
        self.now.append(inputs[:, :, inputs.shape[2] - num_frames :].clone())
        high, wide = self.convolution.height_pad, self.convolution.width_pad
        return F.pad(inputs, (wide, wide, high, high, 0, 0), mode="replicate")


@contextmanager
def _going_on(pasts: list[_Past], vae: "AutoencoderKLMochi", *, is_later: bool) -> Iterator[None]:
    drops = vae.drop_last_temporal_frames
    # A later piece's first latent frame stands for six frames, as all but a video's first do.
    vae.drop_last_temporal_frames = drops and not is_later
    for past in pasts:
        past.convolution.fake_context_parallel_forward = past.pad
    try:
        yield
    finally:
        vae.drop_last_temporal_frames = drops
        for past in pasts:
            del past.convolution.fake_context_parallel_forward
    for past in pasts:
        past.before, past.now = past.now, []


def tile_size_for(shape: Sequence[int], free_bytes: float) -> int | None:
    """Side in pixels of the tiles that latents are decoded in; None for decoding them whole.

    Args:
        shape: ``(B, C, T, H, W)``.
        free_bytes: Of the device, the VAE's weights on it.
    """
    per_place = DECODE_BYTES_PER_LATENT * math.prod(shape[:3])
    if free_bytes >= per_place * math.prod(shape[3:]):
        return None
    for size in TILE_SIZES:
        if free_bytes >= TILE_ROOM * per_place * math.prod(min(n, size // 8) for n in shape[3:]):
            return size
    return TILE_SIZES[-1]


def use_tiles(vae: "AutoencoderKLMochi", size: int | None) -> None:
    """Have a VAE work in tiles of a side in pixels, or on whole clips."""
    vae.use_tiling = size is not None
    if size is not None:
        vae.enable_tiling(size, size, size * 3 // 4, size * 3 // 4)
