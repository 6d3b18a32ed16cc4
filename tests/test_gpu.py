"""What needs a CUDA device: ``pytest -m gpu``. Not part of the usual run."""

from pathlib import Path

import pytest
import torch

from callbacks import TrainingCurves
from datamodules.batch import collate
from tests.cuda_sync import nothing_waits

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _needs_cuda() -> None:
    if not torch.cuda.is_available():
        pytest.fail("these tests need a CUDA device")


HOST_MEMORY = [
    f"--model.init_args.memory.{name}=true"
    for name in ("stream_blocks", "offload_inputs", "modulations_on_host")
]


@pytest.mark.parametrize(("policy", "more"), [("attention", []), ("full", HOST_MEMORY)])
def test_trains_and_samples_in_bf16_with_checkpointing(
    run_cli, small_cache: Path, media: Path, tmp_path: Path, policy: str, more: list[str]
) -> None:
    track = media / "aist" / "gBR_sBM_c01_d04_mBR0_ch02.mp4"
    cli = run_cli(
        "fit",
        "--trainer.accelerator=gpu",
        "--trainer.precision=bf16-mixed",
        "--model.init_args.backbone.dtype=bfloat16",
        f"--model.init_args.memory.gradient_checkpointing={policy}",
        *more,
        "--sample_generation.every_n_steps=2",
        f"--sample_generation.requests=[{{track: '{track}', prompt: a dance video}}]",
        cache=small_cache,
    )
    assert cli.trainer.global_step == 2
    assert torch.isfinite(cli.trainer.callback_metrics["train/loss"])
    assert list((tmp_path / "samples" / "step_000002").glob("*.mp4"))


def test_a_step_and_its_curves_wait_for_nothing(run_cli, small_cache: Path) -> None:
    cli = run_cli("fit", "--trainer.accelerator=gpu", cache=small_cache)
    trainer, module = cli.trainer, cli.model.cuda()
    data = cli.datamodule
    batch = collate([data.training_clips[data.mixture[i]] for i in range(2)]).to(module.device)
    [curves] = [c for c in trainer.callbacks if isinstance(c, TrainingCurves)]
    curves.on_train_start(trainer, module)
    trainer.log_every_n_steps = 1_000_000
    module.log = lambda *_, **__: None  # there is no loop around these steps

    def step() -> None:
        outputs = module.training_step(batch, 0)
        outputs["loss"].backward()
        curves.on_before_optimizer_step(trainer, module, trainer.optimizers[0])
        curves.on_train_batch_end(trainer, module, outputs, batch, 0)

    step()
    with nothing_waits():
        step()
    curves._add_up(trainer)
    counts = curves._losses[1].tolist()
    assert sum(counts[:4]) == sum(counts[4:]) == 2 * len(batch)
