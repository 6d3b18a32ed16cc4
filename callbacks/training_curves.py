"""TrainingCurves: the loss by noise level and by source, and the size of the gradients."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from callbacks.log_interval import is_logged
from musicinfuser.errors import UserError
from musicinfuser.number_names import decimal_names

if TYPE_CHECKING:
    from datamodules.dance import DanceDataModule

# Batches or steps that are added up at the latest, so that small tensors do not pile up.
MOST_NOTED = 100


class TrainingCurves(L.Callback):
    """Logs what the loss of single steps hides.

    ``train/loss_sigma_0.25_0.50`` and so on: the mean loss of the samples whose noise level is at
    least 0.25 and below 0.50. ``train/loss_<source>``: that of a source's samples. Both are means
    over all samples of all processes since the last log (or since the run was resumed); a band or
    source without a sample is left out. ``train/grad_norm`` and ``train/grad_norm_<part>``: the
    length of the gradient before clipping, all of it and of each part that the module names, as a
    mean over those steps; ``train/grad_norm_max`` is the longest of them.

    Everything stays on the device, which is asked only at the logging interval; a step costs the
    lengths of the gradients and nothing else. Nothing a run computes depends on it.
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
        data: DanceDataModule | None = getattr(trainer, "datamodule", None)
        ratio: dict[str, int] = getattr(data, "ratio", {})
        self._sources = [source for source, share in ratio.items() if share]
        names = decimal_names(self.sigma_edges)
        bands = zip(names, names[1:], strict=False)
        self._groups = [f"sigma_{low}_{high}" for low, high in bands] + self._sources
        parts: dict[str, list[nn.Parameter]] = getattr(pl_module, "trained_parts", dict)()
        named = {p for own in parts.values() for p in own}
        rest = [p for p in pl_module.parameters() if p.requires_grad and p not in named]
        self._names = ["", *(f"_{name}" for name in parts)]
        self._parts = [*parts.values(), rest]
        device = pl_module.device
        self._lows = torch.tensor(self.sigma_edges[:-1], device=device)
        # A level of exactly 1 belongs to the last band.
        self._highs = torch.tensor([*self.sigma_edges[1:-1], float("inf")], device=device)
        self._losses = torch.zeros(2, len(self._groups), device=device)
        """Sums and numbers of the samples in each group."""
        self._norms = torch.zeros(len(self._names) + 1, device=device)
        """Sums over steps, and the largest of the first."""
        self._num_norms = 0
        # Not summed up yet: per batch losses, noise levels and indices; per step lengths by part.
        self._batches: list[tuple[Tensor, Tensor, Sequence[int]]] = []
        self._lengths: list[Tensor] = []

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Add the lengths of the gradients; those of skipped steps are not there any more."""
        grads = [[p.grad for p in own if p.grad is not None] for own in self._parts]
        if any(grads):
            none = self._norms.new_zeros(())
            lengths = [get_total_norm(own).float() if own else none for own in grads]
            self._lengths.append(torch.stack(lengths))

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Note the losses; log at the interval."""
        if isinstance(outputs, Mapping) and {"losses", "sigma"} <= outputs.keys():
            self._batches.append((outputs["losses"], outputs["sigma"], batch.sample_index))
        if is_logged(trainer, batch_idx):
            self._add_up(trainer)
            self._log(trainer, pl_module)
        elif len(self._batches) >= MOST_NOTED or len(self._lengths) >= MOST_NOTED:
            self._add_up(trainer)

    def _add_up(self, trainer: L.Trainer) -> None:
        """Add what was noted to the sums, on the device."""
        if self._batches:
            losses = torch.cat([noted[0] for noted in self._batches])
            sigma = torch.cat([noted[1] for noted in self._batches])
            indices = [index for noted in self._batches for index in noted[2]]
            members = torch.cat([self._in_bands(sigma), self._of_sources(trainer, indices)], dim=1)
            self._losses[0] += torch.where(members, losses[:, None], 0.0).sum(dim=0)
            self._losses[1] += members.sum(dim=0)
        if self._lengths:
            own = torch.stack(self._lengths)
            whole = torch.linalg.vector_norm(own, dim=1)
            self._norms[0] += whole.sum()
            self._norms[1:-1] += own[:, :-1].sum(dim=0)
            self._norms[-1] = torch.maximum(self._norms[-1], whole.max())
            self._num_norms += len(self._lengths)
        self._batches, self._lengths = [], []

    def _in_bands(self, sigma: Tensor) -> Tensor:
        """Whether samples ``(B,)`` are in bands: ``(B, bands)``."""
        return (sigma[:, None] >= self._lows) & (sigma[:, None] < self._highs)

    def _of_sources(self, trainer: L.Trainer, indices: Sequence[int]) -> Tensor:
        """Whether samples are of sources: ``(B, sources)``; known on the host."""
        members = torch.zeros(len(indices), len(self._sources), dtype=torch.bool)
        if self._sources:
            data: DanceDataModule = trainer.datamodule  # type: ignore[attr-defined]
            for row, index in enumerate(indices):
                members[row, self._sources.index(data.mixture[index].source)] = True
        return members.to(self._losses.device, non_blocking=True)

    def _log(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        losses = trainer.strategy.reduce(self._losses, reduce_op="sum")
        # Gradients are the same in all processes. The only time the device is waited for:
        *values, longest = torch.cat([losses.flatten(), self._norms]).tolist()
        sums, counts, lengths = (
            values[: len(self._groups)],
            values[len(self._groups) : 2 * len(self._groups)],
            values[2 * len(self._groups) :],
        )
        for name, total, count in zip(self._groups, sums, counts, strict=True):
            if count:
                pl_module.log(f"train/loss_{name}", total / count)
        if self._num_norms:
            for name, total in zip(self._names, lengths, strict=True):
                pl_module.log(f"train/grad_norm{name}", total / self._num_norms)
            pl_module.log("train/grad_norm_max", longest)
        self._losses.zero_()
        self._norms.zero_()
        self._num_norms = 0
