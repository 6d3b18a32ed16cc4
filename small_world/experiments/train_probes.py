"""Train and judge the probes that judge videos of the small world.

    python -m small_world.experiments.train_probes --world runs/parts/world \
        --vae assets/small-mochi --out assets/small-world-probes

Clips are cut as `configs/small_world/encode.yaml` cuts them; a third of them is seen through the
VAE as well, as generated clips are. Judged on clips to held-out music, on group dances kept out,
and on the last videos from the wild.
"""

import argparse
import dataclasses
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dance_eval.metrics.beat_alignment import BeatAlignment
from dance_eval.metrics.clip import ClipMetric
from datamodules.aist_names import tables
from musicinfuser.atomic_files import write_text
from musicinfuser.errors import UserError
from small_world.experiments.probe_clips import (
    CLASSES,
    CutOptions,
    ProbeClips,
    open_clips,
)
from small_world.experiments.probe_judging import held_out_takes, judge_metrics, judge_probes
from small_world.experiments.probe_training import (
    FrameDraws,
    described,
    train_frames,
    train_moves,
    train_pose,
)
from small_world.generator import read_recipe
from small_world.generator.dancer import JOINTS
from small_world.generator.wardrobe import BOTTOMS, TOPS, WALLS, WILD_BACKDROPS, backdrop_words
from small_world.metrics.attributes import MOTION, AttributeNet
from small_world.metrics.pose import PoseNet, PoseSpeed
from small_world.metrics.torso_beat_correlation import TorsoBeatCorrelation

STUDIO_PHRASES = (
    "studio with a white backdrop",
    "against a white background",
    "minimalist studio space",
    "pristine white studio",
)
"""How the four captions of AIST clips say "in the studio"."""

WIDTHS = {"fine_width": 32, "coarse_width": 64}


def prompt_phrases() -> dict[str, dict[str, dict[str, str]]]:
    """What captions of the small world say, and what it stands for; see `named_in`."""
    backdrops = {phrase: {"backdrop_kind": "studio"} for phrase in STUDIO_PHRASES}
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
    clips: ProbeClips, *, size: int, seed: int, num_pose_steps: int, num_look_steps: int,
    num_move_steps: int,
) -> tuple[PoseNet, AttributeNet]:  # fmt: skip
    """Train both probes on the training clips."""
    torch.manual_seed(seed)
    pose = PoseNet({"size": size, **WIDTHS, "joints": list(JOINTS)})
    looks = AttributeNet(
        {
            "size": size,
            **WIDTHS,
            "classes": {name: list(classes) for name, classes in CLASSES.items()},
            "phrases": prompt_phrases(),
        }
    )
    chosen = clips.where(held_out=False)
    solo = np.array([n for n in chosen if np.isfinite(clips.joints[n]).all()])
    draws = FrameDraws(clips, solo, seed=seed, purpose="probe pose")
    train_pose(pose, draws, num_steps=num_pose_steps)
    # Where limbs are says most of what is danced, so that this trunk starts from the other.
    looks.trunk.load_state_dict(pose.trunk.state_dict())
    labels = {name: torch.from_numpy(values) for name, values in clips.labels.items()}
    draws = FrameDraws(clips, chosen, seed=seed, purpose="probe looks")
    train_frames(looks, draws, labels, num_steps=num_look_steps)
    poses, numbers = described(looks, clips, chosen, seed=seed)
    train_moves(looks, poses, labels[MOTION][numbers], num_steps=num_move_steps, seed=seed)
    return pose, looks


def table_of(rows: Sequence[dict[str, str]]) -> str:
    """Rows with the same keys as a Markdown table."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([row[name] for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


CARD = """---
license: apache-2.0
---
# Probes of the small world

Two small networks that read pixels of 64x64 clips of `small_world/generator` at 30 fps, so that
generated clips can be judged by metrics that need joints or words. They were trained on that world
alone and say nothing about other pictures. `configs/small_world/metrics.yaml` uses them.

- `pose` (`small_world.metrics.pose.PoseNet`, {pose_size}): 15 joints of a lone dancer. With
  several dancers its answer means nothing.
- `attributes` (`small_world.metrics.attributes.AttributeNet`, {looks_size}): genre, colours of
  shirt and trousers, kind and first colour of the backdrop, number of dancers; and the phrases by
  which captions name them.

Trained on {num_raw} clips of {world}, {num_decoded} of them through the VAE as well, blurred,
moved, tinted and with noise, two frames at times blended into one; {pose_steps} steps of 64 frames
for the joints, {look_steps} for the looks and {move_steps} of 64 clips for the moves that tell the
genre: {minutes:.0f} minutes on one CPU core (seed {seed}).

    {world_command}
    {command}

## On clips not trained on

Studio: clips to held-out music, and one in eight group dances. Wild: the last {num_wild} videos.
RMSE is the root of the mean squared distance, in parts of the picture's side. `backdrop` asks for
kind and first colour together, in the studio for the kind alone. Through the VAE: encoded, drawn
from the posterior and decoded with `{vae}`.

{probe_table}
## Metrics of ground truth

Lone dancers of the clips above, with the known beats; 95 % bootstrap intervals over clips, and
chance from circular shifts of the beats.

{metric_table}
`torso_beat` cannot reach 1: see `TorsoBeatCorrelation`. Read figures of generated clips against the
rows "through the VAE": nothing generated with that VAE can be clearer.
"""


def write_card(out: Path, **parts: Any) -> None:
    """Write README.md."""
    sizes = {
        f"{name}_size": f"{(out / folder / 'model.safetensors').stat().st_size / 1e6:.2f} MB"
        for name, folder in (("pose", "pose"), ("looks", "attributes"))
    }
    write_text(out / "README.md", CARD.format(**sizes, **parts))


def main(args: Sequence[str] | None = None) -> int:
    """Read the command line, train, judge and write; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m small_world.experiments.train_probes",
        description="Train the probes that judge videos of the small world.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--world", type=Path, required=True, help="a small world")
    parser.add_argument("--vae", type=Path, required=True, help="folder with a vae in it")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/parts/probe_clips"), help="for decoded clips"
    )
    for field in dataclasses.fields(CutOptions):
        flag, kind = f"--{field.name.replace('_', '-')}", type(field.default)
        parser.add_argument(flag, type=kind, default=field.default, help="see CutOptions")
    parser.add_argument("--pose-steps", type=int, default=4000, help="of 64 frames")
    parser.add_argument("--look-steps", type=int, default=4000, help="of 64 frames")
    parser.add_argument("--move-steps", type=int, default=1500, help="of 64 clips")
    parser.add_argument("--judge-only", action="store_true", help="keep the weights in OUT")
    options = parser.parse_args(args)
    cut = CutOptions(**{f.name: getattr(options, f.name) for f in dataclasses.fields(CutOptions)})
    try:
        clips = open_clips(options.world, options.vae, options.cache, cut)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    pose_folder, looks_folder = options.out / "pose", options.out / "attributes"
    seconds = time.process_time()
    if not options.judge_only:
        pose, looks = train(
            clips,
            size=cut.height,
            seed=cut.seed,
            num_pose_steps=options.pose_steps,
            num_look_steps=options.look_steps,
            num_move_steps=options.move_steps,
        )
        pose.save(pose_folder)
        looks.save(looks_folder)
    minutes = (time.process_time() - seconds) / 60
    metrics: list[ClipMetric] = [
        BeatAlignment(name="beat_alignment"),
        BeatAlignment(name="pose_beat_alignment", motion=PoseSpeed(str(pose_folder))),
        TorsoBeatCorrelation(weights=str(pose_folder)),
    ]
    # As they will be used: read back from fp16.
    pose, looks = PoseNet.load(pose_folder), AttributeNet.load(looks_folder)
    takes = held_out_takes(clips)
    probe_rows = [judge_probes(clips, take, pose, looks) for take in takes]
    metric_rows = [
        judge_metrics(clips, take, metrics, fps=cut.fps, seed=cut.seed) for take in takes
    ]
    tables_made = {"probe_table": table_of(probe_rows), "metric_table": table_of(metric_rows)}
    print(*tables_made.values(), sep="\n")
    if not options.judge_only:
        training = clips.where(held_out=False)
        recipe = read_recipe(options.world)
        write_card(
            options.out,
            **tables_made,
            num_raw=len(training),
            num_decoded=len(np.intersect1d(training, clips.decoded_index)),
            world=f"`{options.world}`",
            pose_steps=options.pose_steps,
            look_steps=options.look_steps,
            move_steps=options.move_steps,
            minutes=minutes,
            seed=cut.seed,
            num_wild=cut.num_held_out_wild,
            vae=options.vae,
            world_command=f"python -m small_world.generator {options.world} "
            f"--seed {recipe.seed} --num-aist {recipe.num_aist} "
            f"--held-out {recipe.num_held_out} --num-youtube {recipe.num_youtube}",
            command=f"python -m small_world.experiments.train_probes --world {options.world} "
            f"--vae {options.vae} --out {options.out}",
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
