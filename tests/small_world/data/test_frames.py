from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.utilities import move_data_to_device

from datamodules import AISTDataset, YouTubeDataset
from datamodules.clips import CutSettings
from small_world.data import FrameDataModule
from small_world.data.frames import Pieces, collate_pieces


def make_data(media: Path, **options) -> FrameDataModule:
    sources = [
        partial(AISTDataset, root=media / "aist"),
        partial(YouTubeDataset, root=media / "youtube"),
    ]
    cut = CutSettings(num_frames=13, height=32, width=32)
    settings = {"cut": cut, "num_frames": 7, "batch_size": 2, "seed": 3} | options
    return FrameDataModule(sources, **settings)


def test_pieces_follow_from_the_sample_index() -> None:
    clips = [torch.full((10, 2, 2, 3), i, dtype=torch.uint8) for i in range(5)]
    for clip in clips:
        clip[:, 0, 0, 0] = torch.arange(10)
    pieces = Pieces([clips], num_frames=4, seed=0)
    drawn = [pieces[i][1] for i in range(200)]
    assert all(torch.equal(pieces[i][1], drawn[i]) for i in reversed(range(200)))
    assert {int(p[0, 1, 1, 0]) for p in drawn} == set(range(5))
    starts = {int(p[0, 0, 0, 0]) for p in drawn}
    assert starts == set(range(7))
    assert all(p[:, 0, 0, 0].diff().eq(1).all() for p in drawn)
    other = Pieces([clips], num_frames=4, seed=1)
    assert any(not torch.equal(other[i][1], drawn[i]) for i in range(10))


def test_sources_are_drawn_from_alike() -> None:
    many = [torch.zeros(4, 2, 2, 3, dtype=torch.uint8)] * 30
    one = [torch.ones(4, 2, 2, 3, dtype=torch.uint8)]
    pieces = Pieces([many, one], num_frames=4, seed=0)
    assert len(pieces) == 31
    share = sum(pieces[i][1].float().mean().item() for i in range(400)) / 400
    assert share == pytest.approx(0.5, abs=0.08)


def test_training_takes_no_held_out_music(media: Path) -> None:
    data = make_data(media)
    data.setup("fit")
    assert [len(clips) for clips in data.training_clips] == [5, 3]
    assert len(data.validation) == 3
    data.trainer = SimpleNamespace(
        max_steps=4, accumulate_grad_batches=1, global_rank=0, world_size=1, global_step=1
    )
    batches = list(data.train_dataloader())
    assert [b.sample_index for b in batches] == [(2, 3), (4, 5), (6, 7)]
    assert batches[0].frames.shape == (2, 7, 32, 32, 3)
    assert torch.equal(batches[1].frames[1], data.training[5][1])
    assert [b.frames.shape for b in data.val_dataloader()] == [(1, 13, 32, 32, 3)] * 3


def test_limits_and_errors(media: Path) -> None:
    data = make_data(media, max_clips=2, max_validation_clips=1)
    data.setup("fit")
    assert [len(clips) for clips in data.training_clips] == [2, 2]
    assert len(data.validation) == 1
    with pytest.raises(ValueError, match="serves fit only, not predict"):
        data.setup("predict")
    with pytest.raises(ValueError, match="num_frames is 8"):
        make_data(media, num_frames=8)
    wild = FrameDataModule(data.sources[1:], cut=data.cut, num_frames=7, batch_size=2, seed=0)
    with pytest.raises(ValueError, match="3 training and 0 held-out clips"):
        wild.setup("fit")


def test_batches_move_and_count() -> None:
    batch = collate_pieces([(4, torch.zeros(7, 2, 2, 3)), (9, torch.ones(7, 2, 2, 3))])
    assert (len(batch.frames), batch.sample_index) == (2, (4, 9))
    assert move_data_to_device(batch, torch.device("meta")).frames.device.type == "meta"
