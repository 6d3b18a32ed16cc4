"""Bytes of a checkpoint beside what must be in it.

    python -m benchmarks.checkpoint --out benchmarks/results/checkpoint.json

A small model's checkpoint is written and read by the file system; the full size's is counted on the
meta device from the state that would be written. The frozen backbone must be in neither.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter
from torch.utils.data import DataLoader

from benchmarks.profiles import CONFIGS
from benchmarks.report import Figure, command_of, parser, silence_lightning
from benchmarks.small_run import noise_batch, recipe_module, small_recipe
from lightning_modules.checkpointing import keep_adapters
from lightning_modules.cli import MusicInfuserCLI
from preflight.memory import frozen_bytes, num_trained

# fp32: the weight, and Adam's two moments.
BYTES_PER_WEIGHT = 12
ALLOWED = 1.05
STEPS = 2


def tensor_bytes(state: Any) -> int:
    """Bytes of all tensors in a nested state."""
    return sum(value.nbytes for value in tree_iter(state) if isinstance(value, Tensor))


def small_file(folder: Path) -> tuple[int, int, int]:
    """Bytes of a written checkpoint, trained values, and bytes of the frozen backbone."""
    cli = small_recipe(folder, max_steps=STEPS)
    module = recipe_module(cli)
    batches: Any = [noise_batch(7, 32, 32)] * STEPS
    cli.trainer.fit(module, DataLoader(batches, batch_size=None))
    path = folder / "written.ckpt"
    cli.trainer.save_checkpoint(path)
    return path.stat().st_size, num_trained(module), frozen_bytes(module)


def full_state() -> tuple[int, int, int]:
    """The same of the recipe at full size, counted."""
    cli = MusicInfuserCLI(
        [f"--config={CONFIGS / 'base.yaml'}", "--trainer.accelerator=cpu",
         "--trainer.logger=false", "--trainer.callbacks=[]"],
        run=False,
    )  # fmt: skip
    with torch.device("meta"):
        module = recipe_module(cli)
    made = module.optimization.build(module.parameters(), cli.trainer.max_steps)
    optimizer = made["optimizer"]
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    checkpoint = {"state_dict": module.state_dict()}
    keep_adapters(checkpoint, module.trainable_names())
    size = tensor_bytes([checkpoint["state_dict"], optimizer.state_dict()])
    return size, num_trained(module), frozen_bytes(module)


def measure(_: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    """Both sizes."""
    silence_lightning()
    figures, details = [], {}
    with tempfile.TemporaryDirectory() as folder:
        made = {"small, the file": small_file(Path(folder)), "full size, counted": full_state()}
    for name, (size, trained, frozen) in made.items():
        figures += [
            Figure(name, size / 1e6, "MB", ALLOWED * BYTES_PER_WEIGHT * trained / 1e6,
                   "limit: 1.05 of weights and Adam in fp32"),
            Figure(f"{name}: over weights and Adam", size / (BYTES_PER_WEIGHT * trained), "times",
                   ALLOWED),
            Figure(f"{name}: the frozen backbone, left out", frozen / 1e6, "MB"),
        ]  # fmt: skip
        details[name] = {"bytes": size, "trained": trained, "frozen_bytes": frozen}
    return figures, details


main = command_of("checkpoint", parser(__doc__), measure)

if __name__ == "__main__":
    main()
