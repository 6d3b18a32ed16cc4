"""The term that asks a clip with changed music to be predicted worse."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightning_modules.counterfactual import (
    SHIFT_SECONDS,
    changed_audio,
    counterfactual_loss,
    counterfactual_term,
)
from lightning_modules.settings import CounterfactualSpec

HOP = 0.02
OPTION = "--model.init_args.objective.counterfactual"


def clips(*indices: int, music: str = "abcdefgh") -> SimpleNamespace:
    """Sixty features, each its own number, so that a roll can be read off; a letter per piece."""
    audio = torch.arange(60.0).repeat(len(indices), 1)[..., None] + 100 * torch.tensor(
        [[[float(i)]] for i in indices]
    )
    return SimpleNamespace(audio=audio, sample_index=indices, music=tuple(music[: len(indices)]))


def shifts(*indices: int, seed: int = 0) -> list[int]:
    batch = clips(*indices)
    found = changed_audio(CounterfactualSpec(), batch, seed=seed, hop_seconds=HOP)
    starts = [int(row[0, 0] - own[0, 0]) for row, own in zip(found, batch.audio, strict=True)]
    for row, own, start in zip(found, batch.audio, starts, strict=True):
        assert torch.equal(row, own.roll(-start, dims=0))
    return [start if start < 30 else start - 60 for start in starts]


def test_a_shift_is_drawn_for_each_sample_by_its_index() -> None:
    found = shifts(*range(200))
    assert found == [shift for i in range(200) for shift in shifts(i)]
    assert found[5:3:-1] == shifts(5, 4) and found != shifts(*range(200), seed=1)
    low, high = (round(seconds / HOP) for seconds in SHIFT_SECONDS)
    assert {abs(shift) for shift in found} == set(range(low, high + 1))
    assert 70 < sum(shift > 0 for shift in found) < 130


def test_other_music_is_the_next_clips_and_silence_is_none() -> None:
    batch = clips(3, 8, 5)
    other = changed_audio(CounterfactualSpec(kind="other"), batch, seed=0, hop_seconds=HOP)
    assert torch.equal(other, batch.audio[[1, 2, 0]])
    batch = clips(3, 8, 5, 6, music="aabb")
    other = changed_audio(CounterfactualSpec(kind="other"), batch, seed=0, hop_seconds=HOP)
    assert torch.equal(other, batch.audio[[2, 2, 0, 0]])
    silent = CounterfactualSpec(kind="silent")
    assert changed_audio(silent, batch, seed=0, hop_seconds=HOP) is None


def test_clips_of_one_piece_have_no_other_music() -> None:
    """Two of three share their music: the third is the other of both, and alone has two others."""
    spec = CounterfactualSpec(weight=2.0, kind="other", margin=0.1)

    def found(music: str, weight: torch.Tensor | None = None) -> tuple[float, float]:
        batch = clips(1, 2, 3, music=music)
        batch.music_weight = weight
        own = torch.tensor([1.0, 1.0, 1.0])
        term, logged = counterfactual_term(
            spec, batch, own, lambda audio: 1.0 - 0.2 * (audio != batch.audio).float()[:, 0, 0],
            seed=0, hop_seconds=HOP,
        )  # fmt: skip
        return term.item(), logged["train/counterfactual_gap"].item()

    assert found("abb") == pytest.approx((2 * 0.3, -0.2))
    assert found("bbb") == (0.0, 0.0)
    assert found("abb", torch.tensor([1.0, 0.0, 1.0]))[0] == pytest.approx(2 * 0.2)


def test_the_term_asks_for_a_margin_and_no_more() -> None:
    own = torch.tensor([1.0, 1.0, 2.0, 1.0], requires_grad=True)
    changed = torch.tensor([1.0, 1.2, 2.1, 0.7], requires_grad=True)
    heard = torch.tensor([1.0, 1.0, 1.0, 0.0])
    found = counterfactual_loss(own, changed, margin=0.1, has_music=heard)
    assert found.tolist() == pytest.approx([0.1, 0.0, 0.1, 0.0], abs=1e-6)
    found.sum().backward()
    # What raises both losses alike lowers nothing.
    assert own.grad.tolist() == [1, 0, 1, 0] and changed.grad.tolist() == [-1, 0, -1, 0]
    assert counterfactual_loss(own, changed, margin=0.1, has_music=None)[3].item() > 0.3


@pytest.mark.parametrize("kind", ["shifted", "silent", "other"])
def test_a_run_with_the_term(run_cli, small_cache: Path, tmp_path: Path, kind: str) -> None:
    common = (
        "--trainer.max_steps=3", "--model.init_args.optimizer.eps=1e-3",
        "--data.init_args.music_dropout=0.3", f"{OPTION}.kind={kind}",
    )  # fmt: skip
    splits = ((2, 1),) if kind == "other" else ((2, 1), (1, 2))
    runs = []
    for weight, (size, accumulation) in [(0, splits[0]), *((3, split) for split in splits)]:
        runs.append(
            run_cli(
                "fit", *common, f"{OPTION}.weight={weight}", f"--data.init_args.batch_size={size}",
                f"--trainer.accumulate_grad_batches={accumulation}", cache=small_cache,
                root=tmp_path / f"{weight} {size}",
            )
        )  # fmt: skip
    plain, *others = (
        {n: p for n, p in r.model.named_parameters() if p.requires_grad} for r in runs
    )
    assert any(not torch.equal(plain[name], others[0][name]) for name in plain)
    for split in others[1:]:
        assert all(torch.allclose(others[0][name], split[name], atol=1e-4) for name in plain)
    logged = [run.trainer.callback_metrics for run in runs]
    assert "train/counterfactual_loss" not in logged[0]
    for found in logged[1:]:
        assert found["train/counterfactual_loss"] > 0
        assert math.isfinite(found["train/counterfactual_gap"])
        # The term is not in it, so that curves of runs with and without can be compared.
        assert found["train/loss"] == pytest.approx(logged[0]["train/loss"].item(), rel=0.2)


def test_one_clip_has_no_other(run_cli, small_cache: Path) -> None:
    with pytest.raises(
        ValueError, match=r"kind is other, but data.batch_size is 1: .* of the same"
    ):
        run_cli("fit", f"{OPTION}.kind=other", f"{OPTION}.weight=1", cache=small_cache)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "objective.counterfactual.weight is -1.0; it must be at least 0"),
        ({"margin": 0.0}, "objective.counterfactual.margin is 0.0; it must be above 0"),
        ({"kind": "loud"}, "kind must be 'shifted' or 'silent' or 'other', not 'loud'"),
    ],
)
def test_wrong_settings(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CounterfactualSpec(**options)
