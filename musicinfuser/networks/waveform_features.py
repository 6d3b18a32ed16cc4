"""What wav2vec 2.0 or its like hears in waveforms (section 5.1)."""

from typing import Any

import torch
from torch import Tensor

AUDIO_RATE_HZ = 16_000


def encode_waveforms(
    encoder: Any,
    extractor: Any,
    waveforms: Tensor,
    *,
    device: torch.device,
    layer: int | None = None,
) -> Tensor:
    """Hidden states of wav2vec 2.0 or its like, as `Encoders.encode_audio` gives them.

    Args:
        encoder: On ``device`` or brought there by its hooks.
        extractor: Its feature extractor.
        waveforms: ``(B, num_samples)`` at 16 kHz in [-1, 1].
        device: Where to compute.
        layer: Which hidden state; None is the last one, normalised.
    """
    extracted = extractor(
        [waveform.numpy() for waveform in waveforms.cpu()],
        sampling_rate=AUDIO_RATE_HZ,
        return_tensors="pt",
    )
    with torch.autocast(device.type, enabled=False):
        values = extracted.input_values.to(device, encoder.dtype)
        if layer is None:
            return encoder(values).last_hidden_state
        return encoder(values, output_hidden_states=True).hidden_states[layer]
