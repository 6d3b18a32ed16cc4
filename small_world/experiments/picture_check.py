"""Does what ranks layers on the small world tell good clips from bad ones?

    python -m small_world.experiments.picture_check --set SET --out runs/picture_check

Takes a test set's wild clips (`small_world.generator.test_set --source youtube`), damages them in
known ways and scores all by configs/small_world/picture_metrics.yaml, the metrics of
configs/small_world/adaptability.yaml; beside them what the base makes of the same prompts, with
enough sampling steps and with too few. Each step is kept; writes picture_check.md and
picture_check.json.
"""

import argparse
import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from dance_eval.metrics.intervals import bootstrap_mean
from musicinfuser.atomic_files import write_text
from musicinfuser.keyed_random import generator
from musicinfuser.media.video import probe_video, read_clip
from musicinfuser.media.video_writing import write_video
from musicinfuser.tables import Row, csv_table, markdown_table
from small_world.experiments.commands import call, keep_settings

METRICS = "configs/small_world/picture_metrics.yaml"
VALUES = ("prompt_certainty/certainty", "prompt_obedience/obeyed")
TRUTH, BASE = "ground truth", "base"
Damage = Callable[[Tensor, int], Tensor]


def noise(level: float) -> Damage:
    """Gaussian noise of a standard deviation in grey levels of 255, new in every frame."""

    def damage(frames: Tensor, index: int) -> Tensor:
        drawn = torch.randn(frames.shape, generator=generator(0, index, f"noise {level}"))
        return (frames + level * drawn).round().clamp(0, 255).to(torch.uint8)

    return damage


def blur(sigma_px: float) -> Damage:
    """A Gaussian blur of every frame."""

    def damage(frames: Tensor, index: int) -> Tensor:
        size = 2 * round(3 * sigma_px) + 1
        blurred = gaussian_blur(frames.permute(0, 3, 1, 2), [size, size], [sigma_px, sigma_px])
        return blurred.permute(0, 2, 3, 1).contiguous()

    return damage


DAMAGES: dict[str, Damage] = {
    "noise 20": noise(20.0),
    "noise 60": noise(60.0),
    "blur 2 px": blur(2.0),
    "blur 6 px": blur(6.0),
}


def listed(file: Path) -> list[dict[str, str]]:
    """The lines of a csv file."""
    with file.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def spread(rows: Sequence[dict[str, str]], number: int) -> list[dict[str, str]]:
    """So many rows, spread evenly over all."""
    return [rows[index * len(rows) // number] for index in range(number)]


def write_clips(
    source: Path, rows: Sequence[dict[str, str]], out: Path, system: str, damage: Damage | None
) -> None:
    """Write clips of a folder again, damaged, without sound, and their list."""
    if (out / "clips.csv").exists():
        return
    for index, row in enumerate(rows):
        info = probe_video(source / row["file"])
        frames = read_clip(
            source / row["file"], start_seconds=0.0, height=info.height, width=info.width,
            num_frames=round(info.duration_seconds * info.average_fps), fps=info.average_fps,
            crop=None,
        )  # fmt: skip
        frames = frames if damage is None else damage(frames, index)
        write_video(out / row["file"], frames, fps=info.average_fps)
    kept = [
        {"file": row["file"], "system": system, "track": "", "prompt": row["prompt"]}
        for row in rows
    ]
    write_text(out / "clips.csv", csv_table(kept))


def make_base(requests: Path, out: Path, *, num_steps: int) -> None:
    """What the base makes of the prompts."""
    generation = json.dumps({"requests": str(requests)})
    call(
        "train.py", "predict", "--config", "configs/base.yaml",
        "--config", "configs/small_world/small.yaml",
        "--ckpt_path=null", f"--trainer.default_root_dir={out.parent / '.run'}",
        f"--video_writer.output_dir={out}", f"--video_writer.system={BASE}, {num_steps} steps",
        f"--data.init_args.generation={generation}", "--trainer.enable_progress_bar=false",
        f"--model.init_args.sampling.num_steps={num_steps}", done=out / "manifest.jsonl",
    )  # fmt: skip


def table_rows(document: dict, whole: Sequence[str]) -> tuple[list[Row], dict]:
    """One line per system: means, and the difference to the same clips as they should be.

    Args:
        document: metrics.json.
        whole: Systems whose clips the others spoil, known by equal file names.
    """
    clips: dict[str, dict[str, dict[str, float]]] = {}
    for clip in document["clips"]:
        for value in VALUES:
            metric, _, name = value.partition("/")
            own = clips.setdefault(clip["system"], {}).setdefault(value, {})
            own[clip["file"]] = clip["values"][metric][name]
    rows: list[Row] = []
    figures: dict = {}
    for system, values in clips.items():
        row: dict[str, str | int | float | None] = {"clips": system}
        figures[system] = {}
        for value, own in values.items():
            row[value] = _mean(list(own.values()), value, figures[system])
        own = values[VALUES[0]]
        others = [clips[name][VALUES[0]] for name in whole if name in clips]
        good = next((other for other in others if other.keys() & own.keys()), {})
        apart = [own[file] - good[file] for file in own if file in good and system not in whole]
        row["certainty, difference"] = _mean(apart, "difference", figures[system])
        below = sum(number < 0 for number in apart)
        row["clips below"] = f"{below} of {len(apart)}" if apart else None
        figures[system]["below"] = [below, len(apart)]
        rows.append(row)
    return rows, figures


def _mean(numbers: Sequence[float], name: str, figures: dict) -> str:
    interval = bootstrap_mean(numbers, seed=0, name=name, confidence=0.95)
    figures[name] = {
        "mean": interval.mean, "low": interval.low, "high": interval.high,
        "n": interval.num_values,
    }  # fmt: skip
    return interval.text()


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", type=Path, required=True, help="a test set of wild clips")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--steps", type=int, nargs="*", default=[2, 4, 12, 20], help="of the base")
    settings = parser.parse_args(arguments)
    keep_settings(settings.out, {"clips": settings.clips})
    source = settings.set / "ground_truth"
    rows = spread(listed(source / "clips.csv"), settings.clips)
    folders = [settings.out / "ground_truth"]
    write_clips(source, rows, folders[0], TRUTH, None)
    for name, damage in DAMAGES.items():
        folders.append(settings.out / name.replace(" ", "_"))
        write_clips(source, rows, folders[-1], f"{TRUTH}, {name}", damage)
    # Half a list away, prompts name another dance and other colours.
    half = len(rows) // 2
    swapped = [
        row | {"prompt": other["prompt"]}
        for row, other in zip(rows, rows[half:] + rows[:half], strict=True)
    ]
    folders.append(settings.out / "prompt_of_another")
    write_clips(source, swapped, folders[-1], f"{TRUTH}, prompt of another clip", None)
    requests = [
        row | {"track": str((settings.set / row["track"]).resolve())}
        for row in spread(listed(settings.set / "own.csv"), settings.clips)
    ]
    write_text(settings.out / "requests.csv", csv_table(requests))
    for num_steps in settings.steps:
        folders.append(settings.out / f"base_{num_steps}_steps")
        make_base(settings.out / "requests.csv", folders[-1], num_steps=num_steps)
    scores = settings.out / "scores.json"
    call(
        "evaluate.py", "score", *folders, "--metrics", METRICS, "--output", scores, done=scores,
        again=True,  # folders may have come
    )  # fmt: skip
    best = f"{BASE}, {max(settings.steps, default=0)} steps"
    table, figures = table_rows(json.loads(scores.read_text()), [TRUTH, best])
    write_text(settings.out / "picture_check.md", markdown_table(table))
    write_text(settings.out / "picture_check.json", json.dumps(figures, indent=1) + "\n")
    print(markdown_table(table))


if __name__ == "__main__":
    main()
