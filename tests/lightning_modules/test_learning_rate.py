import math

import pytest
import torch
from torch import nn

from lightning_modules import WarmUp


def curve_of(num_steps: int, *, decay: str = "cosine", warmup_steps: int = 200) -> WarmUp:
    schedule = WarmUp(torch.optim.SGD([nn.Parameter(torch.zeros(1))]), warmup_steps, decay)
    schedule.num_steps = num_steps
    return schedule


def factor(step: int, decay: str = "cosine", warmup_steps: int = 200) -> float:
    return curve_of(4000, decay=decay, warmup_steps=warmup_steps).factor(step)


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
    of = curve_of(4000)
    curve = [of.factor(step) for step in range(4001)]
    assert curve[:201] == sorted(curve[:201]) and curve[200:] == sorted(curve[200:], reverse=True)
    assert max(curve) == curve[200] == 1.0


def test_constant() -> None:
    assert [factor(s, "constant") for s in (0, 50, 200, 3000, 9999)] == [0, 0.25, 1, 1, 1]


def test_without_warm_up() -> None:
    assert factor(0, warmup_steps=0) == 1.0
    assert factor(2000, warmup_steps=0) == pytest.approx(0.5)


def test_a_run_shorter_than_its_warm_up_never_peaks() -> None:
    of = curve_of(4, warmup_steps=10)
    assert [of.factor(s) for s in range(5)] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_its_state_is_torchs() -> None:
    """Of earlier versions too, which had a LambdaLR there."""
    plain = torch.optim.lr_scheduler.LambdaLR(
        torch.optim.SGD([nn.Parameter(torch.zeros(1))]), lambda step: 0.0
    )
    assert curve_of(10).state_dict().keys() == plain.state_dict().keys()
