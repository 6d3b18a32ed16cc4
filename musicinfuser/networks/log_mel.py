"""Log-mel spectrograms as audio features, at the times of wav2vec 2.0's."""

import functools

import torch
from torch import Tensor

from musicinfuser.networks.audio_encoder import AudioEncoder

FLOOR = 1e-5


class LogMel(AudioEncoder):
    """Log-mel spectrograms of 80 bands: windows of 25 ms every 20 ms, without padding.

    So feature k is of the same sound as feature k of wav2vec 2.0. Power below 1e-5 counts as 1e-5;
    decimal logarithms are shifted and halved to about [-1, 1].
    """

    features = "log_mel"
    rate_hz, hop, window, width = 16_000, 320, 400, 80

    def encode(self, waveforms: Tensor, *, device: torch.device) -> Tensor:
        """Features ``(B, S, 80)`` fp32 of ``(B, num_samples)`` at 16 kHz in [-1, 1]."""
        pieces = waveforms.to(device).float().unfold(1, self.window, self.hop)
        window = torch.hann_window(self.window, device=device)
        power = torch.fft.rfft(pieces * window).abs().square()
        mel = power @ _bands(self.window // 2 + 1, self.width, self.rate_hz).to(device)
        return (mel.clamp(min=FLOOR).log10() + 1.5) / 3.5

    def fingerprint(self) -> str:
        """For the clips of a cache."""
        return f"log-mel, {self.width} bands"


@functools.cache
def _bands(num_frequencies: int, num_bands: int, rate_hz: int) -> Tensor:
    """``(num_frequencies, num_bands)`` triangles on Slaney's mel scale."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        num_frequencies, num_bands, 0.0, rate_hz / 2, rate_hz, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(filters).float()
