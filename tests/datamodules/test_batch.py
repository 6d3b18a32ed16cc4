from dataclasses import replace

import pytest
import torch

from datamodules.batch import ClipBatch, ClipItem, collate

MEAN, STD = torch.arange(12.0), torch.arange(1.0, 13.0)


def item(number: int, num_tokens: int, *, other: bool = False) -> ClipItem:
    value = float(number)
    return ClipItem(
        sample_index=number,
        clip_id=f"clip {number}",
        latent_mean=torch.full((12, 2, 4, 6), value),
        latent_logvar=torch.full((12, 2, 4, 6), -value),
        audio=torch.full((14, 96), value),
        other_audio=torch.full((14, 96), 100 + value) if other else None,
        text=torch.full((num_tokens, 64), value),
        latents_mean=MEAN,
        latents_std=STD,
    )


def test_stacks_in_order_and_pads_text_with_zeros_on_the_right() -> None:
    batch = collate([item(5, 3), item(2, 0), item(9, 7)])
    assert len(batch) == 3
    assert batch.sample_index == (5, 2, 9)
    assert batch.clip_ids == ("clip 5", "clip 2", "clip 9")
    assert batch.text_lengths == (3, 0, 7)
    assert batch.text.shape == (3, 7, 64)
    assert batch.text[:, :, 0].tolist() == [[5, 5, 5, 0, 0, 0, 0], [0] * 7, [9] * 7]
    assert batch.latent_mean.shape == batch.latent_logvar.shape == (3, 12, 2, 4, 6)
    assert batch.latent_mean[:, 0, 0, 0, 0].tolist() == [5, 2, 9]
    assert batch.latent_logvar[:, 0, 0, 0, 0].tolist() == [-5, -2, -9]
    assert batch.audio[:, 0, 0].tolist() == [5, 2, 9]
    assert batch.other_audio is None
    assert torch.equal(batch.latents_mean, MEAN) and torch.equal(batch.latents_std, STD)


def test_all_captions_dropped() -> None:
    batch = collate([item(0, 0), item(1, 0)])
    assert batch.text.shape == (2, 0, 64)
    assert batch.text_lengths == (0, 0)


def test_text_keeps_its_type() -> None:
    items = [replace(item(i, i + 1), text=torch.ones(i + 1, 64).bfloat16()) for i in range(2)]
    assert collate(items).text.dtype == torch.bfloat16


def test_other_audio_is_stacked() -> None:
    batch = collate([item(1, 2, other=True), item(2, 2, other=True)])
    assert batch.other_audio is not None
    assert batch.other_audio[:, 0, 0].tolist() == [101, 102]


@pytest.mark.parametrize("other", [True, False])
def test_moves_every_tensor_and_nothing_else(other: bool) -> None:
    batch = collate([item(1, 2, other=other)])
    moved = batch.to(torch.device("meta"))
    assert isinstance(moved, ClipBatch)
    tensors = {n: v for n, v in vars(moved).items() if isinstance(v, torch.Tensor)}
    assert len(tensors) == 6 + other
    assert {t.device.type for t in tensors.values()} == {"meta"}
    assert (moved.sample_index, moved.clip_ids, moved.text_lengths) == ((1,), ("clip 1",), (2,))
    assert batch.audio.device.type == "cpu"
