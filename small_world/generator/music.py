"""Made-up music of ten genres with known beats.

A piece is a pure function of the world's seed and its name. Every genre keeps a kick on the even
beats of a bar and a snare or clap on the odd ones, so that tempo, phase and parity can be heard;
patterns, sounds and harmony differ by genre, key and melody by piece.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from musicinfuser import keyed_random
from small_world.generator.instruments import Instruments, Tone

Array = NDArray[np.float32]

BEATS_PER_BAR = 4
NUM_BARS = 17
"""16 bars hold the 64 beats of an advanced dance; one more lets it start within a bar."""

NUM_BEATS = NUM_BARS * BEATS_PER_BAR
TAIL_BEATS = 2
STEPS_PER_BEAT = 4
GAIN = {"x": 1.0, "o": 0.5, "-": 0.25}
"""Loudness of a step in a pattern; any other letter rests."""

MINOR = (0, 2, 3, 5, 7, 8, 10)
MAJOR = (0, 2, 4, 5, 7, 9, 11)
DORIAN = (0, 2, 3, 5, 7, 9, 10)


@dataclass(frozen=True)
class Style:
    """How a genre sounds; patterns are 16 steps of a quarter beat, written bar-long.

    Attributes:
        kick: Low drum; always full on steps 0 and 8 (the even beats).
        snare: Snare or clap; always full on steps 4 and 12 (the odd beats).
        hat: Cymbals.
        bass: Bass notes, on the root of the bar's chord.
        chord: Chord hits.
        lead_density: Share of eighth notes that carry melody.
        scale: Semitones of the seven degrees.
        degrees: Root of each bar's chord, as scale degrees, in turn.
        kick_hz: Pitch the kick settles at.
        clap: Whether a clap replaces the snare.
        bass_tone: Sound of the bass.
        chord_tone: Sound of the chords.
        lead_tone: Sound of the melody.
        swing: Delay of every second quarter beat, in quarter beats.
        chord_beats: Length of a chord hit, in beats.
    """

    kick: str
    snare: str
    hat: str
    bass: str
    chord: str
    lead_density: float
    scale: tuple[int, ...]
    degrees: tuple[int, ...]
    kick_hz: float
    clap: bool
    bass_tone: Tone
    chord_tone: Tone
    lead_tone: Tone
    swing: float = 0.0
    chord_beats: float = 0.5


_SNARE = "....x.......x..."
STYLES: dict[str, Style] = {
    "BR": Style(
        "x..o....x.o.....", "....x..-.-..x...", "x.o.x.o.x.o.x.o.",
        "x..o..o.x.....o.", "......o.......o.",
        0.20, DORIAN, (0, 0, 3, 0), 58, False, "round", "organ", "brass", 0.12, 0.25,
    ),
    "PO": Style(
        "x.......x.......", _SNARE, "o.o.o.o.o.o.o.oo", "x.o.x.o.x.o.x.o.", "....o.......o...",
        0.35, MINOR, (0, 5, 3, 4), 50, True, "square", "square", "laser", 0.0, 0.3,
    ),
    "LO": Style(
        "x..-....x..o....", "....x......-x...", "o.o-o.o-o.o-o.o-",
        "x..-x..ox..-x..o", "x..o....x..o....",
        0.15, DORIAN, (0, 0, 3, 4), 62, False, "slap", "guitar", "brass", 0.0, 0.2,
    ),
    "MH": Style(
        "x.....o.x.o.....", _SNARE, "o.o.o.o.o.o.o.o.", "x.....o.x.......", "x.......o.......",
        0.18, MINOR, (0, 3, 5, 4), 52, False, "round", "piano", "bell", 0.30, 1.5,
    ),
    "LH": Style(
        "x..o..o.x.......", _SNARE, "ooo.o.ooo.oooooo", "x.......x..o....", "x...............",
        0.25, MINOR, (0, 0, 5, 6), 44, True, "sub", "strings", "bell", 0.0, 2.0,
    ),
    "HO": Style(
        "x...x...x...x...", _SNARE, "o.o.o.o.o.o.o.o.", "x.-.x.-.x.-.x.-.", "x..o..-.x..o..-.",
        0.10, MINOR, (0, 5, 3, 6), 54, True, "saw", "organ", "bell", 0.0, 0.3,
    ),
    "WA": Style(
        "x...o...x...o...", _SNARE, "o-o-o-o-o-o-o-o-", "x.o.x.o.x.o.x.o.", "x..o..o.x..o..o.",
        0.30, MAJOR, (5, 3, 0, 4), 60, False, "slap", "strings", "brass", 0.0, 0.6,
    ),
    "KR": Style(
        "x.o...o.x.oo....", "....x.......x.o.", "o...o...o...o.o.",
        "x.o...o.x.oo....", "x.......x.......",
        0.12, MINOR, (0, 1, 0, 6), 40, True, "saw", "brass", "saw", 0.0, 0.5,
    ),
    "JS": Style(
        "x..o....x.......", "....x.....-.x..-", "x.oox.oox.oox.oo",
        "x...o.o.x...o.o.", "x.....x...o.....",
        0.40, DORIAN, (1, 4, 0, 5), 56, False, "round", "piano", "brass", 0.18, 0.8,
    ),
    "JB": Style(
        "x.......x.......", "....x.......x...", "o...o...o...o...",
        "x.......o.......", "x...x...x...x...",
        0.45, MAJOR, (0, 4, 5, 3), 66, False, "round", "piano", "flute", 0.0, 1.8,
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Piece:
    """A piece of music; its clock starts at the first beat.

    Attributes:
        name: A track code such as ``"mBR0"``, or any other name.
        genre: Two letters such as ``"BR"``.
        bpm: Tempo in beats per minute.
        rate_hz: Sample rate.
        waveform: float32 in [-1, 1], shape (C, S).
    """

    name: str
    genre: str
    bpm: float
    rate_hz: int
    waveform: Array

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


def _semitones(scale: tuple[int, ...], degree: int) -> int:
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
