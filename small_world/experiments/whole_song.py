"""Do songs in windows show their seams, and do they keep the beat to the end?

    python -m small_world.experiments.whole_song --checkpoint runs/figures/adapted/seed1/checkpoints/last.ckpt \
        --folder runs/whole_song --out small_world/experiments/results/whole_song.json

Dances to held-out pieces of worlds nobody has seen, through `train.py predict`; the videos are
kept, so the command can be stopped and repeated. Motion is the speed of joints that a probe finds
in the pixels, and the difference of frames. Every video counts once in the intervals.
"""  # noqa: E501

import argparse
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.report import Figure, parser, write_result
from dance_eval.metrics.intervals import bootstrap_mean
from dance_eval.metrics.motion import frame_difference
from datamodules.aist_names import tables
from musicinfuser.atomic_files import write_text
from musicinfuser.clip_size import frames_within
from musicinfuser.generation import SamplingSpec
from musicinfuser.media.audio import write_wav
from musicinfuser.media.video import read_clip
from small_world.experiments.commands import call, keep_settings
from small_world.experiments.song_motion import (
    FPS,
    Song,
    detail,
    look,
    outside_share,
    per_video,
    percentiles_of,
)
from small_world.generator.aist_like import aist_piece
from small_world.generator.recipe import SmallWorldRecipe
from small_world.metrics.pose import PoseSpeed

PROBE = "assets/small-world-probes/pose"
SIDE = 64
WORLD_SEED = 200
"""Of the first ten pieces; no world of training, validation or the test sets has it."""


def write_music(settings: argparse.Namespace) -> list[Path]:
    """A wav per video, its beats beside it, and the list of requests."""
    known, tracks, rows = tables(), [], io.StringIO()
    writer = csv.writer(rows)
    writer.writerow(("track", "prompt", "seed"))
    codes = sorted(known.held_out_music)
    for number in range(settings.videos):
        code = codes[number % len(codes)]
        recipe = SmallWorldRecipe(seed=WORLD_SEED + number // len(codes))
        piece = aist_piece(code, recipe)
        path = settings.folder / "music" / f"{number:03d}_{code}.wav"
        sound = piece.excerpt(0.0, settings.seconds + 0.5)
        write_wav(path, torch.from_numpy(sound[0]), rate_hz=piece.rate_hz)
        beats = [b for b in piece.beats_seconds if b < settings.seconds]
        write_text(path.with_suffix(".json"), json.dumps({"beats_seconds": beats}) + "\n")
        dancer = "female" if number % 2 else "male"
        prompt = (
            f"a professional {dancer} dancer dancing {known.genres[code[1:3]]} in a basic dance "
            "setting in a studio with a white backdrop, captured from a front view"
        )
        writer.writerow((f"music/{path.name}", prompt, number))
        tracks.append(path)
    write_text(settings.folder / "requests.csv", rows.getvalue())
    return tracks


def generate(settings: argparse.Namespace) -> Path:
    """All videos; returns their folder."""
    videos = settings.folder / "videos"
    generation = {
        "requests": str(settings.folder / "requests.csv"),
        "finished": {"folder": str(videos)},
        **({"num_frames": num_frames(settings)} if settings.one_pass else {}),
        **({} if settings.one_pass else {"num_seconds": settings.seconds}),
    }
    call(
        "train.py", "predict", "--config", "configs/base.yaml",
        "--config", "configs/small_world/small.yaml",
        f"--ckpt_path={settings.checkpoint}", f"--trainer.default_root_dir={settings.folder}",
        f"--video_writer.output_dir={videos}", "--video_writer.system=whole songs",
        f"--data.init_args.generation={json.dumps(generation)}",
        f"--model.init_args.sampling.music_guidance_scale={settings.music_guidance}",
        f"--model.init_args.sampling.window_frames={settings.window_frames}",
        f"--model.init_args.sampling.window_overlap_frames={settings.overlap_frames}",
        f"--model.init_args.sampling.window_noise={settings.window_noise}",
        "--trainer.enable_progress_bar=false", *settings.sampling,
        done=videos / "manifest.jsonl", again=True,
    )  # fmt: skip
    return videos


def num_frames(settings: argparse.Namespace) -> int:
    """Frames of a video."""
    return frames_within(settings.seconds, fps=FPS)


def measured(videos: Path) -> list[Song]:
    """The curves of every video of a folder."""
    speed, songs = PoseSpeed(PROBE), []
    for line in (videos / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        frames = read_clip(
            videos / row["file"], start_seconds=0.0, num_frames=row["num_frames"], height=SIDE,
            width=SIDE, fps=FPS, crop=None,
        )  # fmt: skip
        beats = json.loads(Path(row["track"]).with_suffix(".json").read_text())["beats_seconds"]
        motion = speed(frames)
        curves = {
            "joint speed": motion, "frame difference": frame_difference(frames),
            "detail": detail(frames),
        }  # fmt: skip
        on_clock = torch.tensor(beats, dtype=torch.float64)
        songs.append(Song(curves, motion, on_clock, look(frames)))
    return songs


def figures_of(videos: Sequence[dict]) -> list[Figure]:
    """Means over videos with their intervals, and where seams lie among other places."""

    def mean(what: str, values: Sequence[float], note: str = "") -> Figure:
        found = bootstrap_mean(values, seed=0, name=what)
        note = "; ".join(filter(None, (f"{found.text()}, n = {found.num_values}", note)))
        return Figure(what, found.mean, "", note=note)

    figures = []
    for name in videos[0]["seams"]:
        seams = [video["seams"][name] for video in videos]
        ranks = [rank for seam in seams for rank in seam["ranks"]]
        figures.append(mean(f"{name}: at seams / elsewhere", [seam["ratio"] for seam in seams]))
        figures.append(
            mean(
                f"{name}: seams beyond the middle 95 % of elsewhere",
                [outside_share(seam["ranks"]) for seam in seams],
                f"0.05 by chance; {len(ranks)} seams, percentiles of their ranks "
                + ", ".join(f"{p}: {value:.2f}" for p, value in percentiles_of(ranks).items()),
            )
        )
    first, second = zip(*(video["halves"] for video in videos), strict=True)
    figures.append(mean("beat alignment, first half", first))
    figures.append(mean("beat alignment, second half", second))
    changes = [after - before for before, after in zip(first, second, strict=True)]
    figures.append(mean("beat alignment, second half - first", changes))
    far, near = zip(*(video["look changes"] for video in videos), strict=True)
    figures.append(mean("colours, first window to last", far, "distance in RGB"))
    figures.append(mean("colours, within the first window", near, "distance in RGB"))
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what is missing, measure, print and write."""
    options = parser(__doc__)
    options.add_argument("--folder", type=Path, required=True, help="of music and videos")
    options.add_argument("--checkpoint", type=Path, required=True, help="of adapters")
    options.add_argument("--videos", type=int, default=32)
    options.add_argument("--seconds", type=float, default=13.0)
    options.add_argument("--music_guidance", type=float, default=3.0)
    spec = SamplingSpec(num_steps=1, guidance_scale=1.0)
    options.add_argument("--window_frames", type=int, default=spec.window_frames)
    options.add_argument("--overlap_frames", type=int, default=spec.window_overlap_frames)
    options.add_argument("--window_noise", default=spec.window_noise)
    options.add_argument("--one_pass", action="store_true", help="for comparison: no windows")
    options.add_argument("--sampling", nargs="*", default=[], help="further options of predict")
    settings = options.parse_args(arguments)
    keep_settings(
        settings.folder,
        {name: value for name, value in vars(settings).items() if name not in ("out", "folder")},
    )
    write_music(settings)
    songs = measured(generate(settings))
    plan = SamplingSpec(
        1, 1.0, window_frames=settings.window_frames, window_overlap_frames=settings.overlap_frames
    ).windows(num_frames(settings))
    if plan is None:
        raise SystemExit(f"{settings.seconds} s fit one window; ask for more seconds.")
    videos = per_video(songs, plan)
    write_result(
        settings.out, "small_world.whole_song", figures_of(videos), settings=settings,
        details={"window starts": plan.starts, "videos": videos},
    )  # fmt: skip


if __name__ == "__main__":
    main()
