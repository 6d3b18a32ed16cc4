from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.utilities import move_data_to_device

from small_world.data.music_dataset import (
    CYCLES_BEATS,
    MAX_BPM,
    MIN_BPM,
    RATE_HZ,
    MusicDataModule,
    compose_pieces,
    meter_of,
    num_tokens,
)
from small_world.generator.music import STYLES, compose


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


def test_tokens_as_wav2vec_counts_them() -> None:
    assert [num_tokens(n) for n in (400, 719, 720, 40_000)] == [1, 1, 2, 124]


def test_meter_follows_the_beats() -> None:
    piece = compose("a piece", genre="HO", bpm=120.0, seed=0)  # a beat every half second
    meter = meter_of(piece, 0.75, RATE_HZ)
    assert meter.shape == (num_tokens(RATE_HZ), len(CYCLES_BEATS))
    for token in (0, 7, 48):
        beats = (0.75 + 0.02 * token + 0.0125) / 0.5
        expected = [beats % 1, beats / 2 % 1, beats / 4 % 1]
        assert meter[token].tolist() == pytest.approx(expected, abs=1e-6)


def test_pieces_cover_genres_and_tempi() -> None:
    pieces = compose_pieces(40, name="test", seed=0)
    assert {p.genre for p in pieces} == set(STYLES)
    tempi = sorted(p.bpm for p in pieces)
    assert MIN_BPM <= tempi[0] < 85 and 125 < tempi[-1] <= MAX_BPM
    again = compose_pieces(2, name="test", seed=0)
    assert [(p.name, p.bpm) for p in again] == [(p.name, p.bpm) for p in pieces[:2]]
    other = compose_pieces(2, name="other", seed=0)
    assert [p.bpm for p in other] != [p.bpm for p in again]


def test_excerpts_follow_from_the_sample_index_and_match_their_meter() -> None:
    data = make_data()
    index, waveform, meter = data.training[9]
    assert (index, waveform.shape, meter.shape) == (9, (RATE_HZ,), (49, 3))
    assert all(
        torch.equal(a, b) for a, b in zip(data.training[9][1:], (waveform, meter), strict=True)
    )
    # The waveform is found in one of the pieces, at a place that gives this meter.
    for piece in data.training.pieces:
        sound = torch.from_numpy(piece.waveform[0])
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
    trained = {p.name for p in data.training.pieces}
    assert trained.isdisjoint(p.name for p in data.validation.pieces)
    assert sum(len(b.waveforms) for b in data.val_dataloader()) == 7
    first, second = (next(iter(data.val_dataloader())) for _ in range(2))
    assert torch.equal(first.waveforms, second.waveforms)


def test_serves_fit_only() -> None:
    with pytest.raises(ValueError, match="serves fit only, not validate"):
        MusicDataModule(batch_size=1, seed=0).setup("validate")
