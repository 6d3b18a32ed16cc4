"""Do songs in windows show their seams, and do they keep the beat to the end?

    python -m small_world.experiments.whole_song music runs/whole_song
    python train.py predict ... --data.init_args.generation.requests runs/whole_song/requests.csv
    python -m small_world.experiments.whole_song measure runs/whole_song/videos --out OUT.json
    python -m small_world.experiments.whole_song colours runs/wan_5b/videos --out OUT.json

The whole command is in docs/generation.md. The songs are held-out pieces of worlds that no training
uses. Motion is the speed of joints that a probe finds in the pixels, and the difference of frames.
Every video counts once in the intervals. ``colours`` looks at colours alone, of videos of any
backbone in windows: how far they move away from the first frame, such as a picture that was given.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks.report import Figure, write_result
from dance_eval.metrics.beat_alignment import beat_alignment
from dance_eval.metrics.intervals import bootstrap_mean
from dance_eval.metrics.motion import frame_difference, kinematic_beats
from dance_eval.tables import csv_table
from datamodules.aist_names import tables
from datamodules.folders import find_videos
from musicinfuser.atomic_files import atomic_file, write_text
from musicinfuser.diffusion.windows import Windows
from musicinfuser.errors import UserError, in_one_sentence
from musicinfuser.generation import SamplingSpec
from musicinfuser.label_files import read_json, read_json_lines
from musicinfuser.media.audio import write_wav
from musicinfuser.media.video import read_clip
from musicinfuser.tables import Row
from small_world.generator.aist_like import aist_piece
from small_world.generator.recipe import SmallWorldRecipe
from small_world.metrics.pose import PoseSpeed

PROBE = "assets/small-world-probes/pose"
SIDE = 64
FPS = 30.0
WORLD_SEED = 200
"""Of the first ten pieces; no world of training, validation or the test sets has it."""
SEAM_FRAMES = 12
"""As wide as the middle of an overlap, where neither window decides."""
VIVID = 60
"""A pixel has a colour if its channels differ by more."""


@dataclass(frozen=True)
class Song:
    """A video's curves and the beats of its music."""

    curves: dict[str, Tensor]
    """By name, one value per frame or step from frame to frame, ``(T,)`` or ``(T - 1,)``."""
    motion: Tensor
    """``(T - 1,)``: the curve whose minima are the kinematic beats."""
    beats_seconds: Tensor
    """On the clip's clock."""
    looks: Tensor
    """``(T, 3)``, see `look`."""


def seam_frames(windows: Windows) -> list[float]:
    """The middle of each overlap of neighbouring windows, in frames."""
    # Latent frame k is shown from frame 6k - 5 to 6k.
    return [
        6 * (after + before + windows.length - 1) / 2 - 2.5
        for before, after in zip(windows.starts, windows.starts[1:], strict=False)
    ]


def look(frames: Tensor) -> Tensor:
    """Mean colour of the pixels that have one, RGB in [0, 255], ``(T, 3)``: skin and clothes."""
    pixels = frames.float()
    is_vivid = (pixels.amax(dim=-1) - pixels.amin(dim=-1) > VIVID).float()
    weighed = (pixels * is_vivid[..., None]).sum(dim=(1, 2))
    return weighed / is_vivid.sum(dim=(1, 2)).clamp(min=1)[:, None]


def look_changes(looks: Tensor, num_frames: int) -> tuple[float, float]:
    """Distance in RGB from the first window of ``num_frames`` to the last, and within the first."""
    first, last, half = looks[:num_frames], looks[-num_frames:], num_frames // 2
    far = first.mean(dim=0) - last.mean(dim=0)
    near = first[:half].mean(dim=0) - first[half:].mean(dim=0)
    return float(far.norm()), float(near.norm())


def at_seams(curve: Tensor, seams: Sequence[float]) -> dict[str, float | list[float]]:
    """Compare stretches around seams with all that lie as far from seams as can be.

    Args:
        curve: ``(N,)``, 0 or more.
        seams: In frames.

    Returns:
        ``ratio``: mean at the seams over the mean elsewhere; ``ranks``: for each seam the share of
        places elsewhere whose mean is smaller.
    """
    means = curve.double().unfold(0, SEAM_FRAMES, 1).mean(dim=1)
    centres = torch.arange(len(means)) + SEAM_FRAMES / 2
    distances = (centres[:, None] - torch.tensor(seams)).abs().amin(dim=1)
    elsewhere = means[distances >= SEAM_FRAMES]
    own = torch.stack([means[(centres - seam).abs().argmin()] for seam in seams])
    ranks = (elsewhere < own[:, None]).double().mean(dim=1)
    return {"ratio": float(own.mean() / elsewhere.mean()), "ranks": ranks.tolist()}


def outside_share(ranks: Sequence[float]) -> float:
    """The share of seams beyond the middle 95 % of what is found elsewhere in their video."""
    return sum(not 0.025 <= rank <= 0.975 for rank in ranks) / len(ranks)


def halves(song: Song, *, sigma_seconds: float = 0.05) -> tuple[float, float]:
    """Beat alignment over motion beats (AIST++) of the first and the second half."""
    middle = (len(song.motion) + 1) / 2 / FPS
    moving = kinematic_beats(song.motion, fps=FPS)
    scores = [
        # Beats just beyond the middle are near to motion on either side of it.
        float(beat_alignment(part, song.beats_seconds, sigma_seconds=sigma_seconds))
        for part in (moving[moving < middle], moving[moving >= middle])
    ]
    return scores[0], scores[1]


def per_video(songs: Sequence[Song], windows: Windows) -> list[dict]:
    """What is kept of each video."""
    seams, num_frames = seam_frames(windows), 6 * windows.length - 5
    return [
        {
            "halves": halves(song),
            "look changes": look_changes(song.looks, num_frames),
            "seams": {name: at_seams(curve, seams) for name, curve in song.curves.items()},
        }
        for song in songs
    ]


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
        figures += [
            mean(f"{name}: at seams / elsewhere", [seam["ratio"] for seam in seams]),
            mean(
                f"{name}: seams beyond the middle 95 % of elsewhere",
                [outside_share(seam["ranks"]) for seam in seams],
                f"0.05 by chance; {len(ranks)} seams",
            ),
        ]
    first, second = zip(*(video["halves"] for video in videos), strict=True)
    changes = [after - before for before, after in zip(first, second, strict=True)]
    far, near = zip(*(video["look changes"] for video in videos), strict=True)
    return [
        *figures,
        mean("beat alignment, first half", first),
        mean("beat alignment, second half", second),
        mean("beat alignment, second half - first", changes),
        mean("colours, first window to last", far, "distance in RGB"),
        mean("colours, within the first window", near, "distance in RGB"),
    ]


def colours_from_first(looks: Tensor, num_frames: int) -> dict[str, float]:
    """Distances in RGB of the first frame, the first ``num_frames`` and the last, each to each.

    Args:
        looks: ``(T, 3)``, see `look`.
        num_frames: Of a window.
    """
    start, first, last = looks[0], looks[:num_frames].mean(dim=0), looks[-num_frames:].mean(dim=0)
    return {
        "first frame to first window": float((first - start).norm()),
        "first frame to last window": float((last - start).norm()),
        "first window to last": float((last - first).norm()),
    }


def colour_figures(videos: Path, rows: Sequence[Mapping[str, Any]]) -> tuple[list[Figure], dict]:
    """Means over videos with their intervals, and what was found of each."""
    found = {}
    for row in rows:
        frames = read_clip(
            videos / row["file"], start_seconds=0.0, num_frames=row["num_frames"], height=SIDE,
            width=SIDE, fps=row["fps"], crop=None,
        )  # fmt: skip
        found[row["file"]] = colours_from_first(look(frames), row["window_frames"])
    figures = []
    for what in next(iter(found.values())):
        mean = bootstrap_mean([of[what] for of in found.values()], seed=0, name=what)
        note = f"{mean.text()}, n = {mean.num_values}; distance in RGB"
        figures.append(Figure(f"colours, {what}", mean.mean, "", note=note))
    return figures, found


def first_pictures(videos: Path, folder: Path) -> list[str]:
    """The first frame of each video as a picture in ``folder``; their names."""
    names = []
    for path in find_videos(videos):
        frames = read_clip(
            path, start_seconds=0.0, num_frames=1, height=SIDE, width=SIDE, crop=None
        )
        names.append(f"{path.stem}.png")
        with atomic_file(folder / names[-1]) as partial:
            Image.fromarray(frames[0].numpy()).save(partial, format="PNG")
    return names


def write_music(
    folder: Path, *, num_songs: int, seconds: float, videos: Path | None = None
) -> None:
    """A wav per song, its beats beside it, and the list of requests.

    With ``videos`` each dance begins with the first frame of one of them, in turn.
    """
    known, rows = tables(), list[Row]()
    pictures = first_pictures(videos, folder / "pictures") if videos else []
    codes = sorted(known.held_out_music)
    for number in range(num_songs):
        code = codes[number % len(codes)]
        recipe = SmallWorldRecipe(seed=WORLD_SEED + number // len(codes))
        piece = aist_piece(code, recipe)
        path = folder / "music" / f"{number:03d}_{code}.wav"
        sound = piece.excerpt(0.0, seconds + 0.5)
        write_wav(path, torch.from_numpy(sound[0]), rate_hz=piece.rate_hz)
        beats = [b for b in piece.beats_seconds if b < seconds]
        write_text(path.with_suffix(".json"), json.dumps({"beats_seconds": beats}) + "\n")
        dancer = "female" if number % 2 else "male"
        prompt = (
            f"a professional {dancer} dancer dancing {known.genres[code[1:3]]} in a basic dance "
            "setting in a studio with a white backdrop, captured from a front view"
        )
        row: Row = {"track": f"music/{path.name}", "prompt": prompt, "seed": number}
        if pictures:
            row = {**row, "image": f"pictures/{pictures[number % len(pictures)]}"}
        rows.append(row)
    write_text(folder / "requests.csv", csv_table(rows))


def song_of(videos: Path, row: Mapping[str, Any], speed: PoseSpeed) -> Song:
    """The curves of a video, from its line in the manifest."""
    frames = read_clip(
        videos / row["file"], start_seconds=0.0, num_frames=row["num_frames"], height=SIDE,
        width=SIDE, fps=FPS, crop=None,
    )  # fmt: skip
    beats = read_json(Path(row["track"]).with_suffix(".json"))["beats_seconds"]
    motion = speed(frames)
    curves = {"joint speed": motion, "frame difference": frame_difference(frames)}
    return Song(curves, motion, torch.tensor(beats, dtype=torch.float64), look(frames))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write music, or measure the videos that were generated for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    music = commands.add_parser("music", help="write music, its beats and requests.csv")
    music.add_argument("folder", type=Path)
    music.add_argument("--songs", type=int, default=32)
    music.add_argument("--seconds", type=float, default=13.0)
    music.add_argument("--pictures", type=Path, help="videos with whose first frames dances begin")
    helps = {"measure": "measure videos of these requests", "colours": "of any videos in windows"}
    for name, what in helps.items():
        command = commands.add_parser(name, help=what)
        command.add_argument("videos", type=Path, help="folder with manifest.jsonl")
        command.add_argument("--out", type=Path, required=True, help="the result, a .json file")
    settings = parser.parse_args(arguments)
    if settings.command == "music":
        write_music(
            settings.folder, num_songs=settings.songs, seconds=settings.seconds,
            videos=settings.pictures,
        )  # fmt: skip
        return
    rows = [row for _, row in read_json_lines(settings.videos / "manifest.jsonl")]
    if not all(row.get("window_frames") for row in rows):
        raise SystemExit(f"{settings.videos}: has videos without windows; ask for more seconds.")
    if settings.command == "colours":
        figures, found = colour_figures(settings.videos, rows)
        write_result(
            settings.out,
            "small_world.experiments.whole_song",
            figures,
            settings=settings,
            details=found,
        )
        return
    names = ("window_frames", "window_overlap_frames")
    try:
        spec = SamplingSpec(1, 1.0, **{name: rows[0][name] for name in names})
    except UserError as error:
        raise UserError(
            f"seams are those of Mochi's windows, the small world's ({error})"
        ) from error
    plan = spec.windows(rows[0]["num_frames"])
    assert plan is not None
    speed = PoseSpeed(PROBE)
    videos = per_video([song_of(settings.videos, row, speed) for row in rows], plan)
    write_result(
        settings.out, "small_world.experiments.whole_song", figures_of(videos), settings=settings,
        details={"window starts": plan.starts, "videos": videos},
    )  # fmt: skip


if __name__ == "__main__":
    with in_one_sentence("whole_song"):
        main()
