import functools
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightning_modules.checkpointing import (
    CheckpointMismatchError,
    check_agreement,
    keep_adapters,
)
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.zica import ZicaSpec
from musicinfuser.setting_differences import flatten

SETTINGS = {"model": {"layers": [0, 2], "lora": {"rank": 2}, "zica": asdict(ZicaSpec())}}
WEIGHTS = {"a": torch.zeros(1), "b": torch.ones(1)}


def stored(**changes) -> dict:
    return {"musicinfuser": SETTINGS, "state_dict": WEIGHTS} | changes


def test_keeps_exactly_the_named_weights() -> None:
    checkpoint = {"state_dict": dict(WEIGHTS), "epoch": 3}
    keep_adapters(checkpoint, {"b"})
    assert checkpoint == {"state_dict": {"b": WEIGHTS["b"]}, "epoch": 3}
    with pytest.raises(AssertionError):
        keep_adapters({"state_dict": dict(WEIGHTS)}, {"b", "c"})


def test_agreement() -> None:
    check_agreement(stored(), {"model": {**SETTINGS["model"], "layers": (0, 2)}}, {"a", "b"})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layers": [0, 1]}, r"model.layers: \(0, 2\) in the checkpoint, \(0, 1\) in the config"),
        ({"lora": {"rank": 3}}, "model.lora.rank: 2 in the checkpoint, 3 in the config"),
        ({"lora": None}, "model.lora.rank: 2 in the checkpoint, None in the config"),
        ({"new": 1}, "model.new: None in the checkpoint, 1 in the config"),
        ({"lora": {"rank": 3}, "zica": {"bias": False}}, "lora.rank: 2 .*; model.zica.bias: True"),
    ],
)
def test_every_difference_is_named(changed: dict, message: str) -> None:
    with pytest.raises(CheckpointMismatchError, match=message):
        check_agreement(stored(), {"model": SETTINGS["model"] | changed}, {"a", "b"})


@pytest.mark.parametrize("trainable", [{"a"}, {"a", "b", "c"}])
def test_other_weights_are_refused(trainable: set[str]) -> None:
    with pytest.raises(CheckpointMismatchError, match="first difference: [bc]"):
        check_agreement(stored(), SETTINGS, trainable)


def test_options_younger_than_a_checkpoint_had_their_defaults() -> None:
    checkpoint = stored(musicinfuser={"model": {"lora": {"rank": 2, "alpha": 2.0}, "zica": {}}})
    now = {"lora": asdict(LoraSpec(2, 2.0)), "zica": asdict(ZicaSpec())}
    check_agreement(checkpoint, {"model": now}, {"a", "b"})
    for group, name, default in (("lora", "dora", False), ("zica", "frame_window", None)):
        changed = now | {group: now[group] | {name: 1}}
        said = f"model.{group}.{name}: {default} in the checkpoint, 1 in the config"
        with pytest.raises(CheckpointMismatchError, match=said):
            check_agreement(checkpoint, {"model": changed}, {"a", "b"})


def test_foreign_checkpoint() -> None:
    with pytest.raises(CheckpointMismatchError, match="no model settings"):
        check_agreement({"state_dict": WEIGHTS}, SETTINGS, {"a", "b"})


def test_only_the_asked_groups_are_compared() -> None:
    both = SETTINGS | {"optimizer": {"lr": 0.1}}
    check_agreement(stored(musicinfuser=both), SETTINGS, {"a", "b"})
    with pytest.raises(CheckpointMismatchError, match="optimizer.lr: 0.1 .*, 0.2 in the config"):
        check_agreement(
            stored(musicinfuser=both), SETTINGS | {"optimizer": {"lr": 0.2}}, {"a", "b"}
        )


def test_flatten() -> None:
    nested = {"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None}
    assert flatten(nested) == {"a.b.c": 1, "a.d": (1, 2), "e": None}


@dataclass
class Change:
    argument: str
    message: str


@pytest.mark.parametrize(
    "change",
    [
        Change("lr=0.5", "optimizer.init_args.lr: 0.01 in the checkpoint, 0.5 in the config"),
        Change("weight_decay=0.1", "optimizer.init_args.weight_decay: 0.0 in the checkpoint, 0.1"),
    ],
)
def test_a_rate_that_would_be_ignored_on_resume_is_refused(
    run_cli, small_cache: Path, fitted: SimpleNamespace, change: Change
) -> None:
    """torch restores the rate with the optimizer's state, whatever the config says."""
    run = functools.partial(run_cli, cache=small_cache, root=fitted.root)
    changed = f"--model.init_args.optimizer.{change.argument}"
    with pytest.raises(CheckpointMismatchError, match=change.message):
        run("fit", "--trainer.max_steps=4", changed)
    # To judge or to use the weights the optimizer does not matter.
    limits = ("--trainer.limit_val_batches=1", changed)
    assert "val/loss" in run("validate", *limits).trainer.callback_metrics


def test_a_missing_file_is_noticed_before_weights_are_read(
    run_cli, small_cache: Path, tmp_path: Path
) -> None:
    missing = f"--ckpt_path={tmp_path}/none.ckpt"
    for verb in ("fit", "validate", "predict"):
        with pytest.raises(ValueError, match=r"--ckpt_path names .*none\.ckpt, which does not"):
            run_cli(verb, missing, "--model.init_args.backbone.pretrained=/no/such/folder",
                    cache=small_cache)  # fmt: skip


def test_a_checkpoint_by_path_continues_a_run(
    run_cli, small_cache: Path, fitted: SimpleNamespace, tmp_path: Path
) -> None:
    moved = shutil.copy(fitted.last, tmp_path / "elsewhere.ckpt")
    cli = run_cli(
        "fit",
        f"--ckpt_path={moved}",
        "--trainer.max_steps=3",
        cache=small_cache,
        root=tmp_path / "new",
    )
    assert cli.trainer.global_step == 3
