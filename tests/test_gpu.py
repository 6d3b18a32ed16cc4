"""What needs a CUDA device: ``pytest -m gpu``. Not part of the usual run."""

from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _needs_cuda() -> None:
    if not torch.cuda.is_available():
        pytest.fail("these tests need a CUDA device")


def test_trains_and_samples_in_bf16_with_checkpointing(
    run_cli, small_cache: Path, media: Path, tmp_path: Path
) -> None:
    track = media / "aist" / "gBR_sBM_c01_d04_mBR0_ch02.mp4"
    cli = run_cli(
        "fit",
        "--trainer.accelerator=gpu",
        "--trainer.precision=bf16-mixed",
        "--model.init_args.backbone.dtype=bfloat16",
        "--model.init_args.gradient_checkpointing=true",
        "--sample_generation.every_n_steps=2",
        f"--sample_generation.cells=[{{track: '{track}', prompt: a dance video}}]",
        cache=small_cache,
    )
    assert cli.trainer.global_step == 2
    assert torch.isfinite(cli.trainer.callback_metrics["train/loss"])
    assert list((tmp_path / "samples" / "step_000002").glob("*.mp4"))


def test_forward_and_backward_wait_for_nothing(run_cli, small_cache: Path) -> None:
    cli = run_cli("fit", "--trainer.accelerator=gpu", cache=small_cache)
    module = cli.model.cuda()
    batch = next(iter(cli.datamodule.train_dataloader())).to(torch.device("cuda"))
    module.training_step(batch, 0).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        module.training_step(batch, 0).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
