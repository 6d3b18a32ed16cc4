"""Which rhythm metrics tell a dance to its music from one to other music?

    python -m small_world.experiments.rhythm_discrimination --real demo.mp4 cam01.mp4

Dances whose rests are known: dancers of the small world, and people in videos that are re-timed so
that they rest on beats (frames between two of a video are blended). As people do, they miss each
beat by a little (``--spread_ms``). Each dance is scored with four musics:

- its own;
- the wrong one: the piece of another dance, of another tempo;
- its own, late by half a beat;
- its own, where the dancer did not hear it: the rests come at uneven times, at no beat.

For each metric: how often a dance with its own music scores higher than one of the others (the area
under the ROC curve; 0.5 is chance), with a 95 % interval over dances or videos. Beats of the music
are known; metrics that ask for sound have it.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from dance_eval.metrics.av_align import AVAlign
from dance_eval.metrics.beat_alignment import BeatAlignment
from dance_eval.metrics.beat_coverage import BeatCoverage
from dance_eval.metrics.beat_energy import BeatEnergy
from dance_eval.metrics.clip import ClipMetric, MotionCurve, ScoredClip
from dance_eval.metrics.intervals import MeanInterval, percentiles
from dance_eval.metrics.joint_track import joint_speed
from dance_eval.metrics.optical_flow import OpticalFlow
from musicinfuser.errors import UserError, in_one_sentence
from musicinfuser.keyed_random import generator, key
from musicinfuser.tables import Row, markdown_table
from small_world.experiments.retiming import FPS, NUM_FRAMES, read_small, retimed
from small_world.generator.dancer import Looks
from small_world.generator.moves import VOCABULARIES, Manner, choreograph, draw_manner
from small_world.generator.music import Piece, compose
from small_world.generator.recordings import Actor, film, still_camera
from small_world.generator.wardrobe import aist_looks, studio
from small_world.metrics.torso_beat_correlation import TorsoBeatCorrelation

Array = NDArray[np.float64]
SIZE = 64
RATE_HZ = 22_050
TEMPI = (85.0, 135.0)
"""Those of AIST's music, less its slowest."""
FIRST_BEAT = 8
UNEVEN = 0.3
"""Spread of the logarithm of the time from one rest to the next of a dancer to no music."""
MOST_MISSED_SECONDS = 0.2
"""Less than half of the shortest time between beats."""
CONTROLS = ("wrong music", "half a beat late", "to no music")
PROBES = "assets/small-world-probes/pose"


class OwnCurve(MotionCurve):
    """Speed of the joints that a dance was made with, by the clip's name."""

    def __init__(self) -> None:
        self.curves: dict[str, torch.Tensor] = {}

    def of_clip(self, clip: ScoredClip) -> torch.Tensor:
        """Shape (T - 1,); `UserError` for a video, whose joints nobody knows."""
        return self.curves[clip.name]

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Joints cannot be had from frames."""
        raise UserError("joints cannot be had from frames; score a dance.")


class OncePerPicture(MotionCurve):
    """A curve that is computed once for frames that are shown with several musics."""

    def __init__(self, motion: MotionCurve) -> None:
        self.motion = motion
        self._known: tuple[torch.Tensor, torch.Tensor] | None = None

    def of_clip(self, clip: ScoredClip) -> torch.Tensor:
        """The curve of a clip."""
        if self._known is None or self._known[0] is not clip.frames:
            self._known = clip.frames, self.motion.of_clip(clip)
        return self._known[1]

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """The curve of frames."""
        return self.motion(frames)


JOINTS = OwnCurve()


@dataclass(frozen=True)
class Measure:
    """A value of a metric, and which way is better."""

    metric: ClipMetric
    value: str
    sign: float = 1.0
    only_small_world: bool = False


def measures(*, num_shifts: int) -> dict[str, Measure]:
    """What is compared, by the name of its row."""
    found: dict[str, Measure] = {}
    flow = OncePerPicture(OpticalFlow(remove_camera=True))
    motions: dict[str, MotionCurve | None] = {"joints": JOINTS, "frames": None, "flow": flow}
    for of, motion in motions.items():
        kinds: dict[str, ClipMetric] = {
            "beat alignment": BeatAlignment(motion=motion, num_shifts=num_shifts),
            "beat alignment over music": BeatAlignment(
                motion=motion, average_over="music", num_shifts=num_shifts
            ),
            "beat coverage": BeatCoverage(motion=motion, num_shifts=num_shifts),
        }
        for kind, metric in kinds.items():
            for value in ("score", "z"):
                found[f"{kind}, {of}, {value}"] = Measure(
                    metric, value, only_small_world=of == "joints"
                )
        energy = BeatEnergy(motion=motion)
        name = f"motion at beats, {of} (less is better)"
        found[name] = Measure(energy, "at_beats", -1.0, only_small_world=of == "joints")
    at_frames = BeatAlignment(minima="sampled", num_shifts=num_shifts)
    found["beat alignment, frames, score, rests at frames"] = Measure(at_frames, "score")
    peaks = AVAlign(num_shifts=num_shifts, motion=OncePerPicture(OpticalFlow()))
    found["AV-Align, score"] = Measure(peaks, "score")
    found["AV-Align, z"] = Measure(peaks, "z")
    torso = TorsoBeatCorrelation(weights=PROBES, num_shifts=num_shifts)
    found["torso beat correlation"] = Measure(torso, "correlation", only_small_world=True)
    return found


@dataclass(frozen=True, eq=False)
class Music:
    """A piece as a clip has it, from its first frame on."""

    piece: Piece
    first_beat_seconds: float

    def beats(self, late_seconds: float = 0.0) -> Array:
        """Times of the beats around a clip, also before and after it."""
        numbers = np.arange(-FIRST_BEAT, 2 * FIRST_BEAT)
        times = self.first_beat_seconds + late_seconds + numbers * self.piece.beat_seconds
        return np.asarray(times, np.float64)

    def sound(self, seconds: float, late_seconds: float = 0.0) -> torch.Tensor:
        """Mono at `RATE_HZ`; the piece is some bars old when the clip starts."""
        start = FIRST_BEAT * self.piece.beat_seconds - self.first_beat_seconds - late_seconds
        return torch.from_numpy(self.piece.excerpt(start, seconds)[0])


@dataclass(frozen=True, eq=False)
class Dance:
    """A dancer, filmed with ears and without."""

    group: str
    """What is independent of others: the dance, or the video it was made of."""
    music: Music
    to_music: torch.Tensor
    """uint8 (T, H, W, 3)."""
    without_music: torch.Tensor
    curves: tuple[torch.Tensor, torch.Tensor] | None
    """Speed of the joints, where they are known, in both."""


def rest_times(music: Music, draw: np.random.Generator, *, spread_seconds: float) -> Array:
    """When a dancer rests who follows the music, beat by beat; ascending."""
    beats = music.beats()
    missed = np.clip(
        draw.normal(0, spread_seconds, len(beats)), -MOST_MISSED_SECONDS, MOST_MISSED_SECONDS
    )
    return np.asarray(beats + missed, np.float64)


def uneven_times(music: Music, draw: np.random.Generator) -> Array:
    """As many rests at uneven times, of the same tempo on average; ascending."""
    beats = music.beats()
    period = music.piece.beat_seconds
    steps = period * np.exp(draw.normal(0, UNEVEN, len(beats)))
    start = FIRST_BEAT * period + draw.uniform(0, period)
    return np.asarray(np.cumsum(steps) - start, np.float64)


def small_world_dances(num: int, *, seed: int, spread_seconds: float) -> list[Dance]:
    """Dancers of the small world, each of a genre in turn."""
    dances: list[Dance] = []
    genres = sorted(VOCABULARIES)
    for number in tqdm(range(num), "dancing"):
        draw = np.random.default_rng(key(seed, number, "discrimination dance"))
        genre = genres[number % len(genres)]
        music = _music(draw, f"dance {number}", genre, seed)
        manner = draw_manner(draw, is_advanced=number % 2 == 1)
        looks = aist_looks(f"d{1 + number % 35:02d}", height=0.75)
        choreography = int(draw.integers(2**31))
        filmed = [
            _film(genre, times, manner, looks, np.random.default_rng(choreography))
            for times in (
                rest_times(music, draw, spread_seconds=spread_seconds),
                uneven_times(music, draw),
            )
        ]
        (to_music, first), (without_music, second) = filmed
        dances.append(Dance(f"dance {number}", music, to_music, without_music, (first, second)))
    return dances


def _film(
    genre: str, times: Array, manner: Manner, looks: Looks, draw: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    position = np.interp(np.arange(NUM_FRAMES) / FPS, times, np.arange(len(times)))
    poses = choreograph(genre, position, manner, draw)
    frames, joints = film(
        [Actor(looks, poses, 0.0, 0.4)], studio(0.4), still_camera(NUM_FRAMES),
        yaw_degrees=0.0, height=SIZE, width=SIZE,
    )  # fmt: skip
    return torch.from_numpy(frames), joint_speed(torch.from_numpy(joints))


def real_dances(
    videos: Sequence[Path], per_video: int, *, seed: int, spread_seconds: float
) -> list[Dance]:
    """People in videos, re-timed to music."""
    dances: list[Dance] = []
    genres = sorted(VOCABULARIES)
    for place, video in enumerate(tqdm(videos, "re-timing")):
        frames, fps = read_small(video)
        for number in range(per_video):
            draw = np.random.default_rng(
                key(seed, f"video {place} {number}", "discrimination dance")
            )
            genre = genres[len(dances) % len(genres)]
            music = _music(draw, f"{video.stem} {len(dances)}", genre, seed)
            start = draw.random()
            to_music, without_music = (
                retimed(frames, times, fps=fps, start=start)
                for times in (
                    rest_times(music, draw, spread_seconds=spread_seconds),
                    uneven_times(music, draw),
                )
            )
            dances.append(Dance(str(video), music, to_music, without_music, None))
    return dances


def _music(draw: np.random.Generator, name: str, genre: str, seed: int) -> Music:
    low, high = TEMPI
    bpm = float(low * (high / low) ** draw.random())
    piece = compose(name, genre=genre, bpm=bpm, seed=seed, rate_hz=RATE_HZ)
    return Music(piece, float(draw.uniform(0, piece.beat_seconds)))


def score_dances(dances: Sequence[Dance], compared: dict[str, Measure]) -> Array:
    """Values of every measure, own music first, then `CONTROLS`, shape (measures, 4, dances)."""
    seconds = NUM_FRAMES / FPS
    order = np.argsort([dance.music.piece.bpm for dance in dances], kind="stable")
    # In order of tempo the one half a set further on, so that tempi are far apart.
    other = dict(zip(order, np.roll(order, -len(order) // 2), strict=True))
    values = np.zeros((len(compared), 1 + len(CONTROLS), len(dances)))
    for number, dance in enumerate(tqdm(dances, "scoring")):
        wrong, half = dances[other[number]].music, dance.music.piece.beat_seconds / 2
        shown = (
            (dance.to_music, dance.music, 0.0),
            (dance.to_music, wrong, 0.0),
            (dance.to_music, dance.music, half),
            (dance.without_music, dance.music, 0.0),
        )
        for condition, (frames, music, late) in enumerate(shown):
            beats = music.beats(late)
            name = f"{dance.group} {number}"
            if dance.curves is not None:
                JOINTS.curves[name] = dance.curves[condition == 3]
            clip = ScoredClip(
                frames=frames,
                fps=FPS,
                waveform=music.sound(seconds, late),
                rate_hz=RATE_HZ,
                name=name,
                seed=0,
                beats_seconds=torch.from_numpy(beats[(beats >= 0) & (beats < seconds)]),
            )
            scored: dict[int, dict[str, float]] = {}
            for row, measure in enumerate(compared.values()):
                if measure.only_small_world and dance.curves is None:
                    continue
                known = scored.get(id(measure.metric))
                if known is None:
                    known = scored[id(measure.metric)] = measure.metric.score_clip(clip)
                # Motion that has no value at beats, since nothing moves, is at chance.
                values[row, condition, number] = measure.sign * known.get(measure.value, 1.0)
    return values


def area_under_curve(
    own: Array, control: Array, groups: Sequence[str], *, name: str, num_resamples: int = 2000
) -> MeanInterval:
    """Share of pairs in which the own value is higher, ties half, with an interval over groups."""
    higher = (own[:, None] > control) + 0.5 * (own[:, None] == control)
    members = [np.flatnonzero(np.array(groups) == group) for group in dict.fromkeys(groups)]
    stream = generator(0, name, "area under the curve")
    drawn = torch.randint(len(members), (num_resamples, len(members)), generator=stream).numpy()
    areas = []
    for row in drawn:
        chosen = np.concatenate([members[index] for index in row])
        areas.append(higher[np.ix_(chosen, chosen)].mean())
    ends = percentiles(torch.tensor(areas, dtype=torch.float64), confidence=0.95)
    return MeanInterval(float(higher.mean()), *ends, len(members))


def rows_of(dances: Sequence[Dance], compared: dict[str, Measure]) -> list[Row]:
    """A row per measure, best first by its worst control."""
    values = score_dances(dances, compared)
    groups = [dance.group for dance in dances]
    rows: list[tuple[float, Row]] = []
    for own, (name, measure) in zip(values, compared.items(), strict=True):
        if measure.only_small_world and dances[0].curves is None:
            continue
        areas = [
            area_under_curve(own[0], control, groups, name=f"{name}, {what}")
            for what, control in zip(CONTROLS, own[1:], strict=True)
        ]
        row: Row = {"metric": name} | {
            what: area.text(2) for what, area in zip(CONTROLS, areas, strict=True)
        }
        rows.append((-min(area.mean or 0.0 for area in areas), row))
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def main(args: Sequence[str] | None = None) -> None:
    """Read the command line, score and print a table per set."""
    parser = argparse.ArgumentParser(
        prog="python -m small_world.experiments.rhythm_discrimination",
        description="Which rhythm metrics tell a dance to its music from one to other music?",
    )
    parser.add_argument("--num_clips", type=int, default=48, help="of the small world")
    parser.add_argument("--real", type=Path, nargs="*", default=[], metavar="VIDEO")
    parser.add_argument("--per_video", type=int, default=2, help="dances made of each video")
    parser.add_argument("--spread_ms", type=float, default=80.0, help="how far beats are missed")
    parser.add_argument("--num_shifts", type=int, default=200, help="per clip, for z")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(args)
    compared = measures(num_shifts=options.num_shifts)
    spread: dict[str, float] = {"spread_seconds": options.spread_ms / 1000}
    sets: dict[str, Callable[[], list[Dance]]] = {}
    if options.num_clips:
        sets["small world"] = lambda: small_world_dances(
            options.num_clips, seed=options.seed, **spread
        )
    if options.real:
        sets["re-timed videos"] = lambda: real_dances(
            options.real, options.per_video, seed=options.seed, **spread
        )
    for what, make in sets.items():
        dances = make()
        num_groups = len({dance.group for dance in dances})
        print(f"{what}: n = {len(dances)} dances, intervals over {num_groups}\n")
        print(markdown_table(rows_of(dances, compared)), flush=True)


if __name__ == "__main__":
    with in_one_sentence("rhythm_discrimination"):
        main()
