from statistics import median

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

from dance_eval.metrics.intervals import (
    MeanInterval,
    bootstrap_mean,
    bootstrap_median,
    bootstrap_seeds_and_clips,
)
from musicinfuser.keyed_random import generator


def test_agrees_with_the_normal_interval_of_a_large_sample():
    values = torch.randn(400, generator=generator(0, 0, "sample"), dtype=torch.float64)
    for confidence, quantile in ((0.95, 1.96), (0.68, 0.9945)):
        interval = bootstrap_mean(values.tolist(), seed=0, name="x", confidence=confidence)
        half = quantile * float(values.std()) / 20
        assert interval.mean == pytest.approx(float(values.mean()))
        assert interval.num_values == 400
        assert interval.mean - interval.low == pytest.approx(half, rel=0.08)
        assert interval.high - interval.mean == pytest.approx(half, rel=0.08)


def test_two_values_give_the_exact_resampling_distribution():
    # The mean of a resample is 0, 0.5 or 1 with probability 1/4, 1/2, 1/4.
    interval = bootstrap_mean([0.0, 1.0], seed=0, name="x", confidence=0.4)
    assert (interval.mean, interval.low, interval.high) == (0.5, 0.5, 0.5)
    interval = bootstrap_mean([0.0, 1.0], seed=0, name="x", confidence=0.6)
    assert (interval.mean, interval.low, interval.high) == (0.5, 0.0, 1.0)


def test_equal_keys_give_equal_intervals_and_chunks_do_not_matter(monkeypatch):
    values = [(i * 0.618) % 1.0 for i in range(50)]
    first = bootstrap_mean(values, seed=1, name="x")
    assert bootstrap_mean(values, seed=1, name="x") == first
    assert bootstrap_mean(values, seed=2, name="x") != first
    assert bootstrap_mean(values, seed=1, name="y") != first
    monkeypatch.setattr("dance_eval.metrics.intervals._CHUNK_DRAWS", 50 * 300)
    assert bootstrap_mean(values, seed=1, name="x") == first


def test_too_few_values_have_no_interval():
    none = bootstrap_mean([], seed=0, name="x")
    assert (none.mean, none.low, none.high, none.num_values) == (None, None, None, 0)
    one = bootstrap_mean([0.3], seed=0, name="x")
    assert (one.mean, one.low, one.high, one.num_values) == (0.3, None, None, 1)


def test_senseless_input_is_refused():
    with pytest.raises(ValueError, match="score holds a value that is not finite"):
        bootstrap_mean([1.0, float("nan")], seed=0, name="score")
    with pytest.raises(ValueError, match="confidence is 95"):
        bootstrap_mean([1.0, 2.0], seed=0, name="score", confidence=95)
    with pytest.raises(ValueError, match="num_resamples is 0"):
        bootstrap_mean([1.0, 2.0], seed=0, name="score", num_resamples=0)


def test_the_text_leaves_out_what_there_is_not():
    assert MeanInterval(0.25, 0.1, 0.4, 9).text() == "0.250 [0.100, 0.400]"
    assert MeanInterval(29.456, 29.0, 30.0, 9).text(1) == "29.5 [29.0, 30.0]"
    assert MeanInterval(0.25, None, None, 1).text() == "0.250"
    assert MeanInterval(None, None, None, 0).text() == ""


def test_a_median_is_resampled_by_group():
    found = bootstrap_median(
        [[0.5] * 100, *([1.0 + 0.01 * k] for k in range(20)), []], seed=0, name="x"
    )
    # One group with many values may come twice or not at all.
    assert found.mean == 0.5 and found.low == 0.5 and 1.05 < found.high < 1.2
    assert found.num_values == 21


def test_a_median_of_single_values_agrees_with_scipy():
    values = [((k * 0.618) % 1.0) ** 2 for k in range(41)]
    found = bootstrap_median([[v] for v in values], seed=0, name="x", confidence=0.9)
    other = bootstrap(
        (values,), np.median, confidence_level=0.9, n_resamples=4000, method="percentile",
        random_state=0,
    ).confidence_interval  # fmt: skip
    assert found.mean == median(values)
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=0.03)
    assert bootstrap_median([[v] for v in values], seed=0, name="x", confidence=0.9) == found


def test_a_median_of_one_group_or_none():
    one = bootstrap_median([[1.0, 2.0]], seed=0, name="x")
    assert (one.mean, one.low, one.num_values) == (1.5, None, 1)
    assert bootstrap_median([[]], seed=0, name="x").mean is None


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([{"a": 1.0, "b": 1.0}, {"a": 3.0, "b": 3.0}], id="trainings differ"),
        pytest.param([{"a": 1.0, "b": 3.0}, {"a": 1.0, "b": 3.0}], id="clips differ"),
        pytest.param([{"a": 1.0}, {"b": 3.0}], id="draws without a value do not count"),
    ],
)
def test_trainings_and_clips_are_both_resampled(values):
    found = bootstrap_seeds_and_clips(values, seed=0, name="x")
    assert found == MeanInterval(2.0, 1.0, 3.0, num_values=2)
