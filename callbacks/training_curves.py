"""TrainingCurves: the loss by noise level and by source, and the size of the gradients."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from lightning_modules.logged_steps import is_logged, log_numbers
from musicinfuser.errors import UserError
from musicinfuser.number_names import decimal_names


class TrainingCurves(L.Callback):
    """Logs what the loss of single steps hides.

    ``train/loss_sigma_0.25_0.50`` and so on: the mean loss of the samples whose noise level is at
    least 0.25 and below 0.50. ``train/loss_<source>``: that of a source's samples. Both are means
    over all samples of all processes since the last log (or since the run was resumed); a band or
    source without a sample is left out. ``train/grad_norm`` and ``train/grad_norm_<part>``: the
    length of the gradient before clipping, all of it and of each part that the module names, as a
    mean over those steps; ``train/grad_norm_max`` is the longest of them.

    The device is waited for only at the logging interval; a step costs the lengths of the
    gradients and nothing else. Nothing a run computes depends on it.
    """

    def __init__(self, sigma_edges: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)) -> None:
        """Choose the bands.

        Args:
            sigma_edges: Where bands of noise levels begin and end, rising from 0 to 1.
        """
        edges = tuple(sigma_edges)
        is_rising = all(low < high for low, high in zip(edges, edges[1:], strict=False))
        if len(edges) < 2 or edges[0] != 0 or edges[-1] != 1 or not is_rising:
            raise UserError(
                f"TrainingCurves.sigma_edges is {list(edges)}; give numbers that rise from 0 to 1."
            )
        self.sigma_edges = edges

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put empty sums on the device."""
        ratio: dict[str, int] = getattr(getattr(trainer, "datamodule", None), "ratio", {})
        self._sources = [source for source, share in ratio.items() if share]
        names = decimal_names(self.sigma_edges)
        bands = zip(names, names[1:], strict=False)
        self._groups = [f"sigma_{low}_{high}" for low, high in bands] + self._sources
        parts: dict[str, list[nn.Parameter]] = getattr(pl_module, "trained_parts", dict)()
        named = {p for own in parts.values() for p in own}
        rest = [p for p in pl_module.parameters() if p.requires_grad and p not in named]
        self._names = ["", *(f"_{name}" for name in parts), "_max"]
        self._parts = [*parts.values(), rest]
        # Since the last log: per batch losses, noise levels and indices; per step lengths by part.
        self._batches: list[tuple[Tensor, Tensor, Sequence[int]]] = []
        self._lengths: list[Tensor] = []

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Add the lengths of the gradients; those of skipped steps are not there any more."""
        grads = [[p.grad for p in own if p.grad is not None] for own in self._parts]
        if any(grads):
            none = torch.zeros((), device=pl_module.device)
            lengths = [get_total_norm(own).float() if own else none for own in grads]
            self._lengths.append(torch.stack(lengths))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Note the losses; log at the interval."""
        if isinstance(outputs, Mapping) and {"losses", "sigma"} <= outputs.keys():
            self._batches.append((outputs["losses"], outputs["sigma"], batch.sample_index))
        if is_logged(trainer):
            log_numbers(trainer, self._numbers(trainer, pl_module.device))
        if is_logged(trainer) or not trainer.log_every_n_steps:  # type: ignore[attr-defined]
            self._batches, self._lengths = [], []

    def _numbers(self, trainer: L.Trainer, device: torch.device) -> dict[str, float]:
        """What is logged, by name."""
        losses = trainer.strategy.reduce(self._sums(trainer, device), reduce_op="sum")
        values = [losses.flatten()]
        if self._lengths:
            # Gradients are the same in all processes.
            own = torch.stack(self._lengths)
            total = torch.linalg.vector_norm(own, dim=1)
            values += [total.mean()[None], own[:, :-1].mean(dim=0), total.max()[None]]
        # The only time the device is waited for:
        numbers, num = torch.cat(values).tolist(), len(self._groups)
        sums, counts, lengths = numbers[:num], numbers[num : 2 * num], numbers[2 * num :]
        found = {
            f"train/loss_{name}": loss / count
            for name, loss, count in zip(self._groups, sums, counts, strict=True)
            if count
        }
        if lengths:
            names = (f"train/grad_norm{name}" for name in self._names)
            found |= dict(zip(names, lengths, strict=True))
        return found

    def _sums(self, trainer: L.Trainer, device: torch.device) -> Tensor:
        """Sums of losses and numbers of samples, ``(2, bands and sources)``."""
        if not self._batches:
            return torch.zeros(2, len(self._groups), device=device)
        noted_losses, noted_sigma, noted_indices = zip(*self._batches, strict=True)
        losses, sigma = torch.cat(noted_losses)[:, None], torch.cat(noted_sigma)[:, None]
        lows = torch.tensor(self.sigma_edges[:-1], device=device)
        # A level of exactly 1 belongs to the last band.
        highs = torch.tensor([*self.sigma_edges[1:-1], float("inf")], device=device)
        of_sources = torch.zeros(len(losses), len(self._sources), dtype=torch.bool)
        if self._sources:
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            for row, index in enumerate(chain(*noted_indices)):
                of_sources[row, self._sources.index(data.mixture[index].source)] = True
        of_sources = of_sources.to(device, non_blocking=True)
        members = torch.cat([(sigma >= lows) & (sigma < highs), of_sources], dim=1)
        return torch.stack([torch.where(members, losses, 0.0).sum(dim=0), members.sum(dim=0)])
