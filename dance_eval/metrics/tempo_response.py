"""Tempo response: does the dance speed up as much as its music?

The paper plays its music at other speeds (fig. 7). Here the same request (track, prompt and seed)
is generated with the track at 0.75, 1 and 1.25 times its tempo, and the dominant frequency of the
motion is compared with that of the clip at the track's own tempo: 1 is a dance that follows.
"""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch

from dance_eval.metrics.clip import (
    Descriptions,
    Labels,
    MotionCurve,
    ScoredClip,
    SetMetric,
    Summary,
    count,
    label,
)
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.intervals import MeanInterval, bootstrap_mean, bootstrap_median
from dance_eval.metrics.matching import Sound, name_of, sound_of, told_apart
from dance_eval.metrics.motion_frequency import DEFAULT_BAND_HZ, MotionFrequency
from dance_eval.metrics.music_beats import place_of, tempo_of, without_tempo
from musicinfuser.errors import UserError
from musicinfuser.number_names import exact_name

SYSTEM_MARK = re.compile(r" at tempo \d+(?:\.\d+)?$")
_MILLIONTHS = 1_000_000
TOLERANCE = 0.1


@dataclass(frozen=True)
class TempoClip:
    """One clip of a tempo experiment."""

    hertz: float
    """Dominant frequency of its motion; 0 for a still clip."""
    tempo: float
    """Its music's tempo over the track's own."""
    group: Hashable
    """What clips at all tempi have in common; the unit that is resampled."""
    run: Hashable = None
    """Tells clips of one group and tempo apart, such as those of several trainings."""


def tempo_ratios(
    clips: Sequence[TempoClip], *, tempo: float
) -> tuple[dict[Hashable, list[float]], int]:
    """Frequency at another tempo over that at the track's own, over the tempo.

    A clip's partner is the clip of its group and run at tempo 1; where no run fits, the only clip
    of the group at tempo 1.

    Returns:
        The ratios by group, 1 where the dance follows the tempo, and how many clips at this tempo
        have none, because their partner is missing or one of the two stands still.
    """
    by_run = {(clip.group, clip.run): clip for clip in clips if clip.tempo == 1}
    by_group: dict[Hashable, list[TempoClip]] = {}
    for clip in by_run.values():
        by_group.setdefault(clip.group, []).append(clip)
    ratios: dict[Hashable, list[float]] = {}
    num_without = 0
    for clip in clips:
        if clip.tempo != tempo:
            continue
        of_group = by_group.get(clip.group, [])
        own = by_run.get((clip.group, clip.run), of_group[0] if len(of_group) == 1 else None)
        if own is None or not own.hertz or not clip.hertz:
            num_without += 1
        else:
            ratios.setdefault(clip.group, []).append(clip.hertz / own.hertz / tempo)
    return ratios, num_without


def tempo_response(
    ratios: Sequence[Sequence[float]], *, seed: int, name: str, confidence: float = 0.95
) -> tuple[MeanInterval, MeanInterval]:
    """Median of the ratios and the share of them within 10 % of 1.

    Ratios are by group, as `tempo_ratios` gives them, and groups are resampled as a whole; the
    share is the mean over groups of each group's. Other arguments as in `bootstrap_mean`.
    """
    within = [fmean(abs(ratio - 1) <= TOLERANCE for ratio in group) for group in ratios if group]
    return (
        bootstrap_median(ratios, seed=seed, name=name, confidence=confidence),
        bootstrap_mean(within, seed=seed, name=name, confidence=confidence),
    )


def _untimed(entry: ClipEntry) -> tuple[Sound, float]:
    """What a clip dances to, as if it were played at its own tempo, and the factor of the tempo."""
    named = entry.heard or entry.track
    place = place_of(entry, named)
    _, tempo = tempo_of(place)
    sound, name = sound_of(entry, named), without_tempo(name_of(entry, str(place)))
    digest = sound.digest if tempo == 1 else None
    return replace(sound, source=(sound.source, tempo), digest=digest, name=name), tempo


def _names(tempo: float) -> list[str]:
    values = ("median_ratio", "within_10_percent", "num_without_ratio")
    return [f"{value}_x{exact_name(tempo)}" for value in values]


class TempoResponse(SetMetric):
    """How the motion of a system follows music at other tempi.

    Clips belong to one group if they share the piece of music, where they start in it, prompt and
    seed. A track at another tempo is known by its path without the tempo (`told_apart`). The factor
    of the tempo is read from that path, see `tempo_of`. Systems that are called ``<name> at tempo
    <factor>`` count as ``<name>``.

    Values, for each factor F:
        median_ratio_xF: Median over clips of frequency at F over frequency at 1, over F.
        within_10_percent_xF: Share of ratios from 0.9 to 1.1.
        num_without_ratio_xF: Clips that have no partner at tempo 1 or stand still.

    Args:
        tempi: The factors, positive and not 1.
        motion: The motion curve; None takes the difference of frames.
        lowest_hz: Lower end of the band that is searched for the dominant frequency.
        highest_hz: Upper end.
    """

    combining = frozenset({"tempi"})

    def __init__(
        self,
        *,
        tempi: list[float] | None = None,
        motion: MotionCurve | None = None,
        lowest_hz: float = DEFAULT_BAND_HZ[0],
        highest_hz: float = DEFAULT_BAND_HZ[1],
        name: str = "tempo_response",
    ) -> None:
        self._frequency = MotionFrequency(motion=motion, lowest_hz=lowest_hz, highest_hz=highest_hz)
        super().__init__(name=name, part=self._frequency)
        self.tempi = [0.75, 1.25] if tempi is None else tempi
        if any(tempo <= 0 or tempo == 1 for tempo in self.tempi):
            raise UserError(f"tempi is {self.tempi}; give positive factors other than 1.")
        self.value_names = tuple(name for tempo in self.tempi for name in _names(tempo))
        self._names: dict[Sound, str] = {}

    def prepare(self, entries: Sequence[ClipEntry], *, seed: int) -> None:
        """See which tracks are one piece at several tempi."""
        self._names = told_apart(_untimed(entry)[0] for entry in entries)

    def describe(self, clip: ScoredClip) -> torch.Tensor:
        """Dominant frequency in Hz, shape (1,)."""
        return torch.tensor([self._frequency.score_clip(clip)["hertz"]], dtype=torch.float64)

    def labels_of(self, entry: ClipEntry, *, system: str) -> tuple[int, ...] | None:
        """Group, run (the folder without a tempo) and tempo in millionths."""
        if SYSTEM_MARK.sub("", entry.system) != system:
            return None
        sound, tempo = _untimed(entry)
        name = self._names.get(sound, "/".join(sound.name))
        # The same moment of a piece comes earlier where it is played faster.
        start = round(entry.track_offset_seconds * tempo, 1)
        group = label(name, start, entry.prompt, entry.seed)
        run = label(*without_tempo(entry.folder.resolve().parts))
        return group, run, round(tempo * _MILLIONTHS)

    def combine(
        self, descriptions: Descriptions, labels: Labels, *, seed: int = 0, confidence: float = 0.95
    ) -> Summary:
        """Median, share and count for each tempo."""
        clips = [
            TempoClip(float(hertz), tempo / _MILLIONTHS, group, run)
            for hertz, (group, run, tempo) in zip(descriptions, labels, strict=True)
        ]
        summary: Summary = {}
        for tempo in self.tempi:
            ratios, num_without = tempo_ratios(clips, tempo=tempo)
            middle, within = tempo_response(
                list(ratios.values()),
                seed=seed,
                name=f"{self.name} x{exact_name(tempo)}",
                confidence=confidence,
            )
            without = count(num_without, out_of=sum(clip.tempo == tempo for clip in clips))
            summary |= zip(_names(tempo), (middle, within, without), strict=True)
        return summary
