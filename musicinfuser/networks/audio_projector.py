"""Audio features to the width of the transformer, one token per latent frame (section 5.1)."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicinfuser.clip_size import LatentTimes
from musicinfuser.errors import UserError
from musicinfuser.networks.audio_encoder import AudioTimes

AudioResampling = Literal["nearest", "centre", "average"]


class AudioProjector(nn.Module):
    """Linear, SiLU, Linear, then resampling to the latent frames.

    ``nearest`` is the authors' code: features are spread evenly over the latent frames, and one is
    picked for each, not averaged; at 73 frames, 124 of wav2vec 2.0 become 13. Our additions look at
    times in seconds: ``centre`` picks the feature at the middle of each latent frame's window,
    ``average`` takes the mean of all features in it.

    Features that hold all hidden states of an encoder are mixed first: a softmax over learned
    numbers, which are zero at first, so that training starts from the mean of the states.
    """

    times = AudioTimes()
    """When the features are; set where another encoder's are used."""
    latent_times = LatentTimes()
    """When the latent frames are; set where another backbone's or frame rate's are used."""

    def __init__(
        self,
        audio_width: int,
        width: int,
        resampling: AudioResampling = "nearest",
        layers: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Build it; None of ``layers`` mixes nothing, else they are as `AudioEncoder.layers`."""
        super().__init__()
        self.audio_width, self.layers = audio_width, layers
        mixed_width = audio_width
        if layers:
            right = sum(number * each for number, each in layers)
            if right != audio_width:
                groups = " and ".join(f"{number} of {each}" for number, each in layers)
                raise UserError(
                    f"model.audio_width is {audio_width}, but all hidden states together have "
                    f"{right} channels ({groups}, those of a base model where the encoder is not "
                    f"on this machine); set it to {right}."
                )
            mixed_width = sum(each for _, each in layers)
            sizes = [number for number, _ in layers if number > 1]
            self.layer_logits = nn.ParameterList(torch.zeros(number) for number in sizes)
        self.projection = nn.Sequential(
            nn.Linear(mixed_width, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.resampling = resampling

    def forward(self, audio_features: Tensor, num_latent_frames: int) -> Tensor:
        """Project and resample.

        Args:
            audio_features: ``(B, S, audio_width)``.
            num_latent_frames: Tokens to return.

        Returns:
            ``(B, num_latent_frames, width)``.

        Raises:
            UserError: The features have another number of channels.
        """
        num_channels = audio_features.shape[-1]
        if num_channels != self.audio_width:
            raise UserError(
                f"model.audio_width is {self.audio_width}, but the audio features have "
                f"{num_channels} channels; set it to {num_channels}."
            )
        if self.layers:
            audio_features = self._mixed(audio_features)
        projected = self.projection(audio_features)
        if self.resampling == "nearest":
            resampled = F.interpolate(projected.transpose(1, 2), num_latent_frames, mode="nearest")
            return resampled.transpose(1, 2)
        weights = resampling_weights(
            self.resampling, projected.shape[1], num_latent_frames, self.times, self.latent_times
        )
        return weights.to(projected.device, projected.dtype, non_blocking=True) @ projected

    def _mixed(self, audio_features: Tensor) -> Tensor:
        """Each encoder's hidden states as one, ``(B, S, mixed width)``."""
        assert self.layers is not None
        found, logits = [], iter(self.layer_logits)
        sizes = [number * each for number, each in self.layers]
        pieces = audio_features.split(sizes, dim=-1)
        for (number, each), piece in zip(self.layers, pieces, strict=True):
            if number > 1:
                shares = next(logits).softmax(dim=0).to(piece.dtype)
                piece = (piece.unflatten(-1, (number, each)) * shares[:, None]).sum(dim=-2)
            found.append(piece)
        return torch.cat(found, dim=-1)


def resampling_weights(
    resampling: Literal["centre", "average"],
    num_features: int,
    num_latent_frames: int,
    times: AudioTimes = AudioTimes(),  # noqa: B008 - frozen
    latent_times: LatentTimes = LatentTimes(),  # noqa: B008 - frozen
) -> Tensor:
    """How much of each feature a latent frame takes, ``(num_latent_frames, num_features)``."""
    latent = torch.arange(num_latent_frames)
    # Latent k > 0 of Mochi stands for frames 6k - 5 to 6k, each on screen for 1/30 s.
    frames, frame_seconds = latent_times.frames_per_latent, latent_times.frame_seconds
    first = (frames * latent - (frames - 1)).clamp(min=0)
    start_seconds = first * frame_seconds
    end_seconds = (frames * latent + 1) * frame_seconds
    centres = torch.arange(num_features) * times.hop_seconds + times.window_seconds / 2
    middle = (start_seconds + end_seconds) / 2
    nearest = (middle[:, None] - centres).abs().argmin(dim=1)
    picked = F.one_hot(nearest, num_features).float()
    if resampling == "centre":
        return picked
    inside = (centres >= start_seconds[:, None]) & (centres < end_seconds[:, None])
    # Where the sound has ended no feature lies inside; the nearest one stands in.
    inside = torch.where(inside.any(dim=1, keepdim=True), inside.float(), picked)
    return inside / inside.sum(dim=1, keepdim=True)
