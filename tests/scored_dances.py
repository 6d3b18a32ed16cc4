"""Clips that dance on or off the beat of a known song, and a metric that counts its calls."""

import json

import yaml

from dance_eval.metrics.clip import ClipMetric
from evaluate import main
from musicinfuser.media.video_writing import write_video
from tests.dancing_square import click_track, swinging_square

NUM_CLIPS = 8
SCORE = "beat_alignment/score"


class Brightness(ClipMetric):
    """Counts its calls, fails on one clip and gives no number for another."""

    value_names = ("mean_level",)
    in_workers = False
    scored: list[str] = []

    def __init__(self, *, failing: str = "", undefined: str = "", name: str = "brightness"):
        super().__init__(name=name)
        self.failing = failing
        self.undefined = undefined

    def score_clip(self, clip):
        self.scored.append(clip.name)
        if clip.name == self.failing:
            raise RuntimeError("out of memory")
        level = float(clip.frames.float().mean())
        return {"mean_level": float("nan") if clip.name == self.undefined else level}


def write_dance(path, *, phase_seconds=0.2, beats=None, num_frames=73, sound=True):
    frames = swinging_square(
        num_frames=num_frames, fps=30.0, period_seconds=0.5, phase_seconds=phase_seconds
    )
    duration = num_frames / 30
    audio = click_track(beats or [], duration_seconds=duration, rate_hz=16000) if sound else None
    write_video(path, frames, fps=30.0, audio=audio, audio_rate_hz=16000 if sound else None)


def known_beats(path, beats_seconds):
    path.write_text(json.dumps({"beats_seconds": beats_seconds}))


def metrics_file(path, *names, **init_args):
    path.write_text(
        yaml.safe_dump(
            [{"class_path": name, "init_args": init_args.get(name, {})} for name in names]
        )
    )
    return path


def score(*arguments, output, num_workers=1):
    options = [f"--output={output}", "--music_beats=truth", f"--num_workers={num_workers}"]
    main(["score", *map(str, arguments), *options])
    return json.loads(output.read_text())
