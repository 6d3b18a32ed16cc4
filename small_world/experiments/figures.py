"""The figures of the small world: does the adapted model dance to the beat of unheard music?

    python -m small_world.experiments.figures --cache runs/parts/cache --out runs/figures

Makes two worlds that no training has seen, one to choose on and one to report; adapts the base with
three seeds through `train.py fit`; generates with `train.py predict`; scores with `evaluate.py`.
Every step is kept, so the command can be stopped and repeated. Writes figures.json and figures.md.
"""

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean

from dance_eval.metrics.intervals import bootstrap_mean
from dance_eval.metrics.tempo_response import (
    SYSTEM_MARK,
    TempoClip,
    tempo_ratios,
    tempo_response,
)
from musicinfuser.atomic_files import atomic_file, write_text
from musicinfuser.tables import Row, markdown_table
from small_world.experiments.commands import call, keep_settings

WORLD_SEEDS = {"validation": 3, "test": 2}
TEMPI = ("0.75", "1.25")
FPS = 30.0
WAYS = {"one_pass": "", "windows": ", in windows"}
"""How clips longer than those of training are sampled -> what their system's name ends with."""
MEASURED = {
    "beat alignment, pixels": "beat_alignment/score",
    "its chance level": "beat_alignment/chance",
    "beat alignment, pose": "pose_beat_alignment/score",
    "pose, its chance level": "pose_beat_alignment/chance",
    "torso and beat, correlation": "torso_beat/correlation",
    "prompt obeyed": "prompt_obedience/obeyed",
}
"""Column of the table -> value in metrics.json."""


@dataclass(frozen=True)
class System:
    """What generates, for which list of requests.

    Attributes:
        name: Row of the table; clips that hear another track get one of their own.
        requests: List of the test set.
        adapted: With the trained adapters, once per seed; else the base alone, once.
        music_guidance: ``sampling.music_guidance_scale``.
    """

    name: str
    requests: str
    adapted: bool
    music_guidance: float = 1.0

    def folder(self, seed: int) -> str:
        """Where its clips go."""
        name = self.name + (", mismatched audio" if self.requests == "other" else "")
        name = name.replace(", ", "_").replace(" ", "_")
        return f"{name}_seed{seed}" if self.adapted else name


def systems(music_guidance: float) -> list[System]:
    """The rows of the table that are generated."""
    guided = f"adapted, music guidance {music_guidance:g}"
    return [
        System("base", "own", adapted=False),
        System("adapted", "own", adapted=True),
        System("adapted", "other", adapted=True),
        System(guided, "own", True, music_guidance),
        System(guided, "other", True, music_guidance),
    ]


def make_set(
    kind: str, source: str, settings: argparse.Namespace, *, name: str = "",
    options: Sequence[str] = (),
) -> Path:  # fmt: skip
    """The test set of one source in the world of one kind; returns its folder."""
    world = settings.out / kind / "world"
    call(
        "-m", "small_world.generator", world, "--seed", str(WORLD_SEEDS[kind]),
        "--num-aist", "1", "--held-out", str(settings.clips + 24),
        "--num-youtube", str(2 * settings.clips), "--num-silent", "0", "--num-without-audio", "0",
        "--num-workers", str(settings.workers), done=world.parent / "world_is_made",
    )  # fmt: skip
    folder = settings.out / kind / (name or source)
    done = folder.parent / f"{folder.name}_is_made"
    call(
        "-m", "small_world.generator.test_set", world, folder, "--num-clips",
        str(settings.clips), "--source", source, *options, done=done,
    )  # fmt: skip
    return folder


def adapt(seed: int, settings: argparse.Namespace) -> Path:
    """Train the adapters with one seed; returns the folder of checkpoints."""
    folder = settings.out / "adapted" / f"seed{seed}"
    call(
        "train.py", "fit", "--config", "configs/base.yaml",
        "--config", "configs/small_world/small.yaml",
        f"--trainer.default_root_dir={folder}", f"--seed_everything={seed}",
        f"--data.init_args.cache_dir={settings.cache}", f"--trainer.max_steps={settings.steps}",
        "--sample_generation.every_n_steps=0", "--trainer.enable_progress_bar=false",
        *settings.options, done=folder / "is_trained",
    )  # fmt: skip
    return folder / "checkpoints"


def generate(
    system: System, clips: Path, videos: Path, checkpoint: Path | None,
    settings: argparse.Namespace, *, num_seconds: float | None = None,
) -> None:  # fmt: skip
    """Generate a system's clips for a list of requests; with ``num_seconds`` in windows."""
    generation: dict[str, str | float] = {"requests": str(clips / f"{system.requests}.csv")}
    if num_seconds is not None:
        generation["num_seconds"] = num_seconds
    call(
        "train.py", "predict", "--config", "configs/base.yaml",
        "--config", "configs/small_world/small.yaml",
        f"--ckpt_path={'null' if checkpoint is None else checkpoint}",
        f"--trainer.default_root_dir={videos.parent / '.run'}",
        f"--video_writer.output_dir={videos}", f"--video_writer.system={system.name}",
        f"--data.init_args.generation={json.dumps(generation)}",
        f"--model.init_args.sampling.music_guidance_scale={system.music_guidance}",
        "--trainer.enable_progress_bar=false", *settings.sampling, *settings.options,
        done=videos / "manifest.jsonl",
    )  # fmt: skip


def score(folders: Sequence[Path], clips: Path, output: Path, *, beats: str = "truth") -> dict:
    """Score folders against the beats of their own clips or, swapped, of other clips."""
    call(
        "evaluate.py", "score", *folders, "--metrics", "configs/small_world/metrics.yaml",
        "--music_beats", "truth", "--beats_folder", clips / beats, "--output", output,
        done=output, again=True,  # systems may have come
    )  # fmt: skip
    return json.loads(output.read_text())


def swap_beats(clips: Path) -> None:
    """Write every clip's beats under the name of the clip that `other.csv` pairs it with."""
    with (clips / "other.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            own, other = Path(row["track"]).stem, Path(row["heard"]).stem
            beats = json.loads((clips / "truth" / f"{other}.json").read_text())["beats_seconds"]
            text = json.dumps({"beats_seconds": beats})
            write_text(clips / "truth_of_another" / f"{own}.json", text)


def per_clip(document: dict, value: str) -> dict[str, dict[str, float]]:
    """A value by system and track, the mean over the seeds of adaptation."""
    metric, _, name = value.partition("/")
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for clip in document["clips"]:
        number = clip["values"].get(metric, {}).get(name)
        if number is not None:
            found[clip["system"]][Path(clip["track"]).stem].append(number)
    return {s: {track: fmean(v) for track, v in tracks.items()} for s, tracks in found.items()}


def table_rows(documents: dict[str, dict]) -> tuple[list[Row], dict]:
    """One row per system and kind of beats; intervals are over clips, seeds being averaged."""
    rows: list[Row] = []
    figures: dict = {}
    for beats, document in documents.items():
        columns = {title: per_clip(document, value) for title, value in MEASURED.items()}
        for system in document["systems"]:
            row: dict[str, str | int | float | None] = {"system": system, "beats of": beats}
            for title, values in columns.items():
                numbers = list(values.get(system, {}).values())
                if not numbers:
                    row[title] = None
                    continue
                interval = bootstrap_mean(numbers, seed=0, name=title, confidence=0.95)
                row[title] = interval.text()
                row["clips"] = interval.num_values
                figures.setdefault(f"{system} | beats of {beats}", {})[title] = {
                    "mean": interval.mean, "low": interval.low, "high": interval.high,
                    "n": interval.num_values,
                }  # fmt: skip
            rows.append(row)
    return rows, figures


def tempo_clips(documents: dict[str, dict]) -> dict[str, list[TempoClip]]:
    """Dominant frequency of motion of all clips by system; units are tracks, runs are folders."""
    found: dict[str, list[TempoClip]] = defaultdict(list)
    for tempo, document in documents.items():
        for clip in document["clips"]:
            hertz = clip["values"].get("pose_frequency", {}).get("hertz")
            if hertz is not None:
                request, run = Path(clip["track"]).stem, Path(clip["folder"]).name
                system = SYSTEM_MARK.sub("", clip["system"])
                found[system].append(TempoClip(hertz, float(tempo), request, run))
    return found


def tempo_rows(documents: dict[str, dict]) -> tuple[list[Row], dict]:
    """How motion follows music at another tempo: frequency against the same clip at its own.

    The median is over clips and seeds; clips are resampled for its interval, each with its seeds.
    """
    rows: list[Row] = []
    figures: dict = {}
    by_system = tempo_clips(documents)
    for tempo in TEMPI:
        for system, of_system in by_system.items():
            by_clip, _ = tempo_ratios(of_system, tempo=float(tempo))
            clips = list(by_clip.values())
            if not clips:
                continue
            ratio, hits = tempo_response(clips, seed=0, name=f"{system} {tempo}")
            rows.append(
                {
                    "system": system, "tempo": tempo, "median ratio / tempo": ratio.text(),
                    "within 10 %": hits.text(), "clips": len(clips),
                    "seeds": max(map(len, clips)),
                }
            )  # fmt: skip
            figures[f"{system} | tempo {tempo}"] = {
                "median ratio / tempo": {
                    "median": ratio.mean, "low": ratio.low, "high": ratio.high,
                },
                "within 10 %": {"mean": hits.mean, "low": hits.low, "high": hits.high},
                "n": len(clips),
            }  # fmt: skip
    return rows, figures


def report(kind: str, source: str, settings: argparse.Namespace, seeds: Sequence[int]) -> dict:
    """Generate and score all systems on one test set; returns what figures.json holds of it."""
    clips = make_set(kind, source, settings)
    swap_beats(clips)
    folders = [clips / "ground_truth", clips / "reconstructed"]
    call("-m", "small_world.experiments.reconstruct", *folders, done=folders[1] / "clips.csv")
    for system in systems(settings.music_guidance):
        for seed in seeds if system.adapted else seeds[:1]:
            videos = clips / "generated" / system.folder(seed)
            checkpoint = adapt(seed, settings) if system.adapted else None
            generate(system, clips, videos, checkpoint, settings)
            folders.append(videos)
    documents = {
        "the clip": score(folders, clips, clips / "scores.json"),
        "another clip": score(
            folders, clips, clips / "scores_another.json", beats="truth_of_another"
        ),
    }
    rows, figures = table_rows(documents)
    write_text(settings.out / f"{kind}_{source}.md", markdown_table(rows))
    print(markdown_table(rows))
    return figures


def drop_lengths(clips: Path) -> None:
    """Write `own.csv` again without the numbers of frames, which a length in seconds replaces."""
    with (clips / "own.csv").open(newline="") as stream:
        rows = [
            {k: v for k, v in row.items() if k != "num_frames"} for row in csv.DictReader(stream)
        ]
    with atomic_file(clips / "any_length.csv") as path, path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def report_tempo(settings: argparse.Namespace) -> dict:
    """The same clips to music at other tempi; returns what figures.json holds of it."""
    options = ["--num-frames", str(settings.tempo_frames), "--tempo", *TEMPI]
    clips = make_set("test", "aist", settings, name="tempo", options=options)
    one_pass = systems(settings.music_guidance)[3]
    documents = {}
    for tempo in ("1", *TEMPI):
        part = clips if tempo == "1" else clips / f"tempo_{tempo}"
        drop_lengths(part)
        folders = [part / "ground_truth"]
        for way, seed in product(settings.tempo_ways, settings.seeds[: settings.tempo_seeds]):
            system, num_seconds = replace(one_pass, name=one_pass.name + WAYS[way]), None
            name = f"adapted_seed{seed}"
            if way == "windows":
                name, system = f"in_windows_seed{seed}", replace(system, requests="any_length")
                num_seconds = settings.tempo_frames / FPS
            folders.append(part / "generated" / name)
            checkpoint = adapt(seed, settings)
            generate(system, part, folders[-1], checkpoint, settings, num_seconds=num_seconds)
        documents[tempo] = score(folders, part, part / "scores.json")
    rows, figures = tempo_rows(documents)
    write_text(settings.out / "tempo.md", markdown_table(rows))
    print(markdown_table(rows))
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True, help="what the encode job wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500, help="of adaptation")
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--kinds", nargs="+", default=["validation", "test"])
    parser.add_argument("--sources", nargs="+", default=["aist", "youtube"])
    parser.add_argument("--music_guidance", type=float, default=3.0)
    parser.add_argument("--tempo_frames", type=int, default=0, help="e.g. 145; 0 leaves it out")
    parser.add_argument("--tempo_seeds", type=int, default=3, help="of the adaptations")
    parser.add_argument("--tempo_ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--workers", type=int, default=2, help="processes that make worlds")
    parser.add_argument("--options", nargs="*", default=[], help="further options of train.py")
    parser.add_argument("--sampling", nargs="*", default=[], help="further options of predict")
    settings = parser.parse_args(arguments)
    names = ("cache", "steps", "clips", "music_guidance", "options", "sampling")
    keep_settings(settings.out, {name: getattr(settings, name) for name in names})
    figures = {
        f"{kind}, {source}": report(kind, source, settings, settings.seeds)
        for kind in settings.kinds
        for source in settings.sources
    }
    if settings.tempo_frames:
        figures["test, tempo"] = report_tempo(settings)
    write_text(settings.out / "figures.json", json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
