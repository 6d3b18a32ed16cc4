"""The rate that counted work is divided by."""

import torch

from benchmarks.limits import peak_tflops
from musicinfuser.device_speed import product_tflops


def test_the_rate_of_this_device_is_timed() -> None:
    rate, source = peak_tflops(torch.device("cpu"))
    assert 1e-3 < rate < 100 and "timed here" in source
    assert product_tflops(torch.device("cpu")) > 1e-3
