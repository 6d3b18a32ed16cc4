"""Train and judge the probes that judge videos of the small world.

    python -m small_world.experiments.train_probes --world runs/parts/world \
        --vae assets/small-mochi --out assets/small-world-probes

Clips are cut as `configs/small_world/encode.yaml` cuts them; a third of them is seen through the
VAE as well, as generated clips are. Judged on clips to held-out music, on group dances kept out,
and on the last videos from the wild.
"""

import dataclasses
import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dance_eval.metrics.beat_alignment import BeatAlignment
from dance_eval.metrics.clip import ClipMetric, ScoredClip
from dance_eval.metrics.intervals import bootstrap_mean
from datamodules.aist_names import tables
from musicinfuser.atomic_files import write_text
from musicinfuser.errors import in_one_sentence
from musicinfuser.tables import Row, markdown_table
from small_world.experiments.probe_clips import (
    CLASSES,
    UNKNOWN,
    CutOptions,
    ProbeClips,
    open_clips,
)
from small_world.experiments.probe_training import (
    FrameDraws,
    described,
    train_frames,
    train_moves,
    train_pose,
)
from small_world.generator import read_recipe
from small_world.generator.dancer import JOINTS
from small_world.generator.recipe import parser_of
from small_world.generator.wardrobe import (
    BOTTOMS,
    TOPS,
    WALLS,
    WILD_BACKDROPS,
    WORDS,
    backdrop_words,
)
from small_world.metrics.attributes import MOTION, AttributeNet
from small_world.metrics.pose import PoseNet, PoseSpeed
from small_world.metrics.probes import WEIGHTS_NAME
from small_world.metrics.torso_beat_correlation import TorsoBeatCorrelation

WIDTHS = {"fine_width": 32, "coarse_width": 64}


def prompt_phrases() -> dict[str, dict[str, dict[str, str]]]:
    """What captions of the small world say, and what it stands for; see `named_in`."""
    backdrops = {phrase: {"backdrop_kind": "studio"} for phrase in WORDS["studio_phrases"]}
    for kind in WILD_BACKDROPS:
        for first in WALLS:
            for second in WALLS:
                words = backdrop_words(kind, first, second)
                phrase = re.sub(r"^(in front of|on) an? ", "", words)
                backdrops[phrase] = {"backdrop_kind": kind, "backdrop_colour": first}
    return {
        "genre": {name: {MOTION: code} for code, name in tables().genres.items()},
        "top": {f"{c} {noun}": {"top": c} for c in TOPS for noun in ("shirt", "shirts")},
        "bottom": {f"{c} trousers": {"bottom": c} for c in BOTTOMS},
        "backdrop": backdrops,
    }


def train(
    clips: ProbeClips, *, size: int, seed: int, num_steps: tuple[int, int, int]
) -> tuple[PoseNet, AttributeNet]:
    """Train both probes on the training clips; steps for the joints, the looks and the moves."""
    torch.manual_seed(seed)
    pose = PoseNet({"size": size, **WIDTHS, "joints": list(JOINTS)})
    classes = {name: list(classes) for name, classes in CLASSES.items()}
    looks = AttributeNet({"size": size, **WIDTHS, "classes": classes, "phrases": prompt_phrases()})
    chosen = clips.where(held_out=False)
    solo = [number for number in chosen if clips.is_solo(number)]
    draws = FrameDraws(clips, solo, seed=seed, purpose="probe pose")
    train_pose(pose, draws, num_steps=num_steps[0])
    # Where limbs are says most of what is danced, so that this trunk starts from the other.
    looks.trunk.load_state_dict(pose.trunk.state_dict())
    labels = {name: torch.from_numpy(values) for name, values in clips.labels.items()}
    draws = FrameDraws(clips, chosen, seed=seed, purpose="probe looks")
    train_frames(looks, draws, labels, num_steps=num_steps[1])
    poses, numbers = described(looks, clips, chosen, seed=seed)
    train_moves(looks, poses, labels[MOTION][numbers], num_steps=num_steps[2], seed=seed)
    return pose, looks


JUDGED = ("score", "correlation", "chance")


def judge(clips: ProbeClips, folder: Path, *, fps: float, seed: int) -> dict[str, str]:
    """Two tables of held-out clips of each source, raw and through the VAE.

    Returns:
        ``probe_table``: error of the joints and accuracy with n per attribute; ``metric_table``:
        metrics of ground truth on lone dancers, with 95 % intervals.
    """
    weights = str(folder / "pose")
    pose, looks = PoseNet.load(weights), AttributeNet.load(folder / "attributes")
    metrics: list[ClipMetric] = [
        BeatAlignment(name="beat_alignment"),
        BeatAlignment(name="pose_beat_alignment", motion=PoseSpeed(weights)),
        TorsoBeatCorrelation(weights=weights),
    ]
    of_probes: list[Row] = []
    of_metrics: list[Row] = []
    for source, place in (("aist", "studio"), ("youtube", "wild")):
        numbers = clips.where(held_out=True, source=source)
        for version, kind in enumerate(("raw", "through the VAE")):
            title = {"clips": f"{place}, {kind}"}
            frames = {n: clips.versions(n)[version] for n in tqdm(numbers, title["clips"])}
            of_probes.append(title | _judge_probes(clips, frames, pose, looks))
            of_metrics.append(title | _judge_metrics(clips, frames, metrics, fps=fps, seed=seed))
    return {"probe_table": markdown_table(of_probes), "metric_table": markdown_table(of_metrics)}


def _judge_probes(
    clips: ProbeClips, frames: dict[int, Tensor], pose: PoseNet, looks: AttributeNet
) -> dict[str, str]:
    squares: list[float] = []
    hits: dict[str, list[bool]] = {name: [] for name in [*CLASSES, "backdrop"]}
    for number, own in frames.items():
        if clips.is_solo(number):
            error = pose.read(own).numpy() - clips.joints[number]
            squares.append(float((error**2).sum(axis=-1).mean()))
        logits, labels = looks.read(own), clips.records[number]["labels"]
        for name in CLASSES:
            if labels[name] != UNKNOWN:
                hits[name].append(int(logits[name].argmax()) == labels[name])
        # As the metric judges it: kind and, but for the studio, colour together.
        has_colour = labels["backdrop_colour"] != UNKNOWN
        is_right = hits["backdrop_kind"][-1] and (not has_colour or hits["backdrop_colour"][-1])
        hits["backdrop"].append(is_right)
    shares = {
        name: f"{100 * np.mean(h):.1f} % (n = {len(h)})" if h else "" for name, h in hits.items()
    }
    rmse = f"{100 * np.mean(squares) ** 0.5:.2f} % (n = {len(squares)})" if squares else ""
    return {"joints, RMSE": rmse, **shares}


def _judge_metrics(
    clips: ProbeClips, frames: dict[int, Tensor], metrics: Sequence[ClipMetric], *,
    fps: float, seed: int,
) -> dict[str, str]:  # fmt: skip
    found: dict[str, list[float]] = {
        f"{metric.name}/{name}": [] for metric in metrics for name in JUDGED
        if name in metric.value_names
    }  # fmt: skip
    for number, own in frames.items():
        record = clips.records[number]
        if not clips.is_solo(number) or len(record["beats_seconds"]) < 2:
            continue
        beats = torch.tensor(record["beats_seconds"], dtype=torch.float64)
        clip = ScoredClip(own, fps, None, 1, record["clip_id"], seed, beats)
        for metric in metrics:
            values = metric.score_clip(clip)
            for name in values.keys() & set(JUDGED):
                found[f"{metric.name}/{name}"].append(values[name])
    intervals = {n: bootstrap_mean(v, seed=seed, name=n).text() for n, v in found.items()}
    return {"n": str(len(next(iter(found.values())))), **intervals}


def main(args: Sequence[str] | None = None) -> None:
    """Read the command line, train, judge and write."""
    said = "Train the probes that judge videos of the small world."
    parser = parser_of("experiments.train_probes", said, CutOptions)
    parser.add_argument("--world", type=Path, required=True, help="a small world")
    parser.add_argument("--vae", type=Path, required=True, help="folder with a vae in it")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/parts/probe_clips"), help="for decoded clips"
    )
    parser.add_argument("--pose-steps", type=int, default=4000, help="of 64 frames")
    parser.add_argument("--look-steps", type=int, default=4000, help="of 64 frames")
    parser.add_argument("--move-steps", type=int, default=1500, help="of 64 clips")
    parser.add_argument("--judge-only", action="store_true", help="keep the weights in OUT")
    options = parser.parse_args(args)
    cut = CutOptions(**{f.name: getattr(options, f.name) for f in dataclasses.fields(CutOptions)})
    clips = open_clips(options.world, options.vae, options.cache, cut)
    seconds = time.process_time()
    if not options.judge_only:
        num_steps = options.pose_steps, options.look_steps, options.move_steps
        pose, looks = train(clips, size=cut.height, seed=cut.seed, num_steps=num_steps)
        pose.save(options.out / "pose")
        looks.save(options.out / "attributes")
    minutes = (time.process_time() - seconds) / 60
    # As they will be used: read back from fp16.
    tables_made = judge(clips, options.out, fps=cut.fps, seed=cut.seed)
    print(*tables_made.values(), sep="\n")
    if options.judge_only:
        return
    training, recipe = clips.where(held_out=False), read_recipe(options.world)
    sizes = {
        f"{name}_size": (options.out / folder / WEIGHTS_NAME).stat().st_size / 1e6
        for name, folder in (("pose", "pose"), ("looks", "attributes"))
    }
    card = Path(__file__).with_name("probe_card.md").read_text("utf-8").format(
        **vars(options), **tables_made, **sizes, minutes=minutes,
        num_raw=len(training), num_decoded=len(np.intersect1d(training, clips.decoded_index)),
        world_options=f"--seed {recipe.seed} --num-aist {recipe.num_aist} "
        f"--held-out {recipe.num_held_out} --num-youtube {recipe.num_youtube}",
    )  # fmt: skip
    write_text(options.out / "README.md", card)


if __name__ == "__main__":
    with in_one_sentence("train_probes"):
        main()
