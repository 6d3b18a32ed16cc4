from pathlib import Path

import numpy as np
import pytest

from musicinfuser.errors import UserError
from small_world.generator.band import DRUM_CHANNEL, Score
from small_world.generator.midi_files import excerpt, is_on_the_beat, read_midi_files

pretty_midi = pytest.importorskip("pretty_midi")


def write(path: Path, *, bpm: float = 100.0, late_beats: float = 0.0, numerator: int = 4) -> bytes:
    """Eight bars or more: a bass note on each beat, a snare on the second and fourth."""
    midi = pretty_midi.PrettyMIDI(initial_tempo=bpm)
    midi.time_signature_changes.append(pretty_midi.TimeSignature(numerator, 4, 0.0))
    bass = pretty_midi.Instrument(33)
    drums = pretty_midi.Instrument(0, is_drum=True)
    for beat in range(48):
        start = (beat + late_beats) * 60 / bpm
        bass.notes.append(pretty_midi.Note(90, 40, start, start + 0.2))
        if beat % 2:
            drums.notes.append(pretty_midi.Note(100, 38, start, start + 0.1))
    midi.instruments += [bass, drums]
    midi.write(str(path))
    return path.read_bytes()


def write_wad(path: Path, lumps: dict[str, bytes]) -> None:
    """Header, lumps, directory."""
    body, entries = b"", b""
    for name, content in lumps.items():
        at = 12 + len(body)
        entries += at.to_bytes(4, "little") + len(content).to_bytes(4, "little")
        entries += name.encode().ljust(8, b"\0")
        body += content
    directory = (12 + len(body)).to_bytes(4, "little")
    path.write_bytes(b"IWAD" + len(lumps).to_bytes(4, "little") + directory + body + entries)


def test_files_with_four_steady_beats_are_found_also_inside_games(tmp_path: Path) -> None:
    content = write(tmp_path / "one.mid")
    (tmp_path / "again.mid").write_bytes(content)
    write(tmp_path / "waltz.mid", numerator=3)
    write(tmp_path / "off_beat.mid", late_beats=0.5)
    (tmp_path / "broken.mid").write_bytes(b"MThd nothing")
    inside = write(tmp_path / "other.mid", bpm=150.0)
    (tmp_path / "other.mid").unlink()
    write_wad(tmp_path / "game.wad", {"DEMO1": b"no music", "D_RUN": inside})
    with pytest.warns(UserWarning, match=r"not read as MIDI below .*: broken \("):
        scores = {score.style: score for score in read_midi_files(tmp_path)}
    assert set(scores) in ({"one", "D_RUN"}, {"again", "D_RUN"})
    run = scores["D_RUN"]
    assert run.bpm == pytest.approx(150.0, abs=0.1) and run.beats_per_bar == 4
    assert run.beats_seconds[:48] == pytest.approx(np.arange(48) * 0.4, abs=1e-3)
    assert run.programs == {0: (0, 33), DRUM_CHANNEL: (128, 0)}
    snares = [start for start, _, channel, key, _ in run.notes if (channel, key) == (9, 38)]
    assert snares == pytest.approx(np.arange(1, 48, 2) * 0.4, abs=1e-3)


def test_a_folder_without_any_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no MIDI file with steady beats below {tmp_path}"):
        read_midi_files(tmp_path)


def score(beats: np.ndarray) -> Score:
    piece = Score("a", 120.0, beats, 4, {0: (0, 33), DRUM_CHANNEL: (128, 0)})
    piece.notes = [(beat, beat + 0.1, 0, 40, 100) for beat in beats]
    piece.notes += [(beat, beat + 0.1, DRUM_CHANNEL, 38, 100) for beat in beats[1::2]]
    return piece


def test_what_is_not_played_on_steady_beats_is_left_out() -> None:
    steady = np.arange(64) * 0.5
    assert is_on_the_beat(score(steady))
    assert not is_on_the_beat(score(steady[:20]))
    uneven = steady + 0.1 * np.sin(np.arange(64))
    assert not is_on_the_beat(score(uneven))
    between = score(steady)
    between.notes = [(start + 0.25, end, *rest) for start, end, *rest in between.notes]
    assert not is_on_the_beat(between)


def test_excerpts_start_on_a_bar_and_keep_notes_on_their_beats() -> None:
    whole, tempi, keys, programs = score(np.arange(200) * 0.5), set(), set(), set()
    for seed in range(200):
        part = excerpt(whole, np.random.default_rng(seed), seconds=20.0)
        period = 60 / part.bpm
        assert part.beats_seconds == pytest.approx(np.arange(len(part.beats_seconds)) * period)
        assert 20.0 - period <= part.beats_seconds[-1] < 20.0
        bass = [start for start, _, channel, _, _ in part.notes if channel == 0]
        assert bass == pytest.approx(part.beats_seconds)
        snares = [start for start, _, channel, _, _ in part.notes if channel == DRUM_CHANNEL]
        assert snares == pytest.approx(part.beats_seconds[1::2]), "a bar starts without a snare"
        assert {key for _, _, channel, key, _ in part.notes if channel == DRUM_CHANNEL} == {38}
        tempi.add(part.bpm)
        keys |= {key for _, _, channel, key, _ in part.notes if channel == 0}
        programs |= set(part.programs.values())
    assert 100 < min(tempi) < 110 and 135 < max(tempi) < 145
    assert keys == set(range(35, 47)), "up to five semitones down, six up"
    assert {program for bank, program in programs if bank == 0} == set(range(32, 40))
    assert whole.bpm == 120.0 and whole.notes[0] == (0.0, 0.1, 0, 40, 100)
