"""Tracks at other tempi, as files beside which everything else stays the same (fig. 7)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from musicinfuser.errors import UserError
from musicinfuser.media.tempo import FACTORS, TempoChange, write_at_tempo
from musicinfuser.number_names import exact_name


@dataclass(frozen=True)
class TempoSpec:
    """Each track at several tempi: files that `predict` writes before it generates."""

    folder: str
    """Where they go, as ``<track>_tempo_<factor>.wav``; the metrics read the factor from there."""
    factors: list[float] = field(default_factory=lambda: [0.75, 1.0, 1.25])
    """Times the track's own tempo; 1 is the track itself."""
    by: TempoChange = "resampling"
    """``resampling`` shifts the pitch too, as in the paper; ``stretching`` keeps it."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if not self.factors or not all(FACTORS[0] <= f <= FACTORS[1] for f in self.factors):
            raise UserError(
                f"data.generation.tempo.factors is {self.factors}; give numbers from "
                f"{FACTORS[0]:g} to {FACTORS[1]:g}."
            )

    def starts(
        self, tracks: Sequence[Path], *, offset_seconds: float | None
    ) -> list[tuple[Path, float]]:
        """Files, and where in each the music's moment ``offset_seconds`` is.

        Raises:
            UserError: Two tracks of one name, or no offset.
        """
        if offset_seconds is None:
            raise UserError(
                "data.generation.tempo compares clips from one moment of the music; give "
                "data.generation.track_offset_seconds a number."
            )
        return [(path, offset_seconds / factor) for _, path, factor in self._files(tracks)]

    def write(self, tracks: Sequence[Path]) -> None:
        """Write the files of all tempi but 1; several processes may do so at once.

        Raises:
            MediaError: A track cannot be read.
        """
        for track, path, factor in self._files(tracks):
            if path != track:
                write_at_tempo(track, path, factor=factor, by=self.by)

    def _files(self, tracks: Sequence[Path]) -> Iterator[tuple[Path, Path, float]]:
        """Source, file and factor."""
        names = [track.stem for track in tracks]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UserError(
                f"two tracks are called {twice}, and data.generation.tempo names its files after "
                "them; rename one."
            )
        for track in tracks:
            for factor in self.factors:
                changed = Path(self.folder, f"{track.stem}_tempo_{exact_name(factor)}.wav")
                yield track, track if factor == 1 else changed, factor
