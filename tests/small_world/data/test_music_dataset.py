from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities import move_data_to_device

from musicinfuser.media.audio import write_wav
from small_world.data import music_dataset
from small_world.data.music_dataset import (
    BERT_WINDOW,
    CYCLES_BEATS,
    FASTEST_BPM,
    LENGTHS,
    MAX_BPM,
    MIN_BPM,
    RATE_HZ,
    BeatPiece,
    Excerpts,
    MusicDataModule,
    compose_pieces,
    cut_songs,
    meter_of,
    num_tokens,
    play_pieces,
)
from small_world.generator.band import Score
from small_world.generator.music import STYLES, compose
from small_world.generator.songs import Song
from tests.conftest import ROOT

BERT = f"{ROOT}/configs/small_world/parts/audio_encoder"


def make_data(**options) -> MusicDataModule:
    settings = {
        "batch_size": 3,
        "seed": 5,
        "excerpt_seconds": 1.0,
        "num_pieces": 11,
        "num_validation_pieces": 4,
        "num_validation_excerpts": 7,
    } | options
    data = MusicDataModule(**settings)
    data.setup("fit")
    data.trainer = SimpleNamespace(
        max_steps=5, accumulate_grad_batches=1, global_rank=0, world_size=1, global_step=2
    )
    return data


def silent_piece(*, bpm: float = 120.0, beats_per_bar: int = 4) -> BeatPiece:
    return BeatPiece(np.zeros(40 * RATE_HZ, np.int16), np.arange(40) * 60 / bpm, beats_per_bar)


def test_tokens_as_the_encoders_count_them() -> None:
    assert [num_tokens(n) for n in (400, 719, 720, 40_000)] == [1, 1, 2, 124]
    assert [num_tokens(n, BERT_WINDOW) for n in (560, 879, 880, 40_000)] == [1, 1, 2, 124]


def test_meter_follows_the_beats() -> None:
    piece = silent_piece()  # a beat every half second
    for window in (400, BERT_WINDOW):
        meter = meter_of(piece, 0.75, RATE_HZ, window)
        assert meter.shape == (num_tokens(RATE_HZ, window), len(CYCLES_BEATS))
        for token in (0, 7, 47):
            beats = (0.75 + 0.02 * token + window / 2 / RATE_HZ) / 0.5
            expected = [beats % 1, beats / 2 % 1, beats / 4 % 1]
            assert meter[token].tolist() == pytest.approx(expected, abs=1e-6)


def test_uneven_beats_and_bars_of_three() -> None:
    piece = BeatPiece(np.zeros(8, np.int16), np.array([0.0, 0.4, 1.0]), 3)
    meter = meter_of(piece, 0.0, RATE_HZ)
    assert meter[:, 1:].isnan().all()
    # At 0.6925 s, a bit less than half of the second beat.
    assert meter[34, 0].item() == pytest.approx((0.6925 - 0.4) / 0.6, abs=1e-6)


def test_pieces_cover_genres_and_tempi() -> None:
    pieces = compose_pieces(40, name="test", seed=0)
    tempi = sorted(60 / (p.beats_seconds[1] - p.beats_seconds[0]) for p in pieces)
    assert MIN_BPM <= tempi[0] < 85 and 125 < tempi[-1] <= MAX_BPM
    made = compose("test 3", genre=sorted(STYLES)[3], bpm=tempi[0], seed=0, rate_hz=RATE_HZ)
    assert len(pieces[3].beats_seconds) == len(made.beats_seconds) + 1
    again, other = (compose_pieces(2, name=name, seed=0) for name in ("test", "other"))
    assert all(np.array_equal(p.samples, q.samples) for p, q in zip(again, pieces, strict=False))
    assert not np.array_equal(other[0].samples, again[0].samples)


def test_of_fast_music_every_second_beat_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Band:
        def __init__(self, soundfont: str, *, rate_hz: int) -> None:
            assert (soundfont, rate_hz) == ("a.sf2", RATE_HZ)

        def play(self, score: Score) -> np.ndarray:
            return np.full(round(score.duration_seconds * RATE_HZ), 0.5, np.float32)

    monkeypatch.setattr(music_dataset, "SampledInstruments", Band)
    monkeypatch.setattr(music_dataset, "OTHER_SPEED", 0.0)
    pieces = play_pieces(30, name="p", seed=1, soundfonts=["a.sf2"])
    tempi = np.array([60 / np.diff(p.beats_seconds).mean() for p in pieces])
    assert tempi.max() <= FASTEST_BPM * 1.02 and tempi.min() > 55
    scores = [music_dataset.compose_score(f"p {n}", seed=1, num_bars=10) for n in range(30)]
    fast = [score.bpm > FASTEST_BPM for score in scores]
    assert any(fast) and not all(fast)
    for piece, score, is_fast in zip(pieces, scores, fast, strict=True):
        times = score.beats_seconds[::2] if is_fast else score.beats_seconds
        assert np.array_equal(piece.beats_seconds, times)
        assert piece.beats_per_bar == score.beats_per_bar // (2 if is_fast else 1)


def test_pieces_are_played_at_other_speeds_by_all_soundfonts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used: list[str] = []

    class Band:
        def __init__(self, soundfont: str, *, rate_hz: int) -> None:
            self.soundfont = soundfont

        def play(self, score: Score) -> np.ndarray:
            """A click on every beat."""
            used.append(self.soundfont)
            sound = np.zeros(round(score.duration_seconds * RATE_HZ), np.float32)
            sound[(score.beats_seconds * RATE_HZ).round().astype(int)] = 1.0
            return sound

    monkeypatch.setattr(music_dataset, "SampledInstruments", Band)
    written = Score("march", 90.0, np.arange(64) * 2 / 3, 4, {})
    pieces = play_pieces(24, name="p", seed=1, soundfonts=["a.sf2", "b.sf3"], written=[written])
    assert set(used) == {"a.sf2", "b.sf3"}
    tempi = [round(60 / np.diff(p.beats_seconds).mean(), 3) for p in pieces]
    assert len(set(tempi)) == len(tempi) and 60 < min(tempi) and max(tempi) < 140
    for piece in pieces:
        # The click of a beat is where its time says, at whatever speed.
        for beat in piece.beats_seconds[2:-2]:
            at = round(beat * RATE_HZ)
            near = np.abs(piece.samples[at - 800 : at + 800].astype(int))
            assert abs(int(near.argmax()) - 800) <= 2


def test_songs_are_cut_at_bars_and_played_at_other_speeds(tmp_path: Path) -> None:
    """Clicks on beats, louder ones on the first of three; one song is fast, one short."""
    songs = []
    for name, bpm, seconds in (("slow", 90.0, 50.0), ("fast", 170.0, 50.0), ("short", 100.0, 12.0)):
        sound = np.zeros(round(seconds * RATE_HZ), np.float32)
        for number, time in enumerate(np.arange(2.3, seconds, 60 / bpm)):
            sound[round(time * RATE_HZ)] = 0.4 if number % 3 else 0.9
        write_wav(tmp_path / f"{name}.wav", torch.from_numpy(sound), rate_hz=RATE_HZ)
        songs.append(Song(tmp_path / f"{name}.wav", 2.0, bpm, 2.3, seconds - 2.0, 3))
    pieces = cut_songs(24, seed=1, songs=songs)
    tempi = [round(60 / np.diff(piece.beats_seconds).mean(), 3) for piece in pieces]
    assert len(set(tempi)) == len(tempi) and 60 < min(tempi) and max(tempi) < FASTEST_BPM
    assert {piece.beats_per_bar for piece in pieces} == {1, 3}
    for piece in pieces:
        assert piece.beats_seconds[0] == 0 and len(piece.beats_seconds) >= 10
        for beat in piece.beats_seconds[1:-2]:
            at = round(beat * RATE_HZ)
            near = np.abs(piece.samples[at - 800 : at + 800].astype(int))
            assert abs(int(near.argmax()) - 800) <= 2
        if piece.beats_per_bar == 3:
            loudest = np.abs(piece.samples.astype(int))
            at = (piece.beats_seconds * RATE_HZ).round().astype(int)
            loud = [loudest[max(i - 20, 0) : i + 20].max() for i in at[1:-2]]
            assert min(loud[2::3]) > 1.5 * max(loud[0::3])


def test_longer_excerpts_come_in_whole_batches() -> None:
    excerpts = Excerpts([silent_piece()], num_samples=8000, seed=0, same_length=4)
    lengths = [[len(excerpts[4 * batch + i][1]) for i in range(4)] for batch in range(60)]
    assert all(len(set(batch)) == 1 for batch in lengths)
    assert {batch[0] for batch in lengths} == {round(times * 8000) for times, _ in LENGTHS}


def test_some_excerpts_are_changed() -> None:
    pieces = compose_pieces(1, name="test", seed=0)
    plain = Excerpts(pieces, num_samples=8000, seed=0)
    changed = Excerpts(pieces, num_samples=8000, seed=0, changed=0.5)
    same = [torch.equal(plain[i][1], changed[i][1]) for i in range(20)]
    assert 4 <= sum(same) <= 16
    assert all(torch.equal(plain[i][2], changed[i][2]) for i in range(20))
    assert torch.equal(changed[3][1], changed[3][1])


def test_batches_hold_what_the_extractor_makes() -> None:
    data = make_data(extractor=BERT)
    batch = next(iter(data.train_dataloader()))
    assert batch.features.shape == (3, num_tokens(RATE_HZ, BERT_WINDOW), 160)
    assert batch.meter.shape == (3, num_tokens(RATE_HZ, BERT_WINDOW), 3)


def test_excerpts_follow_from_the_sample_index_and_match_their_meter() -> None:
    data = make_data()
    index, waveform, meter = data.training[9]
    assert (index, waveform.shape, meter.shape) == (9, (RATE_HZ,), (49, 3))
    assert all(
        torch.equal(a, b) for a, b in zip(data.training[9][1:], (waveform, meter), strict=True)
    )
    # The waveform is found in one of the pieces, at a place that gives this meter.
    for piece in data.training.pieces:
        sound = torch.from_numpy(piece.samples.astype(np.float32) / 32767)
        starts = (sound.unfold(0, 64, 1) == waveform[:64]).all(dim=1).nonzero().flatten().tolist()
        for start in starts:
            if torch.equal(sound[start : start + RATE_HZ], waveform):
                assert torch.equal(meter_of(piece, start / RATE_HZ, RATE_HZ), meter)
                return
    pytest.fail("the excerpt is in no piece")


def test_batches_start_where_the_run_is() -> None:
    data = make_data()
    batches = list(data.train_dataloader())
    assert [b.sample_index for b in batches] == [(6, 7, 8), (9, 10, 11), (12, 13, 14)]
    assert torch.equal(batches[1].waveforms[0], data.training[9][1])
    assert torch.equal(batches[1].meter[0], data.training[9][2])
    assert move_data_to_device(batches[0], torch.device("meta")).meter.device.type == "meta"


def test_validation_pieces_are_never_trained_on() -> None:
    data = make_data()
    trained = {p.samples.tobytes() for p in data.training.pieces}
    assert trained.isdisjoint(p.samples.tobytes() for p in data.validation.pieces)
    assert sum(len(b.waveforms) for b in data.val_dataloader()) == 7
    first, second = (next(iter(data.val_dataloader())) for _ in range(2))
    assert torch.equal(first.waveforms, second.waveforms)


def test_serves_fit_only() -> None:
    with pytest.raises(ValueError, match="serves fit only, not validate"):
        MusicDataModule(batch_size=1, seed=0).setup("validate")
