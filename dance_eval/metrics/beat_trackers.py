"""Trackers that find the beats of music: librosa's, and programs of other environments.

How well each does on pieces whose beats are known is in docs/evaluation.md.
"""

import math
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch

from dance_eval.external_worker import ExternalWorker, WorkerError
from musicinfuser.errors import UserError
from musicinfuser.fingerprint import file_digest
from musicinfuser.media.librosa_import import import_librosa
from musicinfuser.setting_checks import check_choice, check_number

ONSET_HOP_SAMPLES = 512
# 60 onset values per second, as in AIST++'s released code (sr = 60 * 512). At 16 kHz the same hop
# would put beats on a grid of 32 ms, coarser than half the kernel of the beat score.
BEAT_RATE_HZ = 60 * ONSET_HOP_SAMPLES
TEMPO_TOLERANCE = 0.08
"""Tempi further apart than this share are named as different; a tracker's grid is 2 to 5 %."""

# Width of the prior around a known tempo; librosa's own is 1. Half and double tempo lie ten widths
# away, and a track that is played a little faster than its name says does not.
_KNOWN_OCTAVES = 0.1
_OTHER_STARTS = (2 / 3, 3 / 2)
# A beat, half a bar and a bar of four: sound repeats after all of them. After two thirds of the
# tempo it repeats at one place of three only.
_REPEATS_BEATS = np.array([1, 2, 4])
_TEMPI = np.geomspace(40, 240, 360)
_LATEST_SECONDS = 0.05
_ONSET_WINDOW_SECONDS = 1 / 60

Tempo = Literal["metre", "librosa"]
Timing = Literal["onset", "envelope"]
Program = Literal["beat_this", "madmom", "beatnet"]
TrackerName = Literal["librosa", "aistpp", "beat_this", "madmom", "beatnet"]


@dataclass(frozen=True, eq=False)
class TrackedBeats:
    """What a tracker found in a piece of music."""

    seconds: torch.Tensor
    """Ascending times, float64, shape (num_beats,); none for silence."""
    other_bpm: tuple[float, ...] = ()
    """Tempi at which the tracker would have followed the piece from other start tempi."""


class BeatTracker(ABC):
    """Finds beats. Copies may run in other processes."""

    rate_hz: int = BEAT_RATE_HZ
    """The sample rate at which it is best given sound."""
    takes_tempo: bool = True
    """Whether it looks near a known tempo."""

    @property
    @abstractmethod
    def identity(self) -> list[str | float]:
        """All that its beats depend on besides the sound and the tempo, as JSON."""

    def check(self) -> None:  # noqa: B027 -- most can run anywhere
        """`UserError` if it cannot run here; called before anything expensive."""

    @abstractmethod
    def __call__(
        self, waveform: torch.Tensor, *, rate_hz: int, known_bpm: float | None = None
    ) -> TrackedBeats:
        """Beats of float32 mono in [-1, 1], shape (S,), near a tempo if one is known.

        `UserError` if they cannot be found; `ValueError` for sound that is not mono.
        """


@dataclass(frozen=True)
class LibrosaBeats(BeatTracker):
    """librosa's dynamic programming tracker.

    The first call in a fresh installation takes about 20 seconds, because librosa compiles itself.

    Args:
        start_bpm: The tempo that is expected where none is known, in beats per minute.
        tightness: How closely beats follow the tempo; 100 is librosa's and AIST++'s value.
        tempo: ``"metre"``: see `metrical_tempo`. ``"librosa"``: its own estimate, which follows
            more music at two thirds or four thirds of its tempo.
        timing: ``"onset"``: beats are moved to where the sound begins, see `onset_delay`.
            ``"envelope"``: as librosa gives them, 17 to 35 ms late.
    """

    start_bpm: float = 120.0
    tightness: float = 100.0
    tempo: Tempo = "metre"
    timing: Timing = "onset"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_number("start_bpm", self.start_bpm, above=0)
        check_number("tightness", self.tightness, above=0)
        check_choice("tempo", self.tempo, get_args(Tempo))
        check_choice("timing", self.timing, get_args(Timing))

    @property
    def identity(self) -> list[str | float]:
        """The settings."""
        return ["librosa", self.start_bpm, self.tightness, self.tempo, self.timing]

    def __call__(
        self, waveform: torch.Tensor, *, rate_hz: int, known_bpm: float | None = None
    ) -> TrackedBeats:
        """Beats of a waveform, at best at `BEAT_RATE_HZ`; ValueError if it is not mono."""
        if waveform.ndim != 1:
            raise ValueError(
                f"A waveform of shape {tuple(waveform.shape)} is not mono; average its channels "
                "first."
            )
        librosa = import_librosa()
        nothing = TrackedBeats(torch.zeros(0, dtype=torch.float64))
        if len(waveform) < 2 * ONSET_HOP_SAMPLES:
            return nothing
        sound = waveform.cpu().numpy()
        # beat_track's own envelope takes the median over bands, which is zero throughout for sounds
        # that fill less than half of the spectrum; the mean is what AIST++'s code uses.
        grid: dict[str, Any] = {"sr": rate_hz, "hop_length": ONSET_HOP_SAMPLES}
        envelope = librosa.onset.onset_strength(y=sound, **grid)
        if not envelope.any():
            return nothing

        def tempo_from(start_bpm: float, octaves: float = 1.0) -> float:
            if self.tempo == "metre" and known_bpm is None:
                return metrical_tempo(
                    envelope, rate_hz=rate_hz / ONSET_HOP_SAMPLES, start_bpm=start_bpm
                )
            found = librosa.feature.tempo(
                onset_envelope=envelope, start_bpm=start_bpm, std_bpm=octaves, **grid
            )
            return float(found[0])

        others: tuple[float, ...] = ()
        if known_bpm is not None:
            bpm = tempo_from(known_bpm, _KNOWN_OCTAVES)
        else:
            bpm = tempo_from(self.start_bpm)
            others = different_tempi(bpm, [tempo_from(self.start_bpm * at) for at in _OTHER_STARTS])
        # Trimming would drop the first and last beats of a track where they are soft; clips often
        # start there.
        _, found = librosa.beat.beat_track(
            onset_envelope=envelope, bpm=bpm, tightness=self.tightness, units="time", trim=False,
            **grid,
        )  # fmt: skip
        beats = np.asarray(found, np.float64)
        if self.timing == "onset":
            beats = beats - onset_delay(sound, beats, rate_hz=rate_hz)
            beats = beats[beats >= 0]
        return TrackedBeats(torch.from_numpy(beats), others)


def different_tempi(bpm: float, others: list[float]) -> tuple[float, ...]:
    """Those of other tempi that are not the first one, each once, ascending."""
    kept: list[float] = []
    for other in sorted(others):
        if all(abs(other / known - 1) > TEMPO_TOLERANCE for known in (bpm, *kept)):
            kept.append(other)
    return tuple(kept)


def metrical_tempo(envelope: np.ndarray, *, rate_hz: float, start_bpm: float = 120.0) -> float:
    """The tempo at which an onset envelope repeats after one, two and four beats.

    The mean of its autocorrelation there, times librosa's prior: a bell over the logarithm of the
    tempo, an octave wide, around ``start_bpm``. librosa looks at one beat only, where music with a
    strong dotted rhythm repeats almost as well. Takes shape (N,) to beats per minute, 40 to 240.
    """
    centred = np.asarray(envelope, np.float64) - envelope.mean()
    length = len(centred)
    power = np.abs(np.fft.rfft(centred, 2 * length)) ** 2
    correlation = np.maximum(np.fft.irfft(power)[:length], 0)
    lags = 60 * rate_hz / _TEMPI[:, None] * _REPEATS_BEATS
    repeats = np.interp(lags, np.arange(length), correlation, right=0.0).mean(axis=1)
    prior = np.exp(-0.5 * np.log2(_TEMPI / start_bpm) ** 2)
    return float(_TEMPI[np.argmax(repeats * prior)])


def onset_delay(sound: np.ndarray, beats_seconds: np.ndarray, *, rate_hz: int) -> float:
    """How late beats from librosa's onset envelope lie, all together, in seconds.

    The envelope comes from windows of 2,048 samples, and librosa dates a rise at the end of the
    window in which it shows, half a window late; how much earlier the rise shows depends on the
    sound. So the rise is looked for again, in windows of about 17 ms and dated at their middle: the
    delay, 0 to 50 ms, at which the mean over all beats is highest. Takes sound, shape (S,), and
    times, shape (M,); 0 without beats.
    """
    from scipy.ndimage import gaussian_filter1d

    if not len(beats_seconds):
        return 0.0
    librosa = import_librosa()
    window = 2 ** round(math.log2(rate_hz * _ONSET_WINDOW_SECONDS))
    hop = window // 8
    margin = 4 * window
    before = round(_LATEST_SECONDS * rate_hz / hop) * hop + margin
    padded = np.pad(sound, (before, 2 * margin))
    starts = np.round(beats_seconds * rate_hz).astype(int)  # of stretches, in the padded sound
    stretches = padded[starts[:, None] + np.arange(before + margin)]
    rises = librosa.onset.onset_strength(
        y=stretches, sr=rate_hz, n_fft=window, hop_length=hop, n_mels=40, center=False
    )
    mean = gaussian_filter1d(rises.reshape(len(beats_seconds), -1).mean(axis=0), 1.5)
    earliest, beat = margin // hop, before // hop
    return (beat - earliest - int(np.argmax(mean[earliest : beat + 1]))) * hop / rate_hz


_PACKAGES: dict[Program, tuple[str, int]] = {
    "beat_this": ("beat_this", 22_050),
    "madmom": ("madmom", 44_100),
    "beatnet": ("BeatNet", 22_050),
}
"""Package that a program needs, and the sample rate of its sound."""
_PROBE = "import importlib.util as u, sys; sys.exit(u.find_spec({!r}) is None)"
_PROBE_SECONDS = 60.0


class ProgramBeats(BeatTracker):
    """A tracker that runs in an environment of its own, see `dance_eval.workers`.

    madmom follows a known tempo; the others do not take one.

    Args:
        program: ``"beat_this"``, ``"madmom"`` or ``"beatnet"``; the module of this name in
            `dance_eval.workers` says how its environment is made, and its licence.
        python: Of that environment; None is the one that scores.
        weights: Checkpoint of Beat This!; the others bring theirs along.
        time_limit_seconds: For one piece of music.

    Raises:
        UserError: The weights are not there.
    """

    needs_weights: ClassVar[frozenset[str]] = frozenset({"beat_this"})

    def __init__(
        self,
        program: Program,
        *,
        python: Path | None = None,
        weights: Path | None = None,
        time_limit_seconds: float = 600.0,
    ) -> None:
        check_choice("beat_tracker", program, get_args(Program))
        self.program = program
        self.python = str(python or sys.executable)
        self.rate_hz = _PACKAGES[program][1]
        self.takes_tempo = program == "madmom"
        command = [self.python, "-m", f"dance_eval.workers.{program}"]
        self._identity: list[str | float] = [program]
        if program in self.needs_weights:
            if weights is None or not Path(weights).is_file():
                raise UserError(
                    f"{program}: the weights {weights or ''} are not there; download final0.ckpt "
                    "as dance_eval/workers/beat_this.py says and name it with --beat_weights."
                )
            command += ["--weights", str(weights)]
            self._identity.append(file_digest(Path(weights))[:16])
        self._worker = ExternalWorker(command, name=program, time_limit_seconds=time_limit_seconds)

    @property
    def identity(self) -> list[str | float]:
        """The program and its weights."""
        return list(self._identity)

    def check(self) -> None:
        """`UserError` unless the environment has the package; nothing is loaded."""
        package = _PACKAGES[self.program][0]
        command = [self.python, "-c", _PROBE.format(package)]
        try:
            subprocess.run(command, capture_output=True, timeout=_PROBE_SECONDS, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise UserError(
                f"Beats cannot be tracked: {self.python} runs no Python that has {package}; make "
                f"its environment as dance_eval/workers/{self.program}.py says, and name its "
                "Python with --beat_python."
            ) from error

    def __call__(
        self, waveform: torch.Tensor, *, rate_hz: int, known_bpm: float | None = None
    ) -> TrackedBeats:
        """Beats as the program gives them; `WorkerError` if it fails."""
        if waveform.ndim != 1:
            raise ValueError("Sound of several channels is not mono; average them first.")
        with tempfile.TemporaryDirectory(prefix="beats-") as folder:
            file = Path(folder, "sound.npy")
            np.save(file, waveform.cpu().float().numpy(), allow_pickle=False)
            request = {"sound": str(file), "rate_hz": rate_hz, "bpm": known_bpm}
            found = self._worker.ask(request).get("beats_seconds")
        try:
            beats = torch.tensor(found, dtype=torch.float64).reshape(-1)
        except (TypeError, ValueError, RuntimeError) as error:
            raise WorkerError(f"{self.program}: gave no list of times.") from error
        if not (beats.isfinite().all() and (beats.diff() > 0).all()):
            raise WorkerError(f"{self.program}: gave times that are not finite and ascending.")
        return TrackedBeats(beats)


def beat_tracker(
    name: TrackerName,
    *,
    start_bpm: float = 120.0,
    tightness: float = 100.0,
    python: Path | None = None,
    weights: Path | None = None,
) -> BeatTracker:
    """The tracker of a name; ``"aistpp"`` is librosa as AIST++'s released code calls it.

    Start tempo and tightness are librosa's, Python and weights those of programs.
    """
    check_choice("beat_tracker", name, get_args(TrackerName))
    if name == "librosa":
        return LibrosaBeats(start_bpm, tightness)
    if name == "aistpp":
        return LibrosaBeats(start_bpm, tightness, tempo="librosa", timing="envelope")
    return ProgramBeats(name, python=python, weights=weights)
