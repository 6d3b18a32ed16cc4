"""A clip as metrics see it, what a metric is, and what metrics are built from."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
import torchmetrics

from dance_eval.metrics.beat_trackers import LibrosaBeats
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.intervals import MeanInterval
from dance_eval.metrics.matching import Pieces
from dance_eval.metrics.motion import frame_difference
from dance_eval.metrics.music_beats import MusicTempo, beats_in_clip
from musicinfuser.errors import UserError
from musicinfuser.keyed_random import key as draw_key

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class ScoredClip:
    """One decoded clip with everything that metrics use of it.

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
        prompt: The text that the clip was generated for, where it is known.
        path: The file, where there is one.
        track: The music as the list of clips names it.
        music_tempo: Gives the tempo of the beats that were read, None before; or None.
        image: The picture that the clip was made to begin with, where its list names one.
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
    music_tempo: Callable[[], MusicTempo | None] | None = None
    image: Path | None = None
    _remembered: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def duration_seconds(self) -> float:
        """Length of the picture."""
        return len(self.frames) / self.fps

    @property
    def known_prompt(self) -> str:
        """The prompt; `UserError` if it is not known."""
        if self.prompt is None:
            raise UserError(
                f"{self.name}: has no prompt to compare with; name it in the column prompt of "
                "clips.csv."
            )
        return self.prompt

    def music_beats(self) -> torch.Tensor:
        """Music beats in [0, duration_seconds), float64, shape (num_beats,); UserError without."""
        if callable(self.beats_seconds):
            beats = self.beats_seconds()
        elif self.beats_seconds is not None:
            beats = self.beats_seconds
        elif self.waveform is not None:
            beats = LibrosaBeats()(self.waveform, rate_hz=self.rate_hz).seconds
        else:
            raise UserError(f"{self.name}: has no soundtrack to find beats in.")
        return beats_in_clip(beats, duration_seconds=self.duration_seconds)

    def motion_curve(self, motion: "MotionCurve | None" = None) -> torch.Tensor:
        """How much moves from frame to frame, float64, shape (T - 1,); None: frame difference."""
        if motion is None:
            return self.remembered("frame difference", lambda: frame_difference(self.frames))
        return self.remembered(("motion", motion), lambda: motion.of_clip(self))

    def remembered(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What several metrics need of a clip, computed once per key, which names all settings."""
        if key not in self._remembered:
            self._remembered[key] = compute()
        value: T = self._remembered[key]
        return value


class MetricPart:
    """What values come from besides a clip: a motion curve, frame features, an encoder.

    Attributes:
        in_workers: Whether copies may compute in other processes; no for a network on a GPU.
    """

    in_workers: bool = True

    def fingerprints(self) -> dict[str, str]:
        """Hashes of files that values depend on, such as weights, by what they are for."""
        return {}

    def files_of(self, path: Path) -> Sequence[Path]:
        """Further files that the values of the clip at ``path`` depend on, such as its joints."""
        return ()


class NetworkPart(MetricPart):
    """A part with a network.

    Attributes:
        device: As torch names it; ``auto`` is the first GPU, or the CPU where there is none.
    """

    device: str

    @property
    def where(self) -> str:
        """The device, where it is ``auto`` the one that was found."""
        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return self.device

    @property
    def in_workers(self) -> bool:  # type: ignore[override]
        """Not on a GPU, which one process fills."""
        return torch.device(self.where).type == "cpu"


# A class, since a config may name any subclass; functions do as well where no config is read.
class MotionCurve(MetricPart, ABC):
    """How much moves from each frame of a clip to the next.

    Metrics whose curves are equal (`==`) share what is computed for a clip.
    """

    @abstractmethod
    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames, uint8 RGB of shape (T, H, W, 3), to a curve of shape (T - 1,), 0 at rest."""

    def of_clip(self, clip: ScoredClip) -> torch.Tensor:
        """The curve of a clip; a subclass may use more of it than its frames."""
        return self(clip.frames)


class NamedMetric(MetricPart):
    """What a config of `evaluate.py score` may list: a `ClipMetric` or a `SetMetric`.

    Its ``in_workers`` is False for a metric that counts something over clips, too. Constructors
    raise `UserError` for settings that are out of range and files that are not there.

    Args:
        name: Name in tables and in metrics.json; two instances in one table need two names.
        part: What it measures with, whose files and ``in_workers`` become its own.
    """

    combining: ClassVar[frozenset[str]] = frozenset()
    """Names of arguments that what is kept of a clip does not depend on."""

    def __init__(self, *, name: str, part: MetricPart | None = None) -> None:
        super().__init__()
        self.name = name
        self._part = part or MetricPart()
        if not self._part.in_workers:
            self.in_workers = False

    def fingerprints(self) -> dict[str, str]:
        """Those of what it measures with."""
        return self._part.fingerprints()

    def files_of(self, path: Path) -> Sequence[Path]:
        """Those of what it measures with."""
        return self._part.files_of(path)

    def prepare(self, entries: Sequence[ClipEntry], *, seed: int) -> None:
        """Called with all clips of a run before anything else."""

    def check(self) -> None:
        """See that clips can be scored, before the first is decoded; `UserError` if not.

        Called where there is a clip to score.
        """

    def clip_key(self, entry: ClipEntry) -> Any:
        """What one clip's values depend on besides the clip and the settings, as JSON."""
        return None

    def findings(
        self, records: Sequence[dict[str, Any]], *, seed: int, confidence: float
    ) -> dict[str, Any] | None:
        """What all clips (of metrics.json) together say beyond averages; None if nothing.

        Returns:
            JSON values, with sentences to print under ``"printed"``.
        """
        return None


class ClipMetric(NamedMetric, torchmetrics.Metric):
    """A metric that scores clips one by one and averages over them.

    A subclass sets `value_names` and implements `score_clip`; accumulation, averaging and
    synchronisation over processes are done here. Values named in `optional_names` may be absent for
    a clip; they are averaged over the clips that have them. The values of a clip that has one of
    `provisional_names` are not taken over by the next command, which scores it again.

    """

    full_state_update = False
    value_names: ClassVar[tuple[str, ...]]
    optional_names: ClassVar[frozenset[str]] = frozenset()
    provisional_names: ClassVar[frozenset[str]] = frozenset()
    sums: torch.Tensor
    num_values: torch.Tensor

    def __init__(self, *, name: str, part: MetricPart | None = None) -> None:
        super().__init__(name=name, part=part)
        for state in ("sums", "num_values"):
            self.add_state(state, torch.zeros(len(self.value_names)), dist_reduce_fx="sum")

    @abstractmethod
    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """Values of one clip by `value_names`; `UserError` if the clip cannot be scored."""

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
        self.sums += self.sums.new_tensor([values.get(name, 0.0) for name in self.value_names])
        self.num_values += self.sums.new_tensor([name in values for name in self.value_names])

    def compute(self) -> dict[str, torch.Tensor]:
        """Mean of each of `value_names` over the clips that have it; NaN where none has."""
        return dict(zip(self.value_names, self.sums / self.num_values, strict=True))


Descriptions = Sequence[torch.Tensor]
"""Of each clip of a set, as `SetMetric.describe` gives them."""
Labels = Sequence[tuple[int, ...]]
"""Of each clip of a set, as `SetMetric.labels_of` gives them."""
Summary = dict[str, MeanInterval]


def label(*parts: object) -> int:
    """A number of 63 bits for what a clip belongs to; equal parts give equal numbers."""
    return draw_key(0, repr(parts), "label")


class SetMetric(NamedMetric, ABC):
    """A metric over the clips of a system, over groups of them, or against a reference.

    Every clip is described once by numbers of its own, which `evaluate.py score` keeps; from these
    and the clips' labels (whole numbers that say which group, seed or music they belong to) the
    values of the whole set are made. A subclass sets `value_names` and implements `describe`,
    `labels_of` and `combine`.

    Args:
        name: Name in tables and in metrics.json.
        part: As in `NamedMetric`.
    """

    value_names: tuple[str, ...]

    def __init__(self, *, name: str, part: MetricPart | None = None) -> None:
        super().__init__(name=name, part=part)
        self.pieces = Pieces()

    @abstractmethod
    def describe(self, clip: ScoredClip) -> torch.Tensor:
        """Numbers of one clip, float64, shape (D,); `UserError` if it cannot be described."""

    @abstractmethod
    def labels_of(self, entry: ClipEntry, *, system: str) -> tuple[int, ...] | None:
        """Labels of a clip in the set of a system; None if it is not part of that set."""

    @abstractmethod
    def combine(
        self, descriptions: Descriptions, labels: Labels, *, seed: int = 0, confidence: float = 0.95
    ) -> Summary:
        """All of `value_names` for one system; the seed is that of the resamples."""

    def prepare(self, entries: Sequence[ClipEntry], *, seed: int) -> None:
        """See which clips share their music."""
        self.pieces = Pieces(entries)

    def require(self, systems: Sequence[str]) -> None:
        """`UserError` if these systems lack one that the metric needs."""


def count(number: int, *, out_of: int) -> MeanInterval:
    """A plain count over so many clips, in the form of a value."""
    return MeanInterval(float(number) if out_of else None, num_values=out_of)
