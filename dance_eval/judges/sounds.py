"""Sounds that a clip does not have: what shows whether a judge listens."""

from typing import Literal

import torch

Control = Literal["other_track", "silence", "half_beat"]
CONTROLS: tuple[Control, ...] = ("other_track", "silence", "half_beat")


def fitted_sound(waveform: torch.Tensor, num_samples: int) -> torch.Tensor:
    """A sound cut to a length, or repeated from its beginning until it has it.

    Args:
        waveform: Shape (S,), S at least 1.
        num_samples: Length of the result.
    """
    repeats = -(-num_samples // len(waveform))
    return waveform.repeat(repeats)[:num_samples]


def half_beat_seconds(beats_seconds: torch.Tensor) -> float | None:
    """Half the median distance of beats, shape (num_beats,); None with fewer than two of them."""
    if len(beats_seconds) < 2:
        return None
    return float(beats_seconds.double().diff().median()) / 2


def shifted_sound(waveform: torch.Tensor, *, seconds: float, rate_hz: int) -> torch.Tensor:
    """A sound moved later in a circle: what leaves at the end comes in at the beginning."""
    return waveform.roll(round(seconds * rate_hz))
