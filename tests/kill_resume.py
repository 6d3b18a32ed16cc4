"""A small run killed at random moments and resumed each time: is its end the same, to the bit?

    python -m tests.kill_resume --out runs/kill_resume --kills 50

Random small parts and a cache of noise are made first. One run is left alone; the other is sent
SIGKILL at seeded moments, one in five of them before its first batch, and started again by the same
command. Compared are the last checkpoints (adapters, optimizer, schedule) and what every batch saw.
Writes ``result.json``; exit code 1 if anything differs.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from tqdm import tqdm

from musicinfuser.atomic_files import write_text
from musicinfuser.keyed_random import generator, normal
from musicinfuser.media import latents
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from small_world.parts.random_parts import write_small_parts

ROOT = Path(__file__).parents[1]
NUM_CLIPS, NUM_CHANNELS = 6, 12
TEXT_WIDTH, AUDIO_WIDTH = 64, 96  # of small_world/parts/random_parts.yaml
SHARE_BEFORE_FIRST_BATCH = 0.2


def write_cache(cache: Path, parts: Path, seed: int) -> None:
    """Clips of noise for both sources, as the parts would have encoded them."""
    encoders = EncodersSpec(str(parts), str(parts), "audio_encoder", dtype="float32")
    prints = Encoders(encoders).fingerprints()
    recipe = latents.EncodingRecipe(
        num_frames=7, height=32, width=32, fps=30.0, audio_channel="mean",
        dtype=encoders.dtype, max_text_tokens=encoders.max_text_tokens,
        latents_mean=(0.0,) * NUM_CHANNELS, latents_std=(1.0,) * NUM_CHANNELS,
        vae=prints["vae"], text_encoder=prints["text_encoder"],
        audio_encoder=prints["audio_encoder"],
    )  # fmt: skip
    latents.check_caption_encoder(cache, recipe)
    for i in range(2 * NUM_CLIPS):
        source = ("aist", "youtube")[i % 2]
        clip_id, captions = f"clip_{i}", (f"dance {i}", "a dance video")
        header = latents.ClipHeader(
            latents.clip_path(cache, source, clip_id), recipe, source, clip_id, *captions,
            music=f"music {i}", split="train", attributes={},
        )  # fmt: skip
        shape = (2, NUM_CHANNELS, 2, 4, 4)
        mean, logvar = normal(seed, [i], "latents", shape)[0]
        audio = normal(seed, [i], "audio", (14, AUDIO_WIDTH))[0]
        latents.write_clip(header, latent_mean=mean, latent_logvar=logvar, audio=audio)
        for caption in captions:
            features = normal(seed, [i], "caption", (len(caption), TEXT_WIDTH))[0]
            latents.write_caption(cache, caption, features)


def write_overlay(path: Path, parts: Path, cache: Path, settings: argparse.Namespace) -> None:
    """The recipe at a small size, a checkpoint every few steps, everything noted."""
    root = path.parent
    saver = {
        "dirpath": str(root / "checkpoints"), "every_n_train_steps": settings.save_every,
        "filename": "newest", "save_last": True, "enable_version_counter": False,
    }  # fmt: skip
    overlay = {
        "seed_everything": settings.seed,
        "trainer": {
            "default_root_dir": str(root), "max_steps": settings.steps, "precision": "32-true",
            "accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "logger": False,
            "val_check_interval": None, "limit_val_batches": 0,
            "callbacks": [
                {"class_path": "tests.training_record.TrainingRecord",
                 "init_args": {"path": str(root / "record")}},
                {"class_path": "callbacks.AdapterEMA", "init_args": {}},
                {"class_path": "callbacks.AtomicCheckpoint", "init_args": saver},
            ],
        },
        "model": {"init_args": {
            "backbone": {"pretrained": str(parts), "dtype": "float32"},
            "encoders": {"mochi": str(parts), "audio": str(parts),
                         "audio_subfolder": "audio_encoder", "dtype": "float32"},
            "audio_width": AUDIO_WIDTH, "layers": [0, 2], "lora": {"rank": 2, "alpha": 2},
            "optimizer": {"lr": 1e-2}, "schedule": {"warmup_steps": 2},
            "memory": {"gradient_checkpointing": "none", "compile_blocks": False},
        }},
        "data": {"init_args": {
            "cache_dir": str(cache), "num_frames": 7, "height": 32, "width": 32,
            "batch_size": 2, "num_workers": settings.workers, "validation_source": None,
        }},
    }  # fmt: skip
    write_text(path, yaml.safe_dump(overlay, sort_keys=False))


def start(root: Path) -> subprocess.Popen:
    """The command, the same every time."""
    command = [sys.executable, "train.py", "fit", "--config=configs/base.yaml"]
    log = (root / "log.txt").open("a")
    command.append(f"--config={(root / 'overlay.yaml').resolve()}")
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)


def num_batches(root: Path) -> int:
    """Batches noted so far, repeated ones included."""
    record = root / "record"
    return record.read_bytes().count(b"\n") if record.is_file() else 0


def wait_for_batches(process: subprocess.Popen, root: Path, number: int) -> float:
    """Seconds until the process has noted so many batches in addition, or has ended."""
    began, before = time.monotonic(), num_batches(root)
    while process.poll() is None and num_batches(root) < before + number:
        time.sleep(0.002)
    return time.monotonic() - began


def run_whole(root: Path) -> tuple[float, float]:
    """The run that is left alone: seconds before and after its first batch."""
    process = start(root)
    starting = wait_for_batches(process, root, 1)
    began = time.monotonic()
    if process.wait() != 0:
        raise RuntimeError(f"the run that was left alone failed; see {root / 'log.txt'}.")
    return starting, time.monotonic() - began


def run_killed(
    root: Path, settings: argparse.Namespace, starting: float, training: float
) -> dict[str, int]:
    """The run that is killed; how often and where."""
    counts = {"while starting": 0, "while training": 0, "finished before its kill": 0}
    for kill in tqdm(range(settings.kills), disable=None):
        draw = generator(settings.seed, kill, "kill")
        early, moment, rest = torch.rand(3, generator=draw, dtype=torch.float64).tolist()
        process, before = start(root), num_batches(root)
        if early < SHARE_BEFORE_FIRST_BATCH:
            time.sleep(moment * starting)
        else:
            # On average a kill finds its share of the run done. Counted in batches, as the machine
            # may be slower now; the last bit of time falls anywhere in a step or a checkpoint.
            share = int(moment * 2 * settings.steps / settings.kills)
            wait_for_batches(process, root, 1 + share)
            time.sleep(rest * 2 * training / settings.steps)
        process.kill()
        code = process.wait()
        if code == 0:
            counts["finished before its kill"] += 1
        elif code == -signal.SIGKILL:
            has_trained = num_batches(root) > before
            counts["while training" if has_trained else "while starting"] += 1
        else:
            raise RuntimeError(f"the run failed by itself (exit {code}); see {root / 'log.txt'}.")
    if start(root).wait() != 0:
        raise RuntimeError(f"the run could not be resumed; see {root / 'log.txt'}.")
    return counts


def first_difference(one: Any, other: Any, name: str = "") -> str | None:
    """Where two nested structures differ, to the bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return None if one.dtype == other.dtype and torch.equal(one, other) else name
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return name
        pairs = [(f"{name}/{key}", one[key], other[key]) for key in one]
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return name
        pairs = [(f"{name}/{i}", *pair) for i, pair in enumerate(zip(one, other, strict=True))]
    else:
        return None if one == other else name
    differences = (first_difference(a, b, part) for part, a, b in pairs)
    return next((found for found in differences if found is not None), None)


def compare(whole: Path, killed: Path) -> str | None:
    """The first difference between two runs; None if there is none."""
    one, other = (
        torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)
        for root in (whole, killed)
    )
    for key in ("global_step", "state_dict", "optimizer_states", "lr_schedulers"):
        found = first_difference(one[key], other[key], key)
        if found is not None:
            return found
    name = "AdapterEMA"
    found = first_difference(one["callbacks"][name], other["callbacks"][name], name)
    if found is not None:
        return found
    # Steps since the last checkpoint are done again after a kill, and must be the same again.
    records = [set((root / "record").read_text().splitlines()) for root in (whole, killed)]
    odd = min(records[0] ^ records[1], default=None)
    return None if odd is None else f"batch {odd}"


def main(arguments: list[str] | None = None) -> int:
    """Run, compare, write; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=400, help="optimizer steps of the run")
    parser.add_argument("--save-every", type=int, default=5, help="steps between checkpoints")
    parser.add_argument("--workers", type=int, default=0, help="loader processes")
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args(arguments)
    settings.out.mkdir(parents=True)
    out = settings.out.resolve()
    parts, cache = out / "small-mochi", out / "cache"
    write_small_parts(parts, seed=settings.seed, num_layers=3)
    write_cache(cache, parts, settings.seed)
    for name in ("whole", "killed"):
        write_overlay(out / name / "overlay.yaml", parts, cache, settings)
    starting, training = run_whole(out / "whole")
    counts = run_killed(out / "killed", settings, starting, training)
    difference = compare(out / "whole", out / "killed")
    result = {
        "kills": settings.kills, "steps": settings.steps, "seed": settings.seed,
        "loader processes": settings.workers, "steps between checkpoints": settings.save_every,
        "killed": counts, "batches done": num_batches(out / "killed"),
        "equal to the bit": difference is None, "first difference": difference,
    }  # fmt: skip
    write_text(out / "result.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0 if difference is None else 1


if __name__ == "__main__":
    sys.exit(main())
