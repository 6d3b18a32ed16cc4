"""Log-mel spectrograms as audio features, at the pace of wav2vec 2.0's tokens."""

import functools

import torch
from torch import Tensor

NUM_BANDS = 80
WINDOW_SECONDS, HOP_SECONDS = 0.025, 0.02
FLOOR = 1e-5


def log_mel(waveforms: Tensor, *, rate_hz: int) -> Tensor:
    """Log-mel spectrograms, one frame per token of wav2vec 2.0.

    Windows of 25 ms every 20 ms and no padding, so frame k hears what token k of wav2vec 2.0 hears.
    Power below 1e-5 counts as 1e-5; decimal logarithms are shifted and halved to about [-1, 1].

    Args:
        waveforms: ``(B, num_samples)`` in [-1, 1].
        rate_hz: Their sample rate.

    Returns:
        ``(B, S, 80)`` fp32; 2.5 s give 124.
    """
    size, hop = round(WINDOW_SECONDS * rate_hz), round(HOP_SECONDS * rate_hz)
    pieces = waveforms.float().unfold(1, size, hop)
    power = torch.fft.rfft(pieces * torch.hann_window(size, device=pieces.device)).abs().square()
    mel = power @ _bands(size // 2 + 1, rate_hz).to(power.device)
    return (mel.clamp(min=FLOOR).log10() + 1.5) / 3.5


@functools.cache
def _bands(num_frequencies: int, rate_hz: int) -> Tensor:
    """``(num_frequencies, 80)`` triangles on Slaney's mel scale."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        num_frequencies, NUM_BANDS, 0.0, rate_hz / 2, rate_hz, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(filters).float()
