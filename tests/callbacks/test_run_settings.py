"""What is changed at a resume is named, and the learning rate follows the new schedule."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from callbacks.run_settings import RUN_KEY
from lightning_modules.learning_rate import follow_schedule
from tests.lightning_modules.test_learning_rate import curve_of

CONSTANT = "--model.init_args.schedule.decay=constant"


def said(record: list[warnings.WarningMessage]) -> list[str]:
    return [str(w.message) for w in record if str(w.message).startswith("resumed with")]


@pytest.fixture
def resume(
    run_cli: Callable, small_cache: Path, fitted: SimpleNamespace, tmp_path: Path
) -> Callable:
    """Goes on from the two steps of ``fitted``, or another checkpoint, and gives what is said."""

    def run(*options: str, checkpoint: Path = fitted.last, steps: int = 2) -> list[str]:
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            run.cli = run_cli(
                "fit", f"--ckpt_path={checkpoint}", f"--trainer.max_steps={steps}", *options,
                cache=small_cache, root=tmp_path / "resumed",
            )  # fmt: skip
        return said(record)

    return run


def test_each_changed_setting_is_named_in_a_line_of_its_own(resume: Callable) -> None:
    assert resume() == []
    changed = {
        "--seed_everything=7": ["data.seed: 42 {}, 7 {}", "model.seed: 42 {}, 7 {}"],
        "--data.init_args.ratio.aist=2": ["data.ratio.aist: 1 {}, 2 {}"],
        "--data.init_args.caption_dropout=0.3": ["data.caption_dropout: 0.1 {}, 0.3 {}"],
        "--data.init_args.music_dropout=0.2": ["data.music_dropout: 0.0 {}, 0.2 {}"],
        "--data.init_args.both_dropout=0.1": ["data.both_dropout: 0.0 {}, 0.1 {}"],
        "--data.init_args.base_prompt_probability=0": [
            "data.base_prompt_probability: 0.2 {}, 0.0 {}"
        ],
        "--model.init_args.objective.latent_space=authors": [
            "model.objective.latent_space: normalised {}, authors {}"
        ],
        "--model.init_args.objective.counterfactual.weight=2": [
            "model.objective.counterfactual.weight: 0.0 {}, 2.0 {}"
        ],
        "--beta_annealing.initial=5": ["beta_annealing.initial: 3.0 {}, 5.0 {}"],
        "--beta_annealing.half_life_steps=9": ["beta_annealing.half_life_steps: 200 {}, 9 {}"],
        "--trainer.precision=bf16-mixed": ["trainer.precision: 32-true {}, bf16-mixed {}"],
        "--trainer.gradient_clip_val=0.5": ["trainer.gradient_clip_val: None {}, 0.5 {}"],
        "--trainer.callbacks+=callbacks.AdapterEMA": [
            "AdapterEMA.decay: None {}, 0.999 {}",
            "AdapterEMA.every_n_steps: None {}, 1 {}",
            "AdapterEMA.start_step: None {}, 0 {}",
        ],
    }
    places = "in the checkpoint", "in the config"
    expected = [
        f"resumed with another setting: {line.format(*places)}."
        for lines in changed.values()
        for line in lines
    ]
    assert sorted(resume(*changed)) == sorted(expected)


def test_the_clips_and_their_captions_are_known(
    resume: Callable, fitted: SimpleNamespace, tmp_path: Path
) -> None:
    checkpoint = torch.load(fitted.last, weights_only=True)
    stored = checkpoint[RUN_KEY]
    assert stored["clips of aist"].startswith("5 (mark ")
    stored["clips of aist"] = "4 (mark 00000000)"
    stored["model.backbone"] = "of another kind"
    torch.save(checkpoint, tmp_path / "other.ckpt")
    lines = resume(checkpoint=tmp_path / "other.ckpt")
    assert [line.split(" in the ")[0].split(": ", 1)[1] for line in lines] == [
        "clips of aist: 4 (mark 00000000)",
        "model.backbone: of another kind",
    ]


def test_options_younger_than_a_checkpoint_had_their_defaults(
    resume: Callable, fitted: SimpleNamespace, tmp_path: Path
) -> None:
    checkpoint = torch.load(fitted.last, weights_only=True)
    mask = "model.objective.mask.weight"
    for name in ("data.training_share", mask, "model.objective.mask.unmasked"):
        del checkpoint[RUN_KEY][name]
    torch.save(checkpoint, tmp_path / "older.ckpt")
    assert resume(checkpoint=tmp_path / "older.ckpt") == []
    changed = ("--data.init_args.training_share=0.5", "--model.init_args.objective.mask.weight=3")
    masks = "--model.init_args.objective.mask.unmasked=plain"
    lines = resume(*changed, masks, checkpoint=tmp_path / "older.ckpt")
    # Of the smaller share other clips follow.
    assert [line for line in lines if "clips of" not in line] == [
        "resumed with another setting: data.training_share: nothing (by default 1.0) in the "
        "checkpoint, 0.5 in the config.",
        "resumed with another setting: model.objective.mask.unmasked: nothing (by default refuse) "
        "in the checkpoint, plain in the config.",
        f"resumed with another setting: {mask}: nothing (by default 1.0) in the checkpoint, 3.0 in "
        "the config.",
    ]


def test_another_split_of_the_same_batch_is_no_change(
    resume: Callable, run_cli: Callable, small_cache: Path, tmp_path: Path
) -> None:
    root = tmp_path / "four"
    run_cli("fit", "--data.init_args.batch_size=4", cache=small_cache, root=root)
    last = root / "checkpoints" / "last.ckpt"
    split = ("--data.init_args.batch_size=2", "--trainer.accumulate_grad_batches=2")
    assert resume(*split, checkpoint=last) == []


def test_a_checkpoint_without_settings_is_resumed_without_a_word(
    resume: Callable, fitted: SimpleNamespace, tmp_path: Path
) -> None:
    checkpoint = torch.load(fitted.last, weights_only=True)
    del checkpoint[RUN_KEY]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    changed = ("--seed_everything=7", "--beta_annealing.initial=2")
    assert resume(*changed, checkpoint=tmp_path / "old.ckpt") == []
    # But for the rate, which is in the checkpoint.
    [line] = resume(checkpoint=tmp_path / "old.ckpt", steps=5)
    assert line.startswith("resumed with another learning rate: it goes on at 0.00")
    assert "as this run's schedule of 5 steps has it at step 2" in line


def test_more_steps_go_on_at_the_rate_of_the_new_cosine(resume: Callable, tmp_path: Path) -> None:
    record = tmp_path / "record"
    rates = (
        "--trainer.callbacks=[{class_path: tests.training_record.TrainingRecord, init_args: "
        f"{{path: {record}}}}}]"
    )
    # Two steps, one of them warm-up: the cosine has come to 0, and that of five steps to 3/4.
    lines = resume(rates, steps=5)
    expected = 0.01 * 0.5 * (1 + math.cos(math.pi / 4))
    assert lines == [
        "resumed with another setting: trainer.max_steps: 2 in the checkpoint, 5 in the config.",
        f"resumed with another learning rate: it goes on at {expected:.3g}, as this run's schedule "
        "of 5 steps has it at step 2, not at 0, where the checkpoint's was.",
    ]
    [optimizer] = resume.cli.trainer.optimizers
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_the_first_resumed_step_is_made_with_the_new_rate(
    resume: Callable, fitted: SimpleNamespace
) -> None:
    start = torch.load(fitted.last, weights_only=True)["state_dict"]
    resume(steps=3)
    module = resume.cli.model
    moved = [n for n, w in module.state_dict().items() if n in start and (w != start[n]).any()]
    assert len(moved) > 10


def test_a_level_rate_knows_no_last_step(resume: Callable, run_cli, small_cache, tmp_path) -> None:
    run_cli("fit", CONSTANT, cache=small_cache, root=tmp_path / "level")
    last = tmp_path / "level" / "checkpoints" / "last.ckpt"
    assert resume(CONSTANT, checkpoint=last, steps=3) == []


@pytest.mark.parametrize(
    ("before", "after", "rates"),
    [
        (100, 100, None),
        (40, 100, (0.0, 0.75)),
        (100, 40, (0.75, 0.0)),
        (70, 100, (0.5, 0.75)),
    ],
)
def test_rates_of_a_schedule_that_ends_elsewhere(
    before: int, after: int, rates: tuple[float, float] | None
) -> None:
    """At step 40 of cosines that begin at step 10."""

    def rate(num_steps: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * 30 / (num_steps - 10)))

    peaks = [[1.0, 0.25], [0.5]]  # of two optimizers, the first one with two groups

    def rates_of(num_steps: int) -> list[list[float]]:
        return [[peak * rate(num_steps) for peak in own] for own in peaks]

    checkpoint = {
        "lr_schedulers": [
            {"last_epoch": 40, "base_lrs": own, "_last_lr": stored}
            for own, stored in zip(peaks, rates_of(before), strict=True)
        ],
        "optimizer_states": [
            {"param_groups": [{"lr": stored} for stored in own]} for own in rates_of(before)
        ],
    }
    found = follow_schedule(checkpoint, curve_of(after, warmup_steps=10))
    assert found == (rates and pytest.approx(rates, abs=1e-9))
    groups = [state["param_groups"] for state in checkpoint["optimizer_states"]]
    assert [[group["lr"] for group in own] for own in groups] == rates_of(after)
    assert [state["_last_lr"] for state in checkpoint["lr_schedulers"]] == rates_of(after)
