"""Audio features to the width of the transformer, one token per latent frame (section 5.1)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AudioResampling = Literal["nearest", "centre", "average"]
# wav2vec 2.0: a token every 20 ms, each from 25 ms of sound.
TOKEN_SECONDS, TOKEN_SPAN_SECONDS = 0.02, 0.025
# Mochi: 30 frames per second, six to a latent frame after the first, which stands for one.
FRAME_SECONDS, FRAMES_PER_LATENT = 1 / 30, 6


class AudioProjector(nn.Module):
    """Linear, SiLU, Linear, then resampling to the latent frames.

    ``nearest`` is the authors' code: at 73 frames, 124 wav2vec 2.0 tokens of 20 ms become 13, one
    picked per latent frame, not averaged. Our additions: ``centre`` picks the token at the middle
    of each latent frame's time window, ``average`` takes the mean of all tokens in it.
    """

    def __init__(
        self, audio_width: int, width: int, resampling: AudioResampling = "nearest"
    ) -> None:
        super().__init__()
        self.projection = nn.Sequential(
            nn.Linear(audio_width, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.resampling = resampling

    def forward(self, audio_features: Tensor, num_latent_frames: int) -> Tensor:
        """Project and resample.

        Args:
            audio_features: ``(B, S, audio_width)``, e.g. wav2vec 2.0's last hidden state at 50 Hz.
            num_latent_frames: Tokens to return.

        Returns:
            ``(B, num_latent_frames, width)``.
        """
        projected = self.projection(audio_features)
        if self.resampling == "nearest":
            resampled = F.interpolate(projected.transpose(1, 2), num_latent_frames, mode="nearest")
            return resampled.transpose(1, 2)
        weights = resampling_weights(self.resampling, projected.shape[1], num_latent_frames)
        return weights.to(projected.device, projected.dtype, non_blocking=True) @ projected


def resampling_weights(
    resampling: Literal["centre", "average"], num_tokens: int, num_latent_frames: int
) -> Tensor:
    """How much of each token a latent frame takes, ``(num_latent_frames, num_tokens)``."""
    latent = torch.arange(num_latent_frames)
    # Latent k > 0 stands for frames 6k - 5 to 6k, each on screen for a thirtieth of a second.
    first = (FRAMES_PER_LATENT * latent - (FRAMES_PER_LATENT - 1)).clamp(min=0)
    start_seconds = first * FRAME_SECONDS
    end_seconds = (FRAMES_PER_LATENT * latent + 1) * FRAME_SECONDS
    centres = torch.arange(num_tokens) * TOKEN_SECONDS + TOKEN_SPAN_SECONDS / 2
    middle = (start_seconds + end_seconds) / 2
    nearest = (middle[:, None] - centres).abs().argmin(dim=1)
    picked = F.one_hot(nearest, num_tokens).float()
    if resampling == "centre":
        return picked
    inside = (centres >= start_seconds[:, None]) & (centres < end_seconds[:, None])
    # Where the sound has ended no token lies inside; the nearest one stands in.
    inside = torch.where(inside.any(dim=1, keepdim=True), inside.float(), picked)
    return inside / inside.sum(dim=1, keepdim=True)
