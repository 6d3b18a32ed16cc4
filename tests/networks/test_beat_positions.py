"""Positions in the beat that go on steadily, made of those that a network gives."""

import numpy as np
import pytest
import torch

from musicinfuser.networks.beat_positions import (
    CYCLES_BEATS,
    at_own_speed,
    at_speed,
    beat_places,
    follow_beats,
)

HOP = 0.02


def circles(beats: np.ndarray) -> torch.Tensor:
    """``(1, S, 3, 2)``: what a network gives that knows the position in beats."""
    angles = 2 * np.pi * beats[:, None] / np.array(CYCLES_BEATS)
    return torch.from_numpy(np.stack([np.cos(angles), np.sin(angles)], axis=-1))[None]


def turns_apart(found: torch.Tensor, beats: np.ndarray) -> torch.Tensor:
    """How far ``(1, S, 6)`` is from where it should be, in turns of each cycle."""
    points = found.double().unflatten(-1, (3, 2))
    assert points.norm(dim=-1).allclose(torch.ones(()).double(), atol=1e-6)
    product = (points * circles(beats)).sum(-1).clamp(-1, 1)
    return product.acos() / (2 * np.pi)


@pytest.mark.parametrize("bpm", [63.0, 97.3, 120.0, 148.0])
def test_what_is_right_stays_within_a_token_and_a_half(bpm: float) -> None:
    beats = 2.3 + np.arange(500) * HOP * bpm / 60
    apart = turns_apart(follow_beats(circles(beats), HOP), beats)
    for cycle, off in zip(CYCLES_BEATS, apart[0].T, strict=True):
        assert off.max() < 1.5 * HOP * bpm / 60 / cycle


def test_half_a_second_between_the_beats_and_noise_are_put_right() -> None:
    beats = np.arange(500) * HOP * 112 / 60
    noise = torch.randn(1, 500, 3, 2, generator=torch.Generator().manual_seed(0)) * 0.7
    points = circles(beats) + noise.double()
    points[:, 200:230, 0] = -points[:, 200:230, 0]  # 0.6 s half a beat off
    apart = turns_apart(follow_beats(points, HOP), beats)
    assert apart[..., 0].mean() < 0.03 and apart[..., 0].max() < 0.06
    raw = torch.nn.functional.normalize(points, dim=-1).flatten(2)
    assert turns_apart(raw, beats)[:, 200:230, 0].mean() > 0.35


def test_the_bar_is_what_beats_near_say_together() -> None:
    beats = np.arange(600) * HOP * 2 + 1
    points = circles(beats)
    points[:, 100:150, 1:] = circles(beats + 1)[:, 100:150, 1:]  # one bar a beat early
    assert turns_apart(follow_beats(points, HOP), beats).max() < 0.05


def test_a_slower_tempo_is_followed() -> None:
    bpm = np.where(np.arange(800) < 400, 132.0, 88.0)
    beats = np.concatenate([[0.0], np.cumsum(HOP * bpm / 60)[:-1]])
    place, number = beat_places(circles(beats)[0, :, 0].numpy(), HOP)
    off = (place + number - beats + 0.5) % 1 - 0.5
    assert np.abs(off).max() < 0.12 and np.abs(off).mean() < 0.03
    assert number[-1] == np.floor(beats[-1])


def test_where_there_is_no_beat_it_is_zero() -> None:
    noise = torch.randn(2, 400, 3, 2, generator=torch.Generator().manual_seed(1)) * 0.05
    assert not follow_beats(noise, HOP).any()
    beats = np.arange(1200) * HOP * 2
    points = circles(beats)
    points[:, 600:] *= 0
    found = follow_beats(points, HOP)
    assert found[:, :590].any(-1).all() and not found[:, 760:].any()


def test_batches_and_short_sound() -> None:
    beats = np.arange(300) * HOP * 1.7
    both = torch.cat([circles(beats), circles(beats + 0.4)])
    found = follow_beats(both, HOP)
    assert found.dtype == torch.float32 and found.shape == (2, 300, 6)
    assert torch.equal(found[1:], follow_beats(both[1:], HOP))
    assert follow_beats(both[:, :1], HOP).shape == (2, 1, 6)
    assert follow_beats(both[:, :0], HOP).shape == (2, 0, 6)


@pytest.mark.parametrize("speed", [0.84, 1.0, 1.19])
def test_music_at_another_speed_is_read_where_it_is_at_its_own(speed: float) -> None:
    """Tokens of 35 ms every 20 ms."""
    first, num = 0.875, 300
    seconds = (np.arange(num) + first) * HOP
    heard = (np.arange(round(num / speed)) + first) * HOP * speed
    own = at_own_speed(circles(heard * 2), speed, num, first=first)
    assert own.shape == (1, num, 3, 2)
    inner = slice(1, -1)  # the ends lie beyond what was heard
    expected = circles(seconds * 2)
    torch.testing.assert_close(own[:, inner], expected[:, inner], atol=0.02, rtol=0)


def test_faster_music_is_shorter_and_higher() -> None:
    sound = torch.sin(2 * np.pi * 440 * torch.arange(16_000) / 16_000)[None]
    fast = at_speed(sound, 1.25, rate_hz=16_000)
    assert fast.shape == (1, 12_800)
    assert torch.fft.rfft(fast[0]).abs().argmax() * 16_000 / 12_800 == pytest.approx(550, abs=2)
    assert at_speed(sound, 1.0, rate_hz=16_000) is sound
