"""A clip as metrics see it, and what a metric is."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
import torchmetrics

from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.motion import MotionCurve, frame_difference
from dance_eval.metrics.music_beats import beats_in_clip, track_beats
from musicinfuser.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class ScoredClip:
    """One decoded clip with everything a metric may ask about it.

    Attributes:
        frames: uint8 RGB in [0, 255], shape (T, H, W, 3).
        fps: Frame rate.
        waveform: float32 mono in [-1, 1] from the first frame on, shape (S,), or None for a silent
            file.
        rate_hz: Sample rate of the waveform.
        name: Keys the random draws for this clip; give the versions of one clip by several systems
            the same name and they are compared on the same draws.
        seed: The evaluation's seed.
        beats_seconds: Known or tracked music beats on the clip's clock, or a function that finds
            them when first needed. None tracks them in the waveform.
        prompt: The text that the clip was asked to show, where it is known.
        path: The file, where there is one.
        track: The music as the list of clips names it.
        music_bpm: Gives the tempo of the beats that were read, None before; or None.
    """

    frames: torch.Tensor
    fps: float
    waveform: torch.Tensor | None
    rate_hz: int
    name: str
    seed: int
    beats_seconds: torch.Tensor | Callable[[], torch.Tensor] | None = None
    prompt: str | None = None
    path: Path | None = None
    track: str | None = None
    music_bpm: Callable[[], float | None] | None = None
    _remembered: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def duration_seconds(self) -> float:
        """Length of the picture."""
        return len(self.frames) / self.fps

    @property
    def known_prompt(self) -> str:
        """The prompt.

        Raises:
            ValueError: If it is not known.
        """
        if self.prompt is None:
            raise UserError(
                f"{self.name}: has no prompt to compare with; name it in the column prompt of "
                "clips.csv."
            )
        return self.prompt

    def music_beats(self) -> torch.Tensor:
        """Music beats in [0, duration_seconds), float64, shape (num_beats,).

        Raises:
            ValueError: If no beats were given and the clip is silent, or they cannot be found.
        """
        if callable(self.beats_seconds):
            beats = self.beats_seconds()
        elif self.beats_seconds is not None:
            beats = self.beats_seconds
        elif self.waveform is not None:
            beats = track_beats(self.waveform, rate_hz=self.rate_hz)
        else:
            raise UserError(f"{self.name}: has no soundtrack to find beats in.")
        return beats_in_clip(beats, duration_seconds=self.duration_seconds)

    def motion_curve(self, motion: MotionCurve | None = None) -> torch.Tensor:
        """How much moves from frame to frame, float64, shape (T - 1,); None: frame difference."""
        if motion is None:
            return self.remembered("frame difference", lambda: frame_difference(self.frames))
        return self.remembered(("motion", motion), lambda: motion.of_clip(self))

    def remembered(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What several metrics need of a clip, such as its optical flow, computed once.

        Args:
            key: Names what is computed with all its settings.
            compute: Gives it.
        """
        if key not in self._remembered:
            self._remembered[key] = compute()
        value: T = self._remembered[key]
        return value


class NamedMetric(torchmetrics.Metric):
    """What a config of `evaluate.py score` may list: a `ClipMetric` or a `SetMetric`.

    Args:
        name: Name in tables and in metrics.json.

    Attributes:
        in_workers: Whether copies of the metric may score in other processes. A metric that holds
            a network on a GPU, or counts something over clips, says no and scores in the main
            process.
    """

    full_state_update = False
    in_workers: bool = True

    def __init__(self, *, name: str) -> None:
        super().__init__()
        self.name = name

    def fingerprints(self) -> dict[str, str]:
        """Hashes of files that values depend on, such as weights, by what they are for."""
        return {}

    def files_of(self, path: Path) -> Sequence[Path]:
        """Further files that the values of the clip at ``path`` depend on, such as its joints."""
        return ()

    def prepare(self, entries: Sequence[ClipEntry], *, seed: int) -> None:
        """Hear of all clips of a run before anything else."""

    def check(self) -> None:
        """See, before the first clip is decoded, what clips are scored with; ValueError if amiss.

        Called where there is a clip to score.
        """

    def clip_key(self, entry: ClipEntry) -> Any:
        """What one clip's values depend on besides the clip and the settings, as JSON."""
        return None

    def findings(
        self, records: Sequence[dict[str, Any]], *, seed: int, confidence: float
    ) -> dict[str, Any] | None:
        """What all clips together say beyond averages.

        Args:
            records: The clips as they stand in metrics.json.
            seed: The evaluation's.
            confidence: Of intervals.

        Returns:
            JSON values, with sentences to print under ``"printed"``; None if there is nothing.
        """
        return None


class ClipMetric(NamedMetric):
    """A metric that scores clips one by one and averages over them.

    A subclass sets `value_names` and implements `score_clip`; accumulation, averaging and
    synchronisation over processes are done here. Values named in `optional_names` may be absent for
    a clip; they are averaged over the clips that have them. The values of a clip that has one of
    `provisional_names` are not taken over by the next command, which scores it again.

    Args:
        name: Name in tables and in metrics.json.
    """

    value_names: ClassVar[tuple[str, ...]]
    optional_names: ClassVar[frozenset[str]] = frozenset()
    provisional_names: ClassVar[frozenset[str]] = frozenset()
    sums: torch.Tensor
    num_values: torch.Tensor

    def __init__(self, *, name: str) -> None:
        super().__init__(name=name)
        self.add_state("sums", torch.zeros(len(self.value_names)), dist_reduce_fx="sum")
        self.add_state("num_values", torch.zeros(len(self.value_names)), dist_reduce_fx="sum")

    @abstractmethod
    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """Values of one clip, keyed by `value_names`; ValueError if the clip cannot be scored."""

    @classmethod
    def is_complete(cls, values: Collection[str]) -> bool:
        """Whether these are the names of one clip's values: all but the optional ones."""
        names = set(cls.value_names)
        return names - cls.optional_names <= set(values) <= names

    @classmethod
    def is_final(cls, values: Collection[str]) -> bool:
        """Whether a clip with these values need not be scored again."""
        return cls.is_complete(values) and cls.provisional_names.isdisjoint(values)

    def update(self, clip: ScoredClip) -> None:
        """Add one clip to the averages."""
        values = self.score_clip(clip)
        self.sums += torch.tensor([values.get(name, 0.0) for name in self.value_names]).to(
            self.sums
        )
        self.num_values += torch.tensor([name in values for name in self.value_names]).to(
            self.num_values
        )

    def compute(self) -> dict[str, torch.Tensor]:
        """Mean of each of `value_names` over the clips that have it; NaN where none has."""
        return dict(zip(self.value_names, self.sums / self.num_values, strict=True))
