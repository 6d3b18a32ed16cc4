"""Mochi's decoder over pieces of time, each going on where the one before ended.

Its convolutions are causal: a frame depends on that frame and earlier ones. So they are given the
last frames they saw, and pieces together equal what is decoded at once, without overlap or seams.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLMochi
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXCausalConv3d
from torch import Tensor

# Of 1.2 s: half of what a clip takes in the decoder, and no more work in all.
PIECE_LATENT_FRAMES = 6


def decode_pieces(
    decode: Callable[[Tensor], Tensor],
    vae: AutoencoderKLMochi,
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
    convolutions = [m for m in vae.decoder.modules() if isinstance(m, CogVideoXCausalConv3d)]
    pasts = [_Past(convolution) for convolution in convolutions]
    for first in range(0, latents.shape[2], length):
        with _going_on(pasts), _all_frames(vae, first > 0), torch.no_grad():
            pixels = decode(latents[:, :, first : first + length])
        yield pixels


class _Past:
    """The frames before a piece that a convolution needs: its own last inputs.

    With tiles or slices it is called several times per piece, each time in the same order.
    """

    def __init__(self, convolution: CogVideoXCausalConv3d) -> None:
        self.convolution = convolution
        self._before: list[Tensor] = []
        self._now: list[Tensor] = []

    def pad(self, inputs: Tensor, conv_cache: Tensor | None = None) -> Tensor:
        """Inputs with frames before them and, like diffusers', the edge repeated around them."""
        num_frames = self.convolution.time_pad
        if self._before:
            past = self._before.pop(0)
        else:
            past = inputs[:, :, :1].expand(-1, -1, num_frames, -1, -1)
        inputs = torch.cat([past, inputs], dim=2)
        self._now.append(inputs[:, :, inputs.shape[2] - num_frames :].clone())
        high, wide = self.convolution.height_pad, self.convolution.width_pad
        return F.pad(inputs, (wide, wide, high, high, 0, 0), mode="replicate")

    def next_piece(self) -> None:
        """What was now is before."""
        self._before, self._now = self._now, []


@contextmanager
def _going_on(pasts: list[_Past]) -> Iterator[None]:
    for past in pasts:
        past.convolution.fake_context_parallel_forward = past.pad
    try:
        yield
    finally:
        for past in pasts:
            del past.convolution.fake_context_parallel_forward
    for past in pasts:
        past.next_piece()


@contextmanager
def _all_frames(vae: AutoencoderKLMochi, is_later: bool) -> Iterator[None]:
    """A later piece's first latent frame stands for six frames, as all but a video's first do."""
    drops = vae.drop_last_temporal_frames
    vae.drop_last_temporal_frames = drops and not is_later
    try:
        yield
    finally:
        vae.drop_last_temporal_frames = drops
