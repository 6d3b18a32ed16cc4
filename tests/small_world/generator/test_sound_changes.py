import numpy as np
import pytest

from small_world.generator import sound_changes
from small_world.generator.sound_changes import SHARES, change_sound

RATE_HZ = 16_000


def clicks() -> np.ndarray:
    """Bursts of noise every quarter of a second, 20 ms long."""
    draw = np.random.default_rng(0)
    sound = np.zeros(2 * RATE_HZ, np.float32)
    for start in range(0, len(sound), RATE_HZ // 4):
        sound[start : start + 320] = 0.5 * draw.standard_normal(320)
    return sound


def test_a_change_follows_from_its_draws() -> None:
    one, again = (change_sound(clicks(), RATE_HZ, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, change_sound(clicks(), RATE_HZ, np.random.default_rng(5)))
    assert one.dtype == np.float32 and one.shape == clicks().shape
    assert np.abs(one).max() == pytest.approx(0.9)


@pytest.mark.parametrize("name", SHARES)
def test_each_change_alone_keeps_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in SHARES:
        monkeypatch.setitem(sound_changes.SHARES, other, float(other == name))
    before = clicks()
    for seed in range(5):
        after = change_sound(before, RATE_HZ, np.random.default_rng(seed))
        assert not np.allclose(after, 0.9 * before / np.abs(before).max(), atol=1e-3)
        loud = np.array([np.convolve(np.abs(x), np.ones(80), "same") for x in (before, after)])
        lags = range(-160, 161)
        match = [float((loud[0] * np.roll(loud[1], -lag)).sum()) for lag in lags]
        assert abs(lags[int(np.argmax(match))]) <= 80  # 5 ms


def test_silence_stays_silent() -> None:
    for seed in range(8):
        after = change_sound(np.zeros(4000, np.float32), RATE_HZ, np.random.default_rng(seed))
        assert np.isfinite(after).all() and np.abs(after).max() < 1e-3
