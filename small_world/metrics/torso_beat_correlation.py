"""Torso beat: does the torso go down on the beats of the music and up between them?

Most dances bounce: the torso sinks into every beat. Where a pose tells what is danced, this tells
whether it is danced to this music, beat phase included, from a curve instead of single moments.
"""

import math

import torch
from torch import Tensor

from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.rhythm import shifted_scores
from musicinfuser.errors import UserError
from musicinfuser.keyed_random import generator
from musicinfuser.setting_checks import check_number
from small_world.metrics.pose import PoseNet
from small_world.metrics.probes import ProbeError, ProbeMetric

TORSO = ("pelvis", "neck", "left_shoulder", "right_shoulder", "left_hip", "right_hip")
_TINY = 1e-12


def beat_position(times_seconds: Tensor, beats_seconds: Tensor) -> Tensor:
    """Where moments lie between beats, counted in beats from the first one.

    Whole on a beat, linear between two, and continued with the nearest interval before the first
    and after the last. Takes moments, shape (T,), and ascending beats, shape (..., M), to float64
    (..., T); `UserError` for fewer than two beats or two that fall together.
    """
    if beats_seconds.shape[-1] < 2:
        raise UserError(
            f"{beats_seconds.shape[-1]} beats within the clip have no phase; at least 2 are needed."
        )
    beats = beats_seconds.double().contiguous()
    if not (beats.diff(dim=-1) > 0).all():
        raise UserError("Beats that fall together or run backwards have no phase; sort them.")
    times = times_seconds.double().expand(*beats.shape[:-1], -1).contiguous()
    last = beats.shape[-1] - 2
    before = (torch.searchsorted(beats, times, right=True) - 1).clamp(0, last)
    start, end = beats.gather(-1, before), beats.gather(-1, before + 1)
    return before + (times - start) / (end - start)


def beat_correlation(
    curve: Tensor, position: Tensor, *, without_two_beat_swing: bool = True
) -> Tensor:
    """Pearson correlation of a curve with the cosine of the beat phase.

    Args:
        curve: Any curve over the clip, shape (T,).
        position: Place in the music in beats, shape (..., T).
        without_two_beat_swing: Take out of both what a straight line and one swing in two beats
            explain, in whatever phase: a partial correlation. Steps lead from a low pose on one
            beat to a high one on the next, and that swing, several times as large as the bounce,
            hides it.

    Returns:
        In [-1, 1], float64, shape (...): 1 if the curve peaks on every beat; 0 for a curve without
        anything left to correlate.
    """
    position = position.double()
    bounce = torch.cos(2 * math.pi * position)
    explained = [torch.ones_like(position)]
    if without_two_beat_swing:
        line = torch.linspace(-1, 1, len(curve), dtype=torch.float64).expand_as(position)
        half = math.pi * position
        explained += [line, torch.cos(half), torch.sin(half)]
    basis = torch.linalg.qr(torch.stack(explained, dim=-1)).Q
    both = torch.stack([curve.double().expand_as(bounce), bounce], dim=-1)
    left = both - basis @ (basis.mT @ both)
    norms, scale = left.norm(dim=-2), both.norm(dim=-2)
    product = left.prod(dim=-1).sum(dim=-1) / norms.prod(dim=-1).clamp_min(_TINY**2)
    is_flat = (norms <= 1e-9 * scale.clamp_min(_TINY)).any(dim=-1)
    return torch.where(is_flat, torch.zeros_like(product), product.clamp(-1, 1))


class TorsoBeatCorrelation(ProbeMetric):
    """Correlation of a lone dancer's torso height with the beat phase, and its chance level.

    The torso's place in the picture counts from the top, so sinking on the beat is positive, as the
    dancers of the small world do. On their true joints the mean is 0.91 (clips of 73 frames); it
    would be 0.35 without taking out the swing of two beats, see `beat_correlation`.

    Values per clip, of which `compute` gives the means:
        correlation: In [-1, 1]; 0 for a torso that does not move.
        chance: Mean over circular shifts of the music beats.

    Args:
        weights: Folder of a `PoseNet` that knows pelvis, neck, shoulders and hips.
        without_two_beat_swing: As in `beat_correlation`.
        num_shifts: Circular shifts per clip, 1 or more.
    """

    value_names = ("correlation", "chance")

    def __init__(
        self,
        *,
        weights: str,
        without_two_beat_swing: bool = True,
        num_shifts: int = 1000,
        name: str = "torso_beat_correlation",
    ) -> None:
        network = PoseNet.load(weights)
        super().__init__(network, weights=weights, name=name)
        check_number("num_shifts", num_shifts, at_least=1, hint=", for a chance level")
        self.without_two_beat_swing, self.num_shifts = without_two_beat_swing, num_shifts
        missing = sorted(set(TORSO) - set(network.joint_names))
        if missing:
            raise ProbeError(f"{weights}: knows no {', '.join(missing)}; train the probe again.")
        self._torso = [network.joint_names.index(name) for name in TORSO]

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """The values; `UserError` with fewer than two music beats, or if they cannot be had."""
        beats = clip.music_beats().double()
        if len(beats) < 2:
            raise UserError(
                f"{clip.name}: holds {len(beats)} music beats; a beat phase needs at least 2."
            )
        times = torch.arange(len(clip.frames), dtype=torch.float64) / clip.fps
        # Below the top edge, in picture heights.
        torso = self._networks[0].read(clip.frames)[:, self._torso, 1].double().mean(dim=1)

        def score(times: Tensor, beats: Tensor) -> Tensor:
            position = beat_position(times, beats.sort(dim=-1).values)
            swing = self.without_two_beat_swing
            return beat_correlation(torso, position, without_two_beat_swing=swing)

        chance = shifted_scores(
            score,
            times,
            beats,
            duration_seconds=clip.duration_seconds,
            stream=generator(clip.seed, clip.name, "beat shift"),
            num_shifts=self.num_shifts,
        )
        return {"correlation": float(score(times, beats)), "chance": float(chance.mean())}
