import resource
from pathlib import Path

import psutil
import pytest
import torch


def test_the_peak_is_logged_when_it_is_time(run_cli, small_cache: Path, tmp_path: Path, scalars):
    needed = torch.ones(75_000_000)  # 0.3 GB, which stay in the peak
    del needed
    run_cli(
        "fit",
        "--trainer.callbacks=[{class_path: callbacks.MemoryUse}]",
        "--trainer.max_steps=5",
        "--trainer.log_every_n_steps=2",
        cache=small_cache,
    )
    peaks = scalars(tmp_path, "train/peak_ram_gb")
    assert list(peaks) == [1, 3]
    assert peaks[1] <= peaks[3] < psutil.virtual_memory().total / 1e9
    now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    assert peaks[3] == pytest.approx(now, rel=0.2) and peaks[3] > 0.3
