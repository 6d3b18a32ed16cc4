"""Pieces played by sampled instruments: notes with known beats, and a General MIDI soundfont.

A piece follows from the seed and its name, its sound from the soundfont as well. Debian has two:
fluid-soundfont-gm (MIT) and timgm6mb-soundfont (GPL-2).
"""

import functools
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musicinfuser import keyed_random
from musicinfuser.errors import UserError
from musicinfuser.label_files import read_yaml
from small_world.generator.music import BEATS_PER_BAR, NUM_BARS, NUM_BEATS, TAIL_BEATS, Piece

Array = NDArray[np.float32]
Draw = np.random.Generator

SOUNDFONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
"""Where Debian's fluid-soundfont-gm puts its file."""

STYLES: dict[str, dict[str, Any]] = read_yaml(Path(__file__).with_name("bands.yaml"))
"""How bands of each style play; bands.yaml says what the values mean."""

DRUM_KEYS = {
    "kick": (36, 35),
    "snare": (38, 40),
    "side": (37,),
    "clap": (39,),
    "hat": (42,),
    "open": (46,),
    "ride": (51, 59),
    "tom": (45, 41, 47),
    "shaker": (82, 70, 69),
    "conga": (63, 64),
    "cow": (56,),
    "crash": (49, 57),
}
"""General MIDI keys of each drum; a piece takes one."""

LOUDNESS = {"x": 1.0, "o": 0.6, "-": 0.35}
DRUM_CHANNEL, BASS, CHORD, LEAD, PAD = 9, 0, 1, 2, 3
BARS_OF_A_SECTION = 4


@dataclass
class Score:
    """Notes of a piece and its beats; its clock starts at the first beat."""

    style: str
    bpm: float
    beats_seconds: NDArray[np.float64]
    beats_per_bar: int
    programs: dict[int, tuple[int, int]]
    """Channel to bank and preset."""
    notes: list[tuple[float, float, int, int, int]] = field(default_factory=list)
    """Start and end in seconds, channel, key, velocity."""

    @property
    def duration_seconds(self) -> float:
        """To the end of the last bar."""
        return float(self.beats_seconds[-1] + 60.0 / self.bpm)


def compose_score(
    name: str,
    *,
    seed: int,
    num_bars: int,
    style: str | None = None,
    bpm: float | None = None,
    is_steady: bool = False,
) -> Score:
    """Write a piece down.

    Args:
        name: What tells this piece from others.
        seed: Seed of the world.
        num_bars: Length; the number of beats in a bar is the style's.
        style: A key of `STYLES`; drawn where None.
        bpm: Beats per minute; drawn from the style's range where None.
        is_steady: Without drift of the tempo.
    """
    draw = np.random.default_rng(keyed_random.key(seed, name, "band"))
    style = style or str(draw.choice(sorted(STYLES)))
    how = SimpleNamespace(
        **{"steps": 4, "swing": [0.0], "chord": None, "lead": None, "pad": None} | STYLES[style]
    )
    drums = {drum: str(draw.choice(patterns)).strip() for drum, patterns in how.drums.items()}
    bass = str(draw.choice(how.bass["patterns"]))
    beats_per_bar = len(bass) // how.steps
    low, high = how.tempo
    bpm = bpm or float(low * (high / low) ** draw.random())
    drift = 0.02 * draw.random() if draw.random() < 1 / 3 else 0.0
    beats = _beats(draw, bpm, num_bars * beats_per_bar + 1, drift=0.0 if is_steady else drift)
    programs = {DRUM_CHANNEL: (128, int(draw.choice(how.kits)))}
    for channel, part in ((BASS, how.bass), (CHORD, how.chord), (LEAD, how.lead), (PAD, how.pad)):
        if part:
            programs[channel] = (0, int(draw.choice(part["programs"])))
    score = Score(style, bpm, beats[:-1], beats_per_bar, programs)
    players = _Players(draw, how, score, beats, drums, bass)
    for section in range(0, num_bars, BARS_OF_A_SECTION):
        playing = players.who_plays(is_first=section == 0)
        for bar in range(section, min(section + BARS_OF_A_SECTION, num_bars)):
            players.play_bar(bar, playing)
    return score


def _beats(draw: Draw, bpm: float, num_beats: int, *, drift: float) -> NDArray[np.float64]:
    """Times of beats; the tempo drifts by a share of up to ``drift``, as people's does."""
    wave = np.sin(2 * np.pi * (np.arange(num_beats) / draw.uniform(16, 48) + draw.random()))
    steps = 60.0 / bpm * (1 + drift * wave)
    return np.concatenate([[0.0], np.cumsum(steps[:-1])])


def play_piece(
    name: str,
    *,
    genre: str,
    bpm: float,
    seed: int,
    soundfont: str | Path,
    rate_hz: int,
    num_channels: int,
) -> Piece:
    """What `compose` makes, played by sampled instruments in a style of four beats to the bar.

    The style is drawn among those played at about this tempo, whatever the genre of the dance.
    """
    fitting = [
        style
        for style, how in STYLES.items()
        if len(how["bass"]["patterns"][0]) == BEATS_PER_BAR * how.get("steps", 4)
        and how["tempo"][0] * 0.9 <= bpm <= how["tempo"][1] * 1.1
    ]
    draw = np.random.default_rng(keyed_random.key(seed, name, "style of the band"))
    score = compose_score(
        name, seed=seed, num_bars=NUM_BARS, style=str(draw.choice(fitting)), bpm=bpm, is_steady=True
    )
    seconds = (NUM_BEATS + TAIL_BEATS) * 60 / bpm
    sound = instruments(str(soundfont), rate_hz).play(score, seconds)
    return Piece(name, genre, bpm, rate_hz, np.stack([sound] * num_channels))


class _Players:
    """Plays bars into a score."""

    def __init__(
        self,
        draw: Draw,
        how: SimpleNamespace,
        score: Score,
        beats: NDArray[np.float64],
        drums: dict[str, str],
        bass: str,
    ) -> None:
        self.draw, self.how, self.score, self.beats = draw, how, score, beats
        self.drums, self.bass = drums, bass
        self.keys = {drum: int(draw.choice(DRUM_KEYS[drum])) for drum in drums}
        self.chord = str(draw.choice(how.chord["patterns"])).strip() if how.chord else ""
        self.degrees = how.degrees[int(draw.integers(len(how.degrees)))]
        self.tonic = 36 + int(draw.integers(12))
        self.swing = draw.uniform(0, max(how.swing)) if how.steps != 3 else 0.0
        # How far apart players are, in seconds, and how much a hit may be missed or added.
        self.spread = draw.uniform(0.0, 0.012)
        self.missed, self.added = draw.uniform(0, 0.12), draw.uniform(0, 0.06)
        self.level = {part: draw.uniform(0.3, 1.0) for part in ("drums", BASS, CHORD, LEAD, PAD)}
        self.steps_per_bar = len(bass)
        self.melody: dict[tuple[int, int], int] = {}

    def who_plays(self, *, is_first: bool) -> set[str]:
        """Parts of a section: most have all, some lack drums, kick, bass or melody."""
        playing = {"drums", "kick", "bass", "chord", "lead", "pad"}
        kind = self.draw.random()
        if kind < (0.35 if is_first else 0.1):
            playing -= {"drums"}
        elif kind < 0.5 and is_first:
            playing -= {"bass", "chord", "lead"}
        elif kind < 0.55:
            playing -= {"kick"}
        playing -= {part for part in ("chord", "pad") if self.draw.random() < 0.15}
        playing -= {part for part in ("lead",) if self.draw.random() < 0.35}
        playing -= {part for part in ("bass",) if self.draw.random() < 0.08}
        density = self.how.lead["density"] if self.how.lead else 0.0
        degree, self.melody = 0, {}
        for place in range(2 * self.steps_per_bar):
            degree = int(np.clip(degree + self.draw.integers(-2, 3), -4, 8))
            likely = density * (
                1.4 if place % self.how.steps == 0 else 0.8 if place % 2 == 0 else 0.3
            )
            if self.draw.random() < likely:
                self.melody[divmod(place, self.steps_per_bar)] = degree
        return playing

    def play_bar(self, bar: int, playing: set[str]) -> None:
        """All parts of one bar."""
        draw, how, steps = self.draw, self.how, self.steps_per_bar
        is_last = bar % BARS_OF_A_SECTION == BARS_OF_A_SECTION - 1
        fill_from = (
            steps - how.steps * int(draw.integers(1, 3))
            if is_last and draw.random() < 0.5
            else steps
        )
        root = self.degrees[bar % len(self.degrees)]
        for step in range(steps):
            if "drums" in playing:
                self._drum_step(bar, step, kick="kick" in playing, is_fill=step >= fill_from)
            if "bass" in playing and (loud := LOUDNESS.get(self.bass[step])):
                key = self.tonic + (12 if draw.random() < 0.08 else 0) + self._semitones(root)
                self._note(BASS, bar, step, self._until_next(self.bass, step), key, loud)
            if "chord" in playing and self.chord and (loud := LOUDNESS.get(self.chord[step])):
                length = self._until_next(self.chord, step)
                for third in (0, 2, 4):
                    key = self.tonic + 24 + self._semitones(root + third)
                    self._note(CHORD, bar, step, length * 0.9, key, 0.75 * loud)
            if "lead" in playing and how.lead and (bar % 2, step) in self.melody:
                degree = self.melody[bar % 2, step]
                key = self.tonic + 36 + self._semitones(root + degree)
                self._note(LEAD, bar, step, float(draw.choice([1, 2, 3, 6])), key, 0.9, loose=2.0)
        if "pad" in playing and how.pad:
            for third in (0, 2, 4):
                key = self.tonic + 24 + self._semitones(root + third)
                self._note(PAD, bar, 0, steps, key, 0.6)

    def _drum_step(self, bar: int, step: int, *, kick: bool, is_fill: bool) -> None:
        draw = self.draw
        if is_fill:
            if draw.random() < 0.8:
                key = int(draw.choice([38, 45, 47, 41]))
                self._note(DRUM_CHANNEL, bar, step, 1, key, draw.uniform(0.6, 1.0))
            return
        for drum, pattern in self.drums.items():
            loud = LOUDNESS.get(pattern[step], 0.0)
            if drum == "crash" and bar % BARS_OF_A_SECTION:
                loud = 0.0
            if drum == "kick" and not kick:
                continue
            if loud and draw.random() < (self.missed if step % self.how.steps else self.missed / 3):
                continue
            if not loud and drum in ("snare", "kick", "hat") and draw.random() < self.added / 2:
                loud = 0.3
            if loud:
                self._note(DRUM_CHANNEL, bar, step, 1, self.keys[drum], loud)

    def _note(
        self, channel: int, bar: int, step: float, length: float, key: int, loud: float,
        *, loose: float = 1.0,
    ) -> None:  # fmt: skip
        start = self._seconds(bar, step)
        end = self._seconds(bar, step + max(length, 0.25)) - 0.01
        late = self.draw.normal(0, self.spread * loose) if self.spread else 0.0
        level = self.level["drums" if channel == DRUM_CHANNEL else channel]
        velocity = int(np.clip(127 * loud * level * self.draw.uniform(0.88, 1.0), 8, 127))
        start = max(start + late, 0.0)
        self.score.notes.append((start, max(end, start + 0.03), channel, int(key), velocity))

    def _seconds(self, bar: int, step: float) -> float:
        """When a step is played; every second one is late where the piece swings."""
        if step == int(step) and int(step) % 2:
            step += self.swing
        at = (bar * self.steps_per_bar + step) / self.how.steps
        beat = min(int(at), len(self.beats) - 2)
        return float(self.beats[beat] + (at - beat) * (self.beats[beat + 1] - self.beats[beat]))

    def _semitones(self, degree: int) -> int:
        scale = self.how.scale
        return 12 * (degree // len(scale)) + scale[degree % len(scale)]

    @staticmethod
    def _until_next(pattern: str, step: int) -> float:
        rest = [at for at in range(step + 1, len(pattern)) if pattern[at] in LOUDNESS]
        return (rest[0] if rest else len(pattern)) - step


@functools.cache
def instruments(soundfont: str, rate_hz: int) -> "SampledInstruments":
    """Loaded once per process: a soundfont takes seconds."""
    return SampledInstruments(soundfont, rate_hz=rate_hz)


class SampledInstruments:
    """Plays scores with a soundfont.

    Args:
        soundfont: An sf2 file of General MIDI.
        rate_hz: Sample rate.

    Raises:
        UserError: The file or the package is not there.
    """

    def __init__(self, soundfont: str | Path = SOUNDFONT, *, rate_hz: int = 16_000) -> None:
        if not Path(soundfont).is_file():
            raise UserError(
                f"no soundfont at {soundfont}; install one (Debian: fluid-soundfont-gm or "
                "timgm6mb-soundfont) or name an sf2 file."
            )
        try:
            import tinysoundfont
        except ImportError as error:
            raise UserError(
                "music of sampled instruments needs tinysoundfont: pip install --no-deps "
                "tinysoundfont==0.3.7"
            ) from error
        self.rate_hz = rate_hz
        self._synth = tinysoundfont.Synth(gain=-9, samplerate=rate_hz)
        self._font = self._synth.sfload(str(soundfont), max_voices=128)

    def play(self, score: Score, seconds: float | None = None) -> Array:
        """A waveform ``(S,)`` in [-1, 1], peak 0.9; notes sound within 5 ms of their time."""
        synth = self._synth
        synth.sounds_off()
        for channel, (bank, preset) in score.programs.items():
            try:
                synth.program_select(channel, self._font, bank, preset, bank == 128)
            except RuntimeError:  # a font without this kit: its first one
                synth.program_select(channel, self._font, bank, 0, bank == 128)
        events = [(start, 1, channel, key, loud) for start, _, channel, key, loud in score.notes]
        events += [(end, 0, channel, key, 0) for _, end, channel, key, _ in score.notes]
        seconds = seconds or score.duration_seconds
        pieces, done = [], 0
        for at, is_on, channel, key, loud in sorted(events):
            if at >= seconds:
                break
            if (until := round(at * self.rate_hz)) > done:
                pieces.append(self._render(until - done))
                done = until
            if is_on:
                synth.noteon(channel, key, loud)
            else:
                synth.noteoff(channel, key)
        pieces.append(self._render(max(round(seconds * self.rate_hz) - done, 1)))
        sound = np.concatenate(pieces)
        return (0.9 / max(float(np.abs(sound).max()), 1e-4) * sound).astype(np.float32)

    def _render(self, num_samples: int) -> Array:
        stereo = np.frombuffer(bytes(self._synth.generate(num_samples)), np.float32)
        return stereo.reshape(-1, 2).mean(axis=1)
