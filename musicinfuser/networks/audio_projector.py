"""Audio features to the width of the transformer, one token per latent frame (section 5.1)."""

import torch.nn.functional as F
from torch import Tensor, nn


class AudioProjector(nn.Module):
    """Linear, SiLU, Linear, then nearest resampling to the latent frames (authors' code).

    At 73 frames, 124 wav2vec 2.0 tokens of 20 ms become 13: one token per latent frame, picked,
    not averaged.
    """

    def __init__(self, audio_width: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Sequential(
            nn.Linear(audio_width, width), nn.SiLU(), nn.Linear(width, width)
        )

    def forward(self, audio_features: Tensor, num_latent_frames: int) -> Tensor:
        """Project and resample.

        Args:
            audio_features: ``(B, S, audio_width)``, e.g. wav2vec 2.0's last hidden state at 50 Hz.
            num_latent_frames: Tokens to return.

        Returns:
            ``(B, num_latent_frames, width)``.
        """
        projected = self.projection(audio_features)
        resampled = F.interpolate(projected.transpose(1, 2), num_latent_frames, mode="nearest")
        return resampled.transpose(1, 2)
