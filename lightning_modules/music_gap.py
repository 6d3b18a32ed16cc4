"""MusicGap: how much worse other music makes the prediction of a clip, with its interval."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from dance_eval.metrics.intervals import bootstrap_mean

GAP_KEY = "musicinfuser_music_gap"
IGNORED_AUDIO = (
    "after {step} steps, another clip's music changes the validation loss by {gap}: the model "
    "hardly follows audio, if at all; try zica.positions: aligned, a zica.frame_window or "
    "data.music_dropout, or go on (validation.warn_ignored_audio_after: null is silent)."
)
# The small world's runs that learned nothing from audio had gaps of 0.03 % in all three seeds,
# which an interval may tell from 0; those that listen, 19 % (results/zica_time.json).
LEAST_GAP = 0.001


class MusicGap:
    """The losses of each validation clip with its own music and with another clip's.

    The gap is mean(other - own) / mean(own). Its 95 % bootstrap interval is over clips, which are
    resampled in pairs; the mean below is that of all clips.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[Sequence[int], Tensor]] = []

    def update(self, clips: Sequence[int], losses: Sequence[Tensor]) -> None:
        """Note a batch: the clips' indices; ``(B,)`` losses, own music and other's in turn."""
        own, other = (torch.stack(list(losses[turn::2])).mean(dim=0) for turn in (0, 1))
        self._rows.append((clips, torch.stack([own, other, torch.ones_like(own)])))

    def compute(self, strategy: Strategy, *, num_clips: int, seed: int) -> dict[str, Any] | None:
        """Gap, ``low`` and ``high`` as shares of the loss; the same in all processes.

        Args:
            strategy: Adds up what each process noted.
            num_clips: Of all processes together.
            seed: The run's, for the resamples.

        Returns:
            None where there are no two clips, or a loss is not finite.
        """
        device = self._rows[0][1].device
        sums = torch.zeros(3, num_clips, device=device)
        for clips, rows in self._rows:
            sums[:, list(clips)] += rows
        own, other, count = strategy.reduce(sums, reduce_op="sum").cpu()
        own, other = own[count > 0].double(), other[count > 0].double()
        found = (other - own) / own.mean()
        if len(found) < 2 or not found.isfinite().all():
            return None
        gap = bootstrap_mean(found.tolist(), seed=seed, name="val/music_gap")
        return {"gap": gap.mean, "low": gap.low, "high": gap.high, "num_clips": gap.num_values}


def gap_text(found: dict[str, Any]) -> str:
    """In percent: ``0.02 % [-0.01, 0.05] (20 clips)``."""
    gap, low, high = (100 * found[name] for name in ("gap", "low", "high"))
    return f"{gap:.2f} % [{low:.2f}, {high:.2f}] ({found['num_clips']} clips)"
