import math
from pathlib import Path

import pytest

from callbacks import BetaAnnealing


@pytest.mark.parametrize(("step", "beta"), [(0, 3.0), (200, 2.0), (400, 1.5), (1000, 1.0625)])
def test_halves_its_distance_to_one_every_200_steps(step: int, beta: float) -> None:
    assert BetaAnnealing().beta(step) == beta


def test_stays_above_one_and_falls() -> None:
    schedule = BetaAnnealing(initial=3.0, half_life_steps=200)
    values = [schedule.beta(step) for step in range(0, 4001, 50)]
    assert values == sorted(values, reverse=True)
    assert 1 < values[-1] < 1.00001


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({"mode": "fixed", "initial": 1.0}, {0: 1.0, 500: 1.0}),
        ({"mode": "fixed", "initial": 3.0}, {0: 3.0, 4000: 3.0}),
        (
            {"mode": "linear", "initial": 3.0, "num_steps": 1000},
            {0: 3.0, 250: 2.5, 1000: 1.0, 2000: 1.0},
        ),
        ({"initial": 5.0, "half_life_steps": 10}, {0: 5.0, 10: 3.0, 20: 2.0}),
    ],
)
def test_other_schedules(options: dict, values: dict[int, float]) -> None:
    schedule = BetaAnnealing(**options)
    assert {step: schedule.beta(step) for step in values} == pytest.approx(values)


def test_exponential_annealing_halves_the_distance_to_one():
    def beta(step, half_life_steps=200):
        return BetaAnnealing(3.0, half_life_steps).beta(step)

    assert beta(0) == 3.0
    assert beta(200) == 2.0
    assert beta(400) == 1.5
    assert beta(600) == 1.25
    assert beta(100) == pytest.approx(1 + 2 / math.sqrt(2))
    assert beta(20_000) == pytest.approx(1.0, abs=1e-12)
    assert beta(50, half_life_steps=50) == 2.0
    values = [beta(step) for step in range(0, 4000, 10)]
    assert all(a > b for a, b in zip(values, values[1:], strict=False))


def test_exponential_annealing_has_the_slope_of_its_differential_equation():
    """d beta / d step = -ln 2 / half life * (beta - 1), by central difference."""
    step, half_life_steps = 300, 200
    below, here, above = (
        BetaAnnealing(3.0, half_life_steps).beta(s) for s in (step - 1, step, step + 1)
    )
    assert (above - below) / 2 == pytest.approx(
        -math.log(2) / half_life_steps * (here - 1), rel=1e-4
    )


def test_linear_annealing_falls_evenly_and_stays():
    def beta(step):
        return BetaAnnealing(3.0, 200, "linear", 4000).beta(step)

    assert [beta(s) for s in (0, 1000, 2000, 3000, 4000, 9000)] == [3.0, 2.5, 2.0, 1.5, 1.0, 1.0]


def test_fixed_mode_keeps_the_initial_value():
    for step in (0, 1, 100_000):
        assert BetaAnnealing(2.5, 200, "fixed").beta(step) == 2.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial": 0.5}, "initial is 0.5; it must be at least 1"),
        ({"half_life_steps": 0}, "half_life_steps is 0"),
        ({"mode": "linear"}, "num_steps belongs to mode linear"),
        ({"mode": "cosine"}, "must be 'exponential' or 'linear' or 'fixed', not 'cosine'"),
        ({"mode": "exponential", "num_steps": 10}, "num_steps belongs to mode linear"),
        ({"mode": "linear", "num_steps": 0}, "num_steps is 0"),
    ],
)
def test_bad_settings(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BetaAnnealing(**options)


def test_a_run_trains_with_it_and_logs_it(
    run_cli, small_cache: Path, tmp_path: Path, scalars
) -> None:
    cli = run_cli("fit", "--trainer.max_steps=3", "--beta_annealing.half_life_steps=2",
                  cache=small_cache)  # fmt: skip
    expected = [1 + 2 * 2 ** (-step / 2) for step in range(3)]
    # The third batch was drawn after two optimizer steps.
    assert cli.model.noise_beta == pytest.approx(expected[2], abs=1e-12)
    assert list(scalars(tmp_path, "train/beta").values()) == pytest.approx(expected)
    # A resumed run goes on where it was.
    run_cli("fit", "--trainer.max_steps=4", "--beta_annealing.half_life_steps=2", cache=small_cache)
    logged = list(scalars(tmp_path, "train/beta").values())
    assert logged == pytest.approx([*expected, 1 + 2 * 2**-1.5])


def test_beta_is_held_during_accumulation(run_cli, small_cache: Path) -> None:
    cli = run_cli(
        "fit",
        "--trainer.max_steps=2",
        "--trainer.accumulate_grad_batches=3",
        "--beta_annealing.half_life_steps=1",
        cache=small_cache,
    )
    assert cli.model.noise_beta == 2.0


def test_the_loss_depends_on_it(run_cli, small_cache: Path, tmp_path: Path) -> None:
    losses = [
        run_cli(
            "fit",
            "--trainer.max_steps=1",
            "--beta_annealing.mode=fixed",
            f"--beta_annealing.initial={beta}",
            cache=small_cache,
            root=tmp_path / str(beta),
        ).trainer.callback_metrics["train/loss"]
        for beta in (1.0, 3.0)
    ]
    assert not math.isclose(*losses, rel_tol=1e-3)
