"""Made-up music of ten genres with known beats.

A piece is a pure function of the world's seed and its name. Every genre keeps a kick on the even
beats of a bar and a snare or clap on the odd ones, which tell tempo, phase and parity; patterns,
sounds and harmony differ by genre, key and melody by piece.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from musicinfuser import keyed_random
from musicinfuser.label_files import read_yaml

Array = NDArray[np.float32]

BEATS_PER_BAR = 4
NUM_BARS = 17
"""16 bars hold the 64 beats of an advanced dance; one more lets it start within a bar."""

NUM_BEATS = NUM_BARS * BEATS_PER_BAR
TAIL_BEATS = 2
STEPS_PER_BEAT = 4
GAIN = {"x": 1.0, "o": 0.5, "-": 0.25}
"""Loudness of a step in a pattern; any other letter rests."""

# Per tone: partials as (multiple of the pitch, gain), attack and decay time constants in seconds
# (a decay of 0 holds the note to its end), and extra gain.
_ODD = tuple((float(n), 1.0 / n) for n in range(1, 16, 2))
_ALL = tuple((float(n), 1.0 / n) for n in range(1, 16))
_TONES: dict[str, tuple[tuple[tuple[float, float], ...], float, float, float]] = {
    "round": (((1, 1.0), (2, 0.35), (3, 0.1)), 0.004, 0.35, 1.0),
    "square": (_ODD, 0.002, 0.0, 0.55),
    "slap": (((1, 1.0), (2, 0.7), (3, 0.5), (5, 0.35), (7, 0.2)), 0.002, 0.14, 0.9),
    "sub": (((1, 1.0), (2, 0.12)), 0.006, 0.6, 1.2),
    "saw": (_ALL, 0.004, 0.0, 0.5),
    "organ": (((1, 0.8), (2, 0.7), (3, 0.3), (4, 0.4), (8, 0.2)), 0.008, 0.0, 0.5),
    "guitar": (((1, 0.6), (2, 0.8), (3, 0.6), (4, 0.5), (6, 0.3), (9, 0.2)), 0.002, 0.06, 0.9),
    "piano": (((1, 1.0), (2, 0.45), (3, 0.3), (4, 0.15), (5.02, 0.08)), 0.003, 0.5, 0.7),
    "strings": (
        tuple((m * d, 0.5 / m) for m in range(1, 9) for d in (0.996, 1.004)), 0.05, 0.0, 0.45,
    ),
    "brass": (tuple((float(n), 0.9 / n**0.7) for n in range(1, 10)), 0.02, 0.0, 0.35),
    "laser": (((1, 1.0), (2.76, 0.5), (5.4, 0.25)), 0.002, 0.12, 0.8),
    "bell": (((1, 1.0), (2.0, 0.3), (3.01, 0.4), (4.2, 0.25)), 0.002, 0.4, 0.7),
    "flute": (((1, 1.0), (2, 0.18), (3, 0.05)), 0.03, 0.0, 0.8),
}  # fmt: skip


STYLES = {
    genre: SimpleNamespace(**style)
    for genre, style in read_yaml(Path(__file__).with_name("styles.yaml")).items()
}
"""How each genre sounds; styles.yaml says what the values mean."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A piece of music; its clock starts at the first beat."""

    name: str
    """A track code such as ``"mBR0"``, or any other name."""
    genre: str
    bpm: float
    rate_hz: int
    waveform: Array
    """float32 in [-1, 1], shape (C, S)."""

    @property
    def beat_seconds(self) -> float:
        """Time from one beat to the next."""
        return 60.0 / self.bpm

    @property
    def beats_seconds(self) -> list[float]:
        """Times of all beats; every fourth, from the first, is a downbeat."""
        return [number * self.beat_seconds for number in range(NUM_BEATS)]

    def excerpt(self, start_seconds: float, duration_seconds: float) -> Array:
        """Cut out a part, shape (C, S); silence where it leaves the piece."""
        num_samples = round(duration_seconds * self.rate_hz)
        first = round(start_seconds * self.rate_hz)
        cut = np.zeros((self.waveform.shape[0], num_samples), np.float32)
        begin, end = max(first, 0), min(first + num_samples, self.waveform.shape[1])
        if begin < end:
            cut[:, begin - first : end - first] = self.waveform[:, begin:end]
        return cut


@functools.lru_cache(maxsize=4)
def compose(
    name: str, *, genre: str, bpm: float, seed: int, rate_hz: int = 16000, num_channels: int = 1
) -> Piece:
    """Make a piece of 17 bars of four beats.

    Args:
        name: What tells this piece from others of its genre.
        genre: A key of :data:`STYLES`.
        bpm: Tempo in beats per minute.
        seed: Seed of the world.
        rate_hz: Sample rate.
        num_channels: 1 or 2.
    """
    style = STYLES[genre]
    draw = np.random.default_rng(keyed_random.key(seed, name, "small world music"))
    kit = Instruments(rate_hz, noise_seed=keyed_random.key(seed, name, "small world noise"))
    step_seconds = 60.0 / bpm / STEPS_PER_BEAT
    num_samples = round((NUM_BEATS + TAIL_BEATS) * STEPS_PER_BEAT * step_seconds * rate_hz)
    tracks = {
        part: np.zeros(num_samples, np.float32) for part in ("drum", "hat", "bass", "chord", "lead")
    }

    def play(part: str, step: float, sound: Array, gain: float) -> None:
        first = round(step * step_seconds * rate_hz)
        room = tracks[part][first : first + len(sound)]
        room += gain * sound[: len(room)]

    tonic = 40 + int(draw.integers(0, 12))
    extra_kick = int(draw.choice([3, 7, 10, 11, 14]))
    melody = _draw_melody(draw, style.lead_density)
    rotation = int(draw.integers(0, 2)) * 2
    drum_sounds = {
        "kick": kit.kick(style.kick_hz * draw.uniform(0.92, 1.08)),
        "snare": kit.clap() if style.clap else kit.snare(draw.uniform(170, 215)),
    }
    hats = kit.hat(0.035), kit.hat(0.16)
    for bar in range(NUM_BARS):
        degree = style.degrees[(bar + rotation) % len(style.degrees)]
        bar_step = bar * BEATS_PER_BAR * STEPS_PER_BEAT
        if bar % 4 == 0:
            play("hat", bar_step, kit.hat(0.7), 0.5)
        play("drum", bar_step, kit.kick(style.kick_hz * 0.75), 0.5)
        for step in range(16):
            at = bar_step + step + (style.swing if step % 2 else 0.0)
            kick = style.kick[step] if step != extra_kick or bar % 2 else "-"
            play("drum", at, drum_sounds["kick"], GAIN.get(kick, 0.0))
            play("drum", at, drum_sounds["snare"], 0.9 * GAIN.get(style.snare[step], 0.0))
            play("hat", at, hats[style.hat[step] == "x"], 0.35 * GAIN.get(style.hat[step], 0.0))
            if style.bass[step] in GAIN:
                note = tonic - 12 + _semitones(style.scale, degree)
                beats = 0.9 if step in (0, 8) else 0.45
                sound = kit.tone(style.bass_tone, note, beats * 60 / bpm)
                play("bass", at, sound, 0.8 * GAIN[style.bass[step]])
            if style.chord[step] in GAIN:
                for third in (0, 2, 4):
                    note = tonic + 12 + _semitones(style.scale, degree + third)
                    sound = kit.tone(style.chord_tone, note, style.chord_beats * 60 / bpm)
                    play("chord", at, sound, 0.3 * GAIN[style.chord[step]])
            if step % 2 == 0 and (bar % 2, step) in melody:
                note = tonic + 24 + _semitones(style.scale, degree + melody[(bar % 2, step)])
                sound = kit.tone(style.lead_tone, note, 0.45 * 60 / bpm)
                play("lead", at, sound, 0.22)
    return Piece(name, genre, bpm, rate_hz, _mix(tracks, rate_hz, num_channels))


def _semitones(scale: Sequence[int], degree: int) -> int:
    return 12 * (degree // len(scale)) + scale[degree % len(scale)]


def _draw_melody(draw: np.random.Generator, density: float) -> dict[tuple[int, int], int]:
    """A two-bar tune: (bar, step) to scale degree above the chord's root, mostly by small steps."""
    melody, degree = {}, 0
    for bar in range(2):
        for step in range(0, 16, 2):
            degree = int(np.clip(degree + draw.integers(-2, 3), -3, 6))
            if draw.random() < density:
                melody[(bar, step)] = degree
    return melody


def _mix(tracks: dict[str, Array], rate_hz: int, num_channels: int) -> Array:
    # Everything but the drums ducks under them, as on a dance record; it also keeps beats clear.
    half = max(1, round(0.04 * rate_hz))
    total = np.concatenate([[0.0], np.cumsum(np.abs(tracks["drum"]), dtype=np.float64)])
    at = np.arange(len(tracks["drum"]))
    level = total[np.minimum(at + half, len(at))] - total[np.maximum(at - half, 0)]
    duck = (1.0 - 0.5 * np.clip(level / (level.max() + 1e-9), 0, 1)).astype(np.float32)
    music = duck * (tracks["bass"] + tracks["chord"] + tracks["lead"])
    centre = 1.1 * tracks["drum"] + tracks["hat"] + music
    if num_channels == 1:
        mixed = centre[None]
    else:
        side = 0.25 * tracks["hat"] + 0.3 * np.roll(tracks["chord"], rate_hz // 90)
        mixed = np.stack([centre + side, centre - side])
    return (0.9 * np.tanh(1.2 * mixed / np.abs(mixed).max() * 1.4)).astype(np.float32)


class Instruments:
    """Makes single notes and drum hits, float32 of shape (S,), peak about 1; each is made once.

    Args:
        rate_hz: Sample rate; partials above 45 % of it are left out.
        noise_seed: Seed of the noise in drums.
    """

    def __init__(self, rate_hz: int, *, noise_seed: int) -> None:
        self.rate_hz = rate_hz
        self._noise_seed = noise_seed
        self.tone = functools.cache(self._tone)
        self.hat = functools.cache(self._hat)
        self.kick = functools.cache(self._kick)

    def _time(self, seconds: float) -> Array:
        return (np.arange(round(seconds * self.rate_hz)) / self.rate_hz).astype(np.float32)

    def _noise(self, num_samples: int) -> Array:
        draw = np.random.default_rng(self._noise_seed)
        return draw.standard_normal(num_samples).astype(np.float32) * 0.5

    def _tone(self, tone: str, note: int, seconds: float) -> Array:
        """A note by MIDI number (69 is 440 Hz); it fades out over its last 20 ms."""
        partials, attack, decay, gain = _TONES[tone]
        pitch_hz = 440.0 * 2.0 ** ((note - 69) / 12)
        time = self._time(seconds + 0.02)
        wave = np.zeros_like(time)
        for multiple, partial_gain in partials:
            if multiple * pitch_hz < 0.45 * self.rate_hz:
                wave += partial_gain * np.sin(2 * np.pi * multiple * pitch_hz * time)
        envelope = 1 - np.exp(-time / attack)
        if decay:
            envelope *= np.exp(-time / decay)
        envelope *= np.clip((time[-1] - time) / 0.02, 0, 1)
        return (gain * envelope * wave).astype(np.float32)

    def _kick(self, pitch_hz: float) -> Array:
        time = self._time(0.32)
        phase = pitch_hz * time + 3.5 * pitch_hz * 0.03 * (1 - np.exp(-time / 0.03))
        body = np.sin(2 * np.pi * phase) * np.exp(-time / 0.11)
        click = self._noise(len(time)) * np.exp(-time / 0.003)
        return (body + 0.4 * click).astype(np.float32)

    def snare(self, pitch_hz: float) -> Array:
        """A drum tone under a burst of noise."""
        time = self._time(0.22)
        body = np.sin(2 * np.pi * pitch_hz * time) * np.exp(-time / 0.05)
        rattle = np.diff(self._noise(len(time)), prepend=np.float32(0))
        return (0.5 * body + 0.9 * rattle * np.exp(-time / 0.07)).astype(np.float32)

    def clap(self) -> Array:
        """Three quick bursts of noise, then a short tail."""
        time = self._time(0.2)
        noise = self._noise(len(time))
        noise = noise - np.convolve(noise, np.full(12, 1 / 12, np.float32), mode="same")
        bursts = sum(
            np.where(time >= start, np.exp(-np.maximum(time - start, 0) / decay), 0.0)
            for start, decay in ((0.0, 0.006), (0.009, 0.006), (0.018, 0.06))
        )
        return (0.8 * noise * bursts).astype(np.float32)

    def _hat(self, decay_seconds: float) -> Array:
        time = self._time(min(5 * decay_seconds, 1.5))
        bright = np.diff(self._noise(len(time)), n=2, prepend=np.zeros(2, np.float32))
        return (0.6 * bright * np.exp(-time / decay_seconds)).astype(np.float32)
