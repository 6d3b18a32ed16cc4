"""``train.py validate`` and validation during fit."""

import functools
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch

from datamodules.batch import collate
from musicinfuser.media.latents import read_clip, read_headers
from tests.conftest import cli_arguments
from train import main

ALL = "--trainer.limit_val_batches=1.0"
LEVELS = ("0.20", "0.40", "0.60", "0.80", "0.95")
CONSTANT = "--model.init_args.schedule.decay=constant"


class Seen(L.Callback):
    """Keeps the batches a run trains and validates on."""

    def __init__(self) -> None:
        self.training, self.validation = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.training.append(batch)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, *args) -> None:
        self.validation.append(batch)


class GivenUp(L.Callback):
    """Leaves the values of a validation that did not come to its end."""

    def on_validation_start(self, trainer, pl_module) -> None:
        for mean in pl_module.validation.means:
            mean.update(torch.tensor(1e3))


def metrics(cli) -> dict[str, float]:
    return {n: v.item() for n, v in cli.trainer.callback_metrics.items() if n.startswith("val/")}


@pytest.fixture(scope="module")
def validate(
    small_parts: Path, small_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable:
    """``validate(*arguments)`` on a model that was trained for four steps."""
    root = tmp_path_factory.mktemp("trained")

    def run(verb: str, *arguments: str) -> object:
        return main(
            cli_arguments(verb, *arguments, parts=small_parts, cache=small_cache, root=root)
        )

    run("fit", CONSTANT, "--trainer.max_steps=4")
    return functools.partial(run, "validate", ALL)


@pytest.fixture(scope="module")
def plain(validate: Callable) -> dict[str, float]:
    return metrics(validate())


def test_two_runs_agree_to_the_bit(validate: Callable, plain: dict[str, float]) -> None:
    assert metrics(validate()) == plain
    ends = {f"val/music_gap_{end}" for end in ("low", "high")}
    assert plain.keys() == {"val/loss", "val/loss_other_music", "val/music_gap"} | ends | {
        f"val/music_gap_sigma_{level}" for level in LEVELS
    }
    assert all(map(math.isfinite, plain.values()))


def test_one_that_was_given_up_leaves_nothing(validate: Callable, plain: dict[str, float]) -> None:
    left = "--trainer.callbacks+={class_path: tests.test_validate.GivenUp}"
    assert metrics(validate(left)) == plain


def test_batch_size_and_seed_of_the_run_do_not_matter(
    validate: Callable, plain: dict[str, float]
) -> None:
    torch.manual_seed(123)
    other = metrics(validate("--data.init_args.validation_batch_size=2"))
    assert plain == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_before_training_other_music_makes_no_difference(
    run_cli: Callable, small_cache: Path
) -> None:
    """Zero-initialised adapters do not listen."""
    found = metrics(run_cli("validate", ALL, "--ckpt_path=null", cache=small_cache))
    assert found["val/loss"] == found["val/loss_other_music"] > 0
    gaps = {name: value for name, value in found.items() if "gap" in name}
    assert len(gaps) == 3 + len(LEVELS) and set(gaps.values()) == {0.0}


def test_after_training_it_does(plain: dict[str, float]) -> None:
    assert plain["val/loss"] != plain["val/loss_other_music"]
    assert all(value != 0 for name, value in plain.items() if "gap" in name)
    assert plain["val/music_gap"] == pytest.approx(
        plain["val/loss_other_music"] / plain["val/loss"] - 1, abs=1e-6
    )


def test_the_numbers_are_means_over_clips_and_levels(validate: Callable) -> None:
    cli = validate()
    module, clips = cli.model.eval(), cli.datamodule.validation_clips
    own, other = [], []
    with torch.no_grad():
        for level in map(float, LEVELS):
            for i in range(len(clips)):
                batch, sigma = collate([clips[i]]), torch.tensor([level])
                for losses, audio in ((own, batch.audio), (other, batch.other_audio)):
                    losses.append(
                        module.velocity_losses(
                            batch, sigma, audio=audio, purpose=f"validation {level}"
                        ).item()
                    )
    assert len(own) == 15
    found = metrics(cli)
    assert found["val/loss"] == pytest.approx(sum(own) / 15, rel=1e-5)
    assert found["val/loss_other_music"] == pytest.approx(sum(other) / 15, rel=1e-5)
    # Of each clip over the levels; of three clips every mean of three is known.
    pairs = [(sum(own[i::3]), sum(other[i::3])) for i in range(3)]
    parts = [(b - a) / sum(a for a, _ in pairs) * 3 for a, b in pairs]
    assert found["val/music_gap"] == pytest.approx(sum(parts) / 3, abs=1e-6)
    assert min(parts) - 1e-6 <= found["val/music_gap_low"] < found["val/music_gap"]
    assert found["val/music_gap"] < found["val/music_gap_high"] <= max(parts) + 1e-6
    gap = sum(other[:3]) / sum(own[:3]) - 1
    assert found["val/music_gap_sigma_0.20"] == pytest.approx(gap, abs=1e-6)


def gap_warnings(record) -> list[str]:
    said = [str(w.message) for w in record]
    return [s for s in said if "the model hardly follows audio" in s]


def test_a_run_that_does_not_listen_is_told_once(
    run_cli: Callable, small_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """With a rate of zero ZICA stays at zero, and no other music changes anything."""
    options = (ALL, "--trainer.max_steps=3", "--trainer.val_check_interval=1")
    frozen = "--model.init_args.optimizer.lr=1e-30"
    after = "--model.init_args.validation.warn_ignored_audio_after={}"
    for number, said in (("2", 1), ("4", 0), ("null", 0)):
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            run_cli("fit", *options, frozen, after.format(number), cache=small_cache,
                    root=tmp_path / number)  # fmt: skip
        assert len(gap_warnings(record)) == said
        if said:
            [sentence] = gap_warnings(record)
            assert sentence.startswith("after 2 steps, another clip's music changes")
            assert "by 0.00 % [" in sentence and "(3 clips)" in sentence and sentence.endswith(".")
    # What the last checkpoint knows is on the page of `check`.
    run_cli("check", "--trainer.max_steps=5", frozen, cache=small_cache, root=tmp_path / "2")
    assert "other music changed the loss by 0.00 % [" in capsys.readouterr().out


def test_levels_can_be_chosen(validate: Callable) -> None:
    found = metrics(validate("--model.init_args.validation.sigmas=[0.3]"))
    assert {n for n in found if "sigma" in n} == {"val/music_gap_sigma_0.30"}


def test_fit_trains_on_no_held_out_music_and_validates_on_nothing_else(
    run_cli: Callable, small_cache: Path, tmp_path: Path
) -> None:
    cli = run_cli(
        "fit",
        ALL,
        "--trainer.max_steps=12",
        "--trainer.val_check_interval=6",
        "--trainer.callbacks+={class_path: tests.test_validate.Seen}",
        cache=small_cache,
    )
    [seen] = [c for c in cli.trainer.callbacks if type(c).__name__ == "Seen"]
    headers = read_headers(small_cache)
    music = {h.clip_id: h.music for h in headers}
    held_out = {h.clip_id for h in headers if h.split == "held_out"}
    trained_on = [c for batch in seen.training for c in batch.clip_ids]
    assert len(trained_on) == 12
    assert not set(trained_on) & held_out
    assert [c for b in seen.validation for c in b.clip_ids] == 2 * sorted(held_out)
    for batch in seen.training:
        assert batch.other_audio is None
    audio = {h.clip_id: read_clip(h.path)["audio"] for h in headers}
    for batch in seen.validation:
        assert torch.equal(batch.audio[0], audio[batch.clip_ids[0]])
        [partner] = [c for c in held_out if torch.equal(batch.other_audio[0], audio[c])]
        assert music[partner] != music[batch.clip_ids[0]]
    assert math.isfinite(cli.trainer.callback_metrics["val/loss"])


def test_validation_does_not_disturb_training(
    run_cli: Callable, small_cache: Path, tmp_path: Path
) -> None:
    weights = [
        run_cli(
            "fit",
            "--trainer.max_steps=3",
            "--trainer.val_check_interval=1",
            f"--trainer.limit_val_batches={share}",
            cache=small_cache,
            root=tmp_path / share,
        ).model.state_dict()
        for share in ("0", "1.0")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
