"""Validation: losses at fixed noise levels with a clip's own music and with another clip's.

How much worse the other music makes the prediction is the music gap. Where training gives first
frames to some samples, all is measured once more with them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import MeanMetric

from dance_eval.metrics.intervals import bootstrap_mean
from datamodules.batch import ClipBatch
from lightning_modules.settings import ValidationSpec

GAP_KEY = "musicinfuser_music_gap"
IGNORED_AUDIO = (
    "after {step} steps, another clip's music changes the validation loss by {gap}: the model "
    "hardly follows audio, if at all; try zica.positions: aligned, a zica.frame_window or "
    "data.music_dropout, or go on (validation.warn_ignored_audio_after: null is silent)."
)
# The small world's runs that learned nothing from audio had gaps of 0.03 % in all three seeds,
# which an interval may tell from 0; those that listen, 19 % (results/zica_time.json).
LEAST_GAP = 0.001


class Validation(nn.Module):
    """Measures one validation after another: `start`, `update` with each batch, `compute`.

    A module, so that its means lie on the device; they have no place in a state dict.

    Attributes:
        last_gap: What the last validation found, with its step; checkpoints keep it.
    """

    def __init__(self, spec: ValidationSpec, *, gives_first: bool) -> None:
        """Set up.

        Args:
            spec: Noise levels, and when to speak up.
            gives_first: Whether training gives first frames to some samples.
        """
        super().__init__()
        self.spec = spec
        self._first_frames = (False, True) if gives_first else (False,)
        num_means = 2 * len(spec.sigmas) * len(self._first_frames)
        self.means = nn.ModuleList(MeanMetric() for _ in range(num_means))
        """Of each level own music and other in turn; first without given frames, then with them."""
        self._music_gap = MusicGap()
        self.last_gap: dict[str, Any] | None = None
        self._has_warned = False

    def start(self) -> None:
        """Forget the validation before, also one that was given up."""
        self._music_gap = MusicGap()
        for metric in self.means:
            metric.reset()  # type: ignore[operator]

    def update(self, batch: ClipBatch, losses_of: Callable[..., Tensor]) -> None:
        """Measure a batch.

        Args:
            batch: Encoded clips, with other music too.
            losses_of: Gives ``(B,)`` losses as `MusicInfuserModule.velocity_losses` does.
        """
        means, noted = iter(self.means), []
        device = batch.latent_mean.device
        for is_given in self._first_frames:
            first = torch.ones(len(batch), dtype=torch.bool, device=device) if is_given else None
            for level in self.spec.sigmas:
                sigma = torch.full((len(batch),), level, device=device)
                for audio in (batch.audio, batch.other_audio):
                    losses = losses_of(
                        batch, sigma, audio=audio, purpose=f"validation {level}", first_given=first
                    )
                    next(means).update(losses)  # type: ignore[operator]
                    if not is_given:
                        noted.append(losses)
        self._music_gap.update(batch.sample_index, noted)

    def compute(self, trainer: L.Trainer, *, seed: int) -> dict[str, Tensor | float]:
        """What is logged, by name; the same in all processes.

        Warns once of a run that has come far and hardly follows audio.

        Args:
            trainer: Has the clips, the step and how processes add up.
            seed: The run's, for the interval of the gap.
        """
        losses = [metric.compute() for metric in self.means]  # type: ignore[operator]
        logged: dict[str, Tensor | float] = {}
        num_losses = 2 * len(self.spec.sigmas)
        for is_given in self._first_frames:
            found, losses = losses[:num_losses], losses[num_losses:]
            logged |= self._named(found, "_first_frame" if is_given else "")
        clips = trainer.datamodule.validation_clips  # type: ignore[attr-defined]
        gap = self._music_gap.compute(trainer.strategy, num_clips=len(clips), seed=seed)
        if gap is not None:
            logged |= {f"val/music_gap_{end}": gap[end] for end in ("low", "high")}
            self.last_gap = gap | {"step": trainer.global_step}
            self._warn(trainer, gap)
        return logged

    def _named(self, losses: Sequence[Tensor], suffix: str) -> dict[str, Tensor | float]:
        """Losses and gaps by name, of each level's losses with own music and other in turn."""
        own, other = torch.stack(list(losses[::2])), torch.stack(list(losses[1::2]))
        of_levels = zip(self.spec.names, other / own - 1, strict=True)
        return {
            **{f"val/music_gap_sigma_{name}{suffix}": gap for name, gap in of_levels},
            f"val/loss{suffix}": own.mean(),
            f"val/loss_other_music{suffix}": other.mean(),
            f"val/music_gap{suffix}": other.mean() / own.mean() - 1,
        }

    def _warn(self, trainer: L.Trainer, gap: Mapping[str, Any]) -> None:
        """Say once that the run has come far and its model hardly follows audio, if so."""
        after, step = self.spec.warn_ignored_audio_after, trainer.global_step
        is_due = trainer.state.fn == "fit" and after is not None and step >= after
        if is_due and gap["low"] <= LEAST_GAP and not self._has_warned:
            self._has_warned = True
            rank_zero_warn(IGNORED_AUDIO.format(step=step, gap=gap_text(gap)))


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


def gap_text(found: Mapping[str, Any]) -> str:
    """In percent: ``0.02 % [-0.01, 0.05] (20 clips)``."""
    gap, low, high = (100 * found[name] for name in ("gap", "low", "high"))
    return f"{gap:.2f} % [{low:.2f}, {high:.2f}] ({found['num_clips']} clips)"
