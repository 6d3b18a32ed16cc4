"""Seconds per step of a small model by its tokens, in the Trainer and by hand.

    python -m benchmarks.scaling --out benchmarks/results/scaling.json

t = a N + b N^2 is fitted: the first term is what every token costs, the second attention. The
Trainer adds the same to every size, which matters less the longer a step is. CPU time of the
process.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.report import Figure, command_of, parser, silence_lightning
from benchmarks.small_run import (
    StepClock,
    noise_batch,
    recipe_module,
    seconds_by_hand,
    small_recipe,
)
from datamodules.batch import ClipBatch
from lightning_modules import MusicInfuserModule
from musicinfuser.clip_size import num_visual_tokens

# Frames, height and width of clips with 128 to 2,048 tokens.
CLIPS = ((7, 128, 128), (19, 128, 128), (19, 256, 256), (43, 256, 256))
WARM_UP = 2


def in_trainer(folder: Path, batch: ClipBatch, num_steps: int) -> list[float]:
    """Seconds of the recipe's steps; the last one, which saves a checkpoint, is left out."""
    cli = small_recipe(folder, max_steps=num_steps + WARM_UP + 1)
    clock = StepClock()
    cli.trainer.callbacks.append(clock)  # type: ignore[attr-defined]
    batches: Any = [batch] * (num_steps + WARM_UP + 1)
    module = recipe_module(cli)
    cli.trainer.fit(module, DataLoader(batches, batch_size=None))
    return clock.steps()[WARM_UP:][:num_steps]


def by_hand(module: MusicInfuserModule, batch: ClipBatch, num_steps: int) -> list[float]:
    """Seconds of the same steps without a Trainer."""
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-4)

    def loss() -> Tensor:
        sigma = torch.rand(len(batch))
        return module.velocity_losses(
            batch, sigma, audio=batch.audio, purpose="training"
        ).mean()  # fmt: skip

    return seconds_by_hand(loss, optimizer, num_steps + WARM_UP)[WARM_UP:]


def fitted(tokens: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """A and b of seconds = a N + b N^2, with errors relative to the seconds."""
    n, t = torch.tensor(tokens, dtype=torch.float64), torch.tensor(seconds, dtype=torch.float64)
    matrix = torch.stack([n / t, n**2 / t], dim=1)
    solution = torch.linalg.lstsq(matrix, torch.ones_like(t)[:, None]).solution
    return solution[0].item(), solution[1].item()


def measure(settings: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    """All sizes, by hand and in the Trainer in turns."""
    silence_lightning()
    tokens = [num_visual_tokens(*clip) for clip in CLIPS]
    raw: dict[int, list[float]] = {n: [] for n in tokens}
    whole: dict[int, list[float]] = {n: [] for n in tokens}
    with tempfile.TemporaryDirectory() as folder:
        module = recipe_module(small_recipe(Path(folder), max_steps=1))
        for turn in range(settings.turns):
            for n, clip in zip(tokens, CLIPS, strict=True):
                batch = noise_batch(*clip)
                own = Path(folder, f"{turn}_{n}")
                own.mkdir()
                raw[n] += by_hand(module, batch, settings.steps)
                whole[n] += in_trainer(own, batch, settings.steps)
    figures = []
    for n in tokens:
        alone, together = min(raw[n]), min(whole[n])
        figures += [
            Figure(f"{n} tokens, by hand", 1e3 * alone, "ms"),
            Figure(f"{n} tokens, in the Trainer", 1e3 * together, "ms", 1.05e3 * alone,
                   "limit: 5 % over the one by hand"),
        ]  # fmt: skip
    over = median(min(whole[n]) - min(raw[n]) for n in tokens)
    a, b = fitted(tokens, [min(raw[n]) for n in tokens])
    figures += [
        Figure("the Trainer over the one by hand, median of sizes", 1e3 * over, "ms"),
        Figure("a of t = a N + b N^2, by hand", 1e6 * a, "us per token"),
        Figure("b, by hand", 1e9 * b, "ns per token^2"),
    ]
    return figures, {"by_hand_s": raw, "in_trainer_s": whole}


OPTIONS = parser(
    __doc__, steps={"type": int, "default": 4, "help": "of each size and turn"}, turns=2
)
main = command_of("scaling", OPTIONS, measure)

if __name__ == "__main__":
    main()
