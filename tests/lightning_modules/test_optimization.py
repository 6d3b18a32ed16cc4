"""Optimizers and schedules by class path: they train, resume to the bit, and are refused early."""

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lightning_modules import WarmUp
from lightning_modules.given_weights import GivenWeights
from lightning_modules.optimization import (
    Optimization,
    averages,
    own_states,
    plain_states,
    stored_optimization,
)
from musicinfuser.errors import UserError
from tests.test_resume import assert_equal

# Package, class path, learning rate.
LIBRARIES = {
    "8-bit Adam": ("torchao", "torchao.optim.AdamW8bit", 1e-2),
    "Prodigy": ("prodigyopt", "prodigyopt.Prodigy", 1.0),
    "schedule-free": ("schedulefree", "schedulefree.AdamWScheduleFree", 1e-2),
    "CAME": ("came_pytorch", "came_pytorch.CAME", 1e-2),
}
ADAM = partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.0)
CONSTANT = partial(WarmUp, warmup_steps=0, decay="constant")


class Averaging(torch.optim.SGD):
    """As schedule-free ones: trains at other weights than it gives."""

    def __init__(self, params: object, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)
        self.is_training = False

    @torch.no_grad()
    def _move(self, factor: float, is_training: bool) -> None:
        if self.is_training != is_training:
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(factor)
        self.is_training = is_training

    def train(self) -> None:
        self._move(1 / 0.3, True)

    def eval(self) -> None:
        self._move(0.3, False)


@pytest.fixture(autouse=True)
def _eager() -> object:
    """torchao compiles its step, which takes a minute here."""
    with torch.compiler.set_stance("force_eager"):
        yield


def options(class_path: str, lr: float) -> list[str]:
    return [
        f"--model.init_args.optimizer={class_path}",
        f"--model.init_args.optimizer.lr={lr}",
        "--model.init_args.schedule.decay=constant",
        "--model.init_args.lora.rank=8",
    ]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in ("Prodigy", "CAME") else n for n in LIBRARIES],
)
def test_of_a_library_resumes_to_the_bit(
    name: str, run_cli, small_cache: Path, tmp_path: Path
) -> None:
    """Also where only one of the two runs was validated between the steps."""
    package, class_path, lr = LIBRARIES[name]
    pytest.importorskip(package)

    def fit(folder: str, num_steps: int, *more: str) -> object:
        return run_cli(
            "fit", *options(class_path, lr), f"--trainer.max_steps={num_steps}", *more,
            "--trainer.callbacks+=callbacks.AdapterExport", cache=small_cache,
            root=tmp_path / folder,
        )  # fmt: skip

    def saved(folder: str) -> dict:
        path = tmp_path / folder / "checkpoints" / "last.ckpt"
        return torch.load(path, weights_only=True)

    cli = fit("whole", 3)
    assert type(cli.trainer.optimizers[0]).__name__ == class_path.rpartition(".")[2]
    validated = ["--trainer.val_check_interval=1", "--trainer.limit_val_batches=1"]
    fit("parted", 2, *validated)
    fit("parted", 3, *validated)
    one, other = saved("whole"), saved("parted")
    for key in ("state_dict", "optimizer_states", "musicinfuser_trained_weights"):
        assert_equal(one.get(key), other.get(key))
    assert any((value != 0).any() for key, value in one["state_dict"].items() if "to_out" in key)
    # What is exported is what the checkpoint gives.
    exported = load_file(tmp_path / "whole/adapter/zica/diffusion_pytorch_model.safetensors")
    assert_equal(exported, {key: one["state_dict"][f"model.{key}"] for key in exported})


def test_a_checkpoint_holds_the_weights_that_are_given(
    run_cli, small_cache: Path, tmp_path: Path
) -> None:
    """And beside them those that are trained."""
    cli = run_cli(
        "fit",
        *options("tests.lightning_modules.test_optimization.Averaging", 0.1),
        cache=small_cache,
    )
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    trained = saved["musicinfuser_trained_weights"]
    assert saved["state_dict"].keys() == trained.keys()
    assert_equal(
        {key: value * 0.3 for key, value in trained.items()},
        saved["state_dict"],
    )
    weights = dict(cli.model.named_parameters())
    assert all(torch.equal(weights[key].cpu(), value) for key, value in trained.items())


def test_weights_come_back_to_the_bit() -> None:
    parameter = nn.Parameter(torch.randn(50, generator=torch.Generator().manual_seed(0)))
    optimizer, given = Averaging([parameter]), GivenWeights()
    optimizer.is_training = True
    before = parameter.detach().clone()
    with given.swapped([optimizer], given=True):
        assert_equal(parameter.detach(), before * 0.3)
        with given.swapped([optimizer], given=False):
            assert torch.equal(parameter, before)
        assert_equal(parameter.detach(), before * 0.3)
    assert torch.equal(parameter, before) and optimizer.is_training
    plain = ADAM([parameter])
    with given.swapped([plain], given=True):
        assert torch.equal(parameter, before)
    assert averages(optimizer) and not averages(plain)


def test_a_schedule_by_class_path(run_cli, small_cache: Path) -> None:
    cli = run_cli(
        "fit",
        "--model.init_args.schedule={class_path: torch.optim.lr_scheduler.StepLR, "
        "init_args: {step_size: 1, gamma: 0.5}}",
        cache=small_cache,
    )
    assert cli.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 / 4)


def test_another_optimizer_does_not_go_on(
    run_cli, small_cache: Path, fitted: SimpleNamespace
) -> None:
    with pytest.raises(UserError) as error:
        run_cli(
            "fit", f"--ckpt_path={fitted.last}", *options("torch.optim.SGD", 0.1)[:3],
            cache=small_cache,
        )  # fmt: skip
    assert "optimizer.class_path: torch.optim.AdamW in the checkpoint, torch.optim.SGD" in str(
        error.value
    )
    assert "schedule.init_args.decay: cosine in the checkpoint, constant in the config" in str(
        error.value
    )


@pytest.mark.parametrize("verb", ["fit", "check"])
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["optimizer.fused=true", "optimizer.foreach=true"], "`fused` and `foreach` cannot be"),
        (["optimizer.lr=-1"], "optimizer.lr is -1"),
        (["optimizer=torch.optim.SparseAdam"], "torch.optim.SparseAdam cannot be used"),
        (["schedule.warmup_steps=-1"], "schedule.warmup_steps is -1"),
        (["optimizer.lr=.inf"], "optimizer.lr is inf; it must be a finite number"),
        (["optimizer=torch.optim.Muon"], "Muon only supports 2D parameters"),
        (
            ["schedule={class_path: torch.optim.lr_scheduler.OneCycleLR, init_args: "
             "{max_lr: 0.1, total_steps: 1}}"],
            "The specified number of total steps is 1); change model.schedule.init_args",
        ),
        (
            ["schedule={class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 0}}"],
            "torch.optim.lr_scheduler.StepLR cannot be used with its arguments",
        ),
        (
            ["schedule={class_path: lightning.pytorch.cli.ReduceLROnPlateau, init_args: "
             "{monitor: val/loss}}"],
            "name a schedule that follows the optimizer's steps",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_first(
    run_cli, small_cache: Path, verb: str, arguments: list[str], sentence: str, capsys
) -> None:
    given = [f"--model.init_args.{argument}" for argument in arguments]
    if verb == "fit":
        with pytest.raises(UserError, match=re.escape(sentence)):
            # Weights that are nowhere: they are not looked for.
            run_cli("fit", *given, "--model.init_args.backbone.pretrained=/none", cache=small_cache)
    else:
        run_cli("check", *given, cache=small_cache)
        assert sentence in capsys.readouterr().out


def test_states_of_own_tensor_classes_become_plain_and_come_back() -> None:
    optim = pytest.importorskip("torchao.optim")
    parameter = nn.Parameter(torch.randn(64, 128))
    optimizer = optim.AdamW8bit([parameter], lr=0.1)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    [plain] = plain_states([optimizer.state_dict()])
    assert {type(t) for t in tensors(plain)} == {torch.Tensor}
    [again] = own_states([plain], "torchao.optim.AdamW8bit")
    moment, before = again["state"][0]["exp_avg"], optimizer.state[parameter]["exp_avg"]
    assert type(moment) is type(before) and torch.equal(moment.codes, before.codes)
    with pytest.raises(UserError, match="which torch does not have"):
        own_states([plain], "torch.optim.AdamW")


def tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [tensor for each in inner for tensor in tensors(each)]


def test_the_state_is_counted() -> None:
    assert Optimization(ADAM, CONSTANT).state_bytes == 8
    assert Optimization(partial(torch.optim.SGD, lr=0.1), None).state_bytes == 0
    eight_bit = partial(pytest.importorskip("torchao.optim").AdamW8bit, lr=0.1)
    assert Optimization(eight_bit, None).state_bytes == pytest.approx(2, abs=0.3)


def test_settings_of_an_earlier_version() -> None:
    stored = {
        "lr": 0.1, "warmup_steps": 3, "schedule": "cosine", "weight_decay": 0.0,
        "betas": (0.9, 0.999), "eps": 1e-8,
    }  # fmt: skip
    found = stored_optimization({"optimizer": stored})
    assert found["optimizer"]["class_path"] == "torch.optim.AdamW"
    arguments = {"lr": 0.1, "weight_decay": 0.0, "betas": (0.9, 0.999), "eps": 1e-8}
    assert found["optimizer"]["init_args"] == arguments
    assert found["schedule"] == {
        "class_path": "lightning_modules.WarmUp",
        "init_args": {"warmup_steps": 3, "decay": "cosine"},
    }
    now = Optimization(ADAM, partial(WarmUp, warmup_steps=3)).settings
    assert now["schedule"]["class_path"] == found["schedule"]["class_path"]


def test_several_batches_make_no_step_of_an_optimizer_that_evaluates_repeatedly() -> None:
    Optimization(ADAM, CONSTANT).check_accumulation(4)
    lbfgs = Optimization(partial(torch.optim.LBFGS, lr=0.1), None)
    lbfgs.check_accumulation(1)
    with pytest.raises(UserError, match="LBFGS evaluates the loss several times in a step, which"):
        lbfgs.check_accumulation(2)
