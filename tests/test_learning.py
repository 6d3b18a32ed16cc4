"""Slow: the shipped parts learn to listen, on the latents that ship with them."""

import pytest

from lightning_modules.cli import MusicInfuserCLI
from tests.conftest import ROOT

CACHE = ROOT / "assets" / "small-cache"


def music_gap(cli: MusicInfuserCLI) -> float:
    """How much another clip's music raises the loss at sigma 0.8; 0 if music is not heard."""
    return float(cli.trainer.callback_metrics["val/music_gap_sigma_0.80"])


@pytest.mark.slow
def test_time_aware_zica_hears_the_music_after_150_steps_and_the_base_does_not(tmp_path):
    arguments = [
        f"--config={ROOT}/configs/base.yaml",
        f"--config={ROOT}/configs/small_world/small.yaml",
        f"--trainer.default_root_dir={tmp_path}",
        "--trainer.max_steps=150",
        "--trainer.val_check_interval=150",
        "--trainer.enable_progress_bar=false",
        "--sample_generation.every_n_steps=0",
        f"--data.init_args.cache_dir={CACHE}",
        "--model.init_args.zica.positions=aligned",
    ]
    base = MusicInfuserCLI(["validate", *arguments, "--ckpt_path=null"])
    # The output projections start at zero, so the base cannot hear anything at all.
    assert abs(music_gap(base)) < 1e-6
    adapted = MusicInfuserCLI(["fit", *arguments])
    assert music_gap(adapted) > 0.02
