import math

import pytest
from torch import nn

from lightning_modules.learning_rate import build_optimizer, learning_rate_factor
from lightning_modules.settings import OptimizerSpec


def factor(step: int, schedule: str = "cosine", warmup_steps: int = 200) -> float:
    return learning_rate_factor(step, OptimizerSpec(1e-4, warmup_steps, schedule), 4000)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.0),
        (1, 0.005),
        (100, 0.5),
        (200, 1.0),
        (2100, 0.5),
        (200 + 950, 0.5 * (1 + math.sqrt(0.5))),
        (4000, 0.0),
        (5000, 0.0),
    ],
)
def test_cosine(step: int, expected: float) -> None:
    assert factor(step) == pytest.approx(expected, abs=1e-12)


def test_rises_to_the_peak_and_falls_from_it() -> None:
    curve = [factor(step) for step in range(4001)]
    assert curve[:201] == sorted(curve[:201]) and curve[200:] == sorted(curve[200:], reverse=True)
    assert max(curve) == curve[200] == 1.0


def test_constant() -> None:
    assert [factor(s, "constant") for s in (0, 50, 200, 3000, 9999)] == [0, 0.25, 1, 1, 1]


def test_without_warm_up() -> None:
    assert factor(0, warmup_steps=0) == 1.0
    assert factor(2000, warmup_steps=0) == pytest.approx(0.5)


def test_a_run_shorter_than_its_warm_up_never_peaks() -> None:
    curve = [learning_rate_factor(s, OptimizerSpec(1e-4, 10, "cosine"), 4) for s in range(5)]
    assert curve == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_the_optimizer_is_what_the_settings_say() -> None:
    trained, frozen = nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)
    spec = OptimizerSpec(2e-4, 10, "cosine", weight_decay=0.3, betas=(0.8, 0.95), eps=1e-6)
    built = build_optimizer([*trained.parameters(), *frozen.parameters()], spec, 100)
    [group] = built["optimizer"].param_groups
    named = {name: group[name] for name in ("initial_lr", "lr", "weight_decay", "betas", "eps")}
    assert named == {
        "initial_lr": 2e-4, "lr": 0.0, "weight_decay": 0.3, "betas": (0.8, 0.95), "eps": 1e-6
    }  # fmt: skip
    assert [id(p) for p in group["params"]] == [id(p) for p in trained.parameters()]
    assert built["lr_scheduler"]["interval"] == "step"
