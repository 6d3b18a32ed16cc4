import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from musicinfuser.errors import UserError
from small_world.generator import band
from small_world.generator.band import DRUM_CHANNEL, DRUM_KEYS, STYLES, compose_score
from small_world.generator.music import NUM_BEATS, TAIL_BEATS
from small_world.generator.recipe import SmallWorldRecipe

PROGRAMS = range(128)


@pytest.mark.parametrize("style", STYLES)
def test_patterns_of_a_style_fit_together(style: str) -> None:
    how = STYLES[style]
    patterns = [p for drum in how["drums"].values() for p in drum] + how["bass"]["patterns"]
    patterns += how["chord"]["patterns"] if how.get("chord") else []
    assert {len(pattern.strip()) for pattern in patterns} == {len(how["bass"]["patterns"][0])}
    assert len(how["bass"]["patterns"][0]) % how.get("steps", 4) == 0
    assert set(how["drums"]) <= set(DRUM_KEYS)
    assert 60 <= how["tempo"][0] < how["tempo"][1] <= 190
    for part in ("bass", "chord", "lead", "pad"):
        assert all(program in PROGRAMS for program in (how.get(part) or {}).get("programs", []))


@pytest.mark.parametrize("style", STYLES)
def test_drums_are_played_on_the_beats_that_are_given(style: str) -> None:
    """All of a pattern's hits on beats lie within 50 ms of one, most within 15 ms."""
    score = compose_score("a piece", seed=3, num_bars=12, style=style)
    low, high = STYLES[style]["tempo"]
    assert low <= score.bpm <= high
    assert len(score.beats_seconds) == 12 * score.beats_per_bar
    steps = np.diff(score.beats_seconds)
    assert np.abs(steps - 60 / score.bpm).max() <= 0.021 * 60 / score.bpm
    kicks = [
        start for start, _, ch, key, _ in score.notes if ch == DRUM_CHANNEL and key in (35, 36)
    ]
    if kicks and all(p[0] == "x" for p in STYLES[style]["drums"]["kick"]):
        first = score.beats_seconds[:: score.beats_per_bar]
        away = np.abs(np.subtract.outer(first, kicks)).min(axis=1)
        near = away[away < 0.05]
        assert len(near) >= len(first) / 4 and np.median(near) < 0.015


def test_a_piece_follows_from_seed_and_name() -> None:
    one, again = (compose_score("a", seed=1, num_bars=8) for _ in range(2))
    assert one.notes == again.notes and one.bpm == again.bpm and one.style == again.style
    assert compose_score("b", seed=1, num_bars=8).notes != one.notes
    assert compose_score("a", seed=2, num_bars=8).notes != one.notes
    drawn = {compose_score(str(n), seed=1, num_bars=1).style for n in range(200)}
    assert drawn == set(STYLES)


class ClickFont:
    """What `SampledInstruments` uses of tinysoundfont: a click per note, so many samples long."""

    def __init__(self, **settings: object) -> None:
        self.due = 0.0

    def sfload(self, path: str, max_voices: int) -> int:
        return 0

    def sounds_off(self) -> None:
        self.due = 0.0

    def program_select(self, *selected: object) -> None:
        if selected[2] == 128 and selected[3] == 77:
            raise RuntimeError("no such kit")

    def noteon(self, channel: int, key: int, velocity: int) -> None:
        self.due += velocity / 127

    def noteoff(self, channel: int, key: int) -> None:
        pass

    def generate(self, num_samples: int) -> memoryview:
        sound = np.zeros((num_samples, 2), np.float32)
        sound[0], self.due = self.due, 0.0
        return memoryview(sound)


def test_notes_sound_when_they_are_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = SimpleNamespace(Synth=ClickFont)
    monkeypatch.setitem(__import__("sys").modules, "tinysoundfont", fake)
    (tmp_path / "a.sf2").touch()
    score = band.Score("rock", 120.0, np.arange(8) * 0.5, 4, {9: (128, 77), 0: (0, 3)})
    score.notes = [(0.25, 0.4, 0, 60, 127), (1.0, 1.2, 9, 36, 64), (9.0, 9.5, 0, 60, 127)]
    sound = band.SampledInstruments(tmp_path / "a.sf2", rate_hz=1000).play(score)
    assert sound.shape == (4000,) and sound.dtype == np.float32
    assert np.flatnonzero(sound).tolist() == [250, 1000]
    assert sound[250] == pytest.approx(0.9) and sound[1000] == pytest.approx(0.9 * 64 / 127)


def test_a_missing_soundfont_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no soundfont at .*none.sf2; install one"):
        band.SampledInstruments(tmp_path / "none.sf2")


def test_sampled_instruments_start_on_time() -> None:
    """With a real soundfont, where there is one: a drum's sound starts within 5 ms of its note."""
    pytest.importorskip("tinysoundfont")
    if not band.SOUNDFONT.is_file():
        pytest.skip(f"needs {band.SOUNDFONT} (Debian: fluid-soundfont-gm)")
    score = band.Score("rock", 120.0, np.arange(8) * 0.5, 4, {9: (128, 0)})
    score.notes = [(0.5 + n, 0.6 + n, 9, 37, 120) for n in range(3)]
    sound = np.abs(band.SampledInstruments(rate_hz=16_000).play(score))
    for n in range(3):
        around = sound[round((0.4 + n) * 16_000) : round((0.6 + n) * 16_000)]
        start = np.argmax(around > 0.1 * around.max()) / 16_000 + 0.4
        assert abs(start - 0.5) < 0.005


def test_a_world_is_played_in_styles_of_four_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(band, "compose_score", lambda name, **how: made.append(how) or name)
    player = SimpleNamespace(play=lambda score, seconds: np.full(round(seconds), 0.5, np.float32))
    made: list[dict] = []
    fonts: set[str] = set()
    monkeypatch.setattr(band, "instruments", lambda font, rate_hz: fonts.add(font) or player)
    recipe = SmallWorldRecipe(seed=3, audio_channels=2, audio_rate_hz=8000, soundfont="a.sf2,b.sf3")
    for number in range(40):
        piece = recipe.compose(f"piece {number}", genre="HO", bpm=80.0)
        assert (piece.genre, piece.bpm, piece.rate_hz) == ("HO", 80.0, 8000)
        assert piece.waveform.shape == (2, round((NUM_BEATS + TAIL_BEATS) * 0.75))
    assert all(how["bpm"] == 80.0 and how["is_steady"] and how["seed"] == 3 for how in made)
    assert fonts == {"a.sf2", "b.sf3"}
    styles = {how["style"] for how in made}
    assert len(styles) > 5 and styles.isdisjoint({"waltz", "trap", "punk", "drum_and_bass"})


def test_a_world_may_sound_as_recordings_do() -> None:
    plain = SmallWorldRecipe(audio_rate_hz=8000, audio_channels=2)
    changed = dataclasses.replace(plain, changed_sound=True)
    for name in ("a", "b"):
        before, after = (w.compose(name, genre="HO", bpm=100.0) for w in (plain, changed))
        assert after.waveform.shape == before.waveform.shape and after.bpm == before.bpm
        assert not np.allclose(after.waveform, before.waveform, atol=0.01)
        again = changed.compose(name, genre="HO", bpm=100.0)
        np.testing.assert_array_equal(again.waveform, after.waveform)


def test_a_steady_piece_keeps_its_tempo() -> None:
    for number in range(6):
        score = compose_score(str(number), seed=0, num_bars=4, style="rock", bpm=90, is_steady=True)
        np.testing.assert_allclose(score.beats_seconds, np.arange(16) * 60 / 90)
