"""A dance and a music whose beats are known, for tests."""

import math

import torch


def swinging_square(*, num_frames, fps, period_seconds, phase_seconds):
    """A bright square that rests for an instant at phase + k * period and moves in between."""
    columns = torch.arange(64.0)
    frames = []
    for index in range(num_frames):
        angle = math.pi * (index / fps - phase_seconds) / period_seconds
        left = 22 + 18 * math.cos(angle)
        # Partly covered columns are partly bright, so the square moves by fractions of a pixel.
        cover = (columns + 1 - left).clamp(0, 1) - (columns + 1 - left - 20).clamp(0, 1)
        row = (20 + 210 * cover).round().to(torch.uint8)
        frame = torch.full((48, 64, 3), 20, dtype=torch.uint8)
        frame[14:34] = row[None, :, None]
        frames.append(frame)
    return torch.stack(frames)


def click_track(beats_seconds, *, duration_seconds, rate_hz):
    """Short decaying tones of 1 kHz at the beats."""
    sound = torch.zeros(round(duration_seconds * rate_hz))
    times = torch.arange(round(0.03 * rate_hz)) / rate_hz
    click = 0.8 * torch.sin(2 * math.pi * 1000 * times) * torch.exp(-times / 0.006)
    for beat in beats_seconds:
        first = round(beat * rate_hz)
        length = min(len(click), len(sound) - first)
        sound[first : first + length] += click[:length]
    return sound
