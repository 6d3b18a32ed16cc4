r"""A training step of a base at full width and depth, with its random weights mapped from disk.

    python -m benchmarks.full_size_step --out benchmarks/results/full_size_step_mochi.json \
        --folder runs/full_mochi

The weights are written to files once, one tensor in memory at a time (18.7 GiB of disk for Mochi),
and loaded as a training loads them: their pages are read when a block runs, and given up when
memory is short. The adapter is small: LoRA of a low rank, and ZICA after the middle block alone.
Nothing trained is zero. Forward, backward and AdamW run once on a CPU, in a process of its own.
Exit code 1 if a gradient is missing or not finite, if a frozen weight got one, or if the process
was killed. Another base: ``--profile wan_1b`` and its own folder.
"""

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.processes import PartError, call_apart, memory_of, memory_watched
from benchmarks.profiles import adapted, family_of, model_options, read_profile
from benchmarks.random_model import clip_for, give_weights
from benchmarks.random_parts import write_transformer
from benchmarks.report import Figure, command_of, parser
from benchmarks.train_step import TrainingStep
from musicinfuser.keyed_random import generator
from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from musicinfuser.networks.music_model import MusicModel

CPU = torch.device("cpu")


def mapped_model(folder: Path, profile: str, rank: int) -> MusicModel:
    """A profile's model with the weights of a folder, and a small adapter without zeros."""
    config = read_profile(profile)
    family = family_of(config).family
    base = build_backbone(BackboneSpec(pretrained=str(folder), subfolder=None, family=family))
    lora = replace(model_options(config)["lora"], rank=rank, alpha=float(rank))
    middle = base.config.num_layers // 2
    model = adapted(base, config, layers=[middle], lora=lora, compile_blocks=False)
    give_weights(model, generator(0, "weights", "random weights"), trained_only=True)
    return model


def step(settings: argparse.Namespace) -> dict[str, Any]:
    """Load, and one step; what each took."""
    pid, began = os.getpid(), time.perf_counter()
    started = memory_of(pid)
    model = mapped_model(settings.folder, settings.profile, settings.rank)
    loaded_s, loaded = time.perf_counter() - began, memory_of(pid)
    training = TrainingStep(
        model, clip_for(model, settings, CPU), read_profile(settings.profile), CPU
    )
    began = time.perf_counter()
    with memory_watched(pid, settings.limit_gib) as peaks:
        loss = training().item()
    step_s = time.perf_counter() - began
    trained = [p for p in model.parameters() if p.requires_grad]
    frozen = [p for p in model.parameters() if not p.requires_grad]
    finite = [p.grad is not None and bool(p.grad.isfinite().all()) for p in trained]
    return {
        "load_s": loaded_s, "step_s": step_s, "loss": loss,
        "started": started, "loaded": loaded, "in_step": peaks,
        "frozen": sum(p.numel() for p in frozen), "trained": sum(p.numel() for p in trained),
        "tensors": len(trained), "finite": sum(finite),
        "not_zero": sum(p.grad is not None and bool(p.grad.any()) for p in trained),
        "frozen_with_gradient": sum(p.grad is not None for p in frozen),
        "zica_after": list(model.layers),
    }  # fmt: skip


def measure(settings: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    """The weights, if they are not there yet, and the step."""
    settings.device = "cpu"
    details: dict[str, Any] = {"failed": []}
    figures: list[Figure] = []
    try:
        if not (settings.folder / "config.json").is_file():
            written = call_apart(
                write_transformer, settings.folder, settings.profile, settings.layers,
                settings.size, limit_gib=settings.limit_gib,
            )  # fmt: skip
            details["written"] = written
            figures += [
                Figure("random weights: on the clock", written["seconds"], "s"),
                Figure("random weights: files", written["file_gib"], "GiB"),
                Figure("random weights: own memory, peak", written.get("own_gib"), "GiB"),
            ]
        found = call_apart(step, settings, limit_gib=settings.limit_gib)
    except PartError as error:
        details["failed"].append(str(error))
        return figures, details
    details["step"] = found
    if found["finite"] != found["tensors"]:
        details["failed"].append("gradients are missing or not finite")
    if found["frozen_with_gradient"]:
        details["failed"].append("frozen weights got a gradient")
    return figures + figures_of(found), details


def figures_of(found: dict[str, Any]) -> list[Figure]:
    """Of the step and its process."""
    memory = [
        Figure(f"{name}: {what}", found[key].get(kind), "GiB")
        for name, key in (("loaded", "loaded"), ("step, peak", "in_step"))
        for what, kind in (("own memory", "own_gib"), ("mapped files in memory", "mapped_gib"))
    ]
    return [
        Figure("frozen weights", found["frozen"], ""),
        Figure("trained weights", found["trained"], ""),
        Figure("loading", found["load_s"], "s"),
        Figure("step", found["step_s"], "s"),
        Figure("process: on the clock", found["seconds"], "s", note="starting included"),
        Figure("process: CPU", found["cpu_seconds"], "s"),
        *memory,
        Figure("loss", found["loss"], ""),
        Figure("trained tensors", found["tensors"], ""),
        Figure("of these with a finite gradient", found["finite"], "", limit=found["tensors"]),
        Figure("of these with a gradient other than zero", found["not_zero"], ""),
        Figure("frozen tensors with a gradient", found["frozen_with_gradient"], ""),
    ]


OPTIONS = parser(
    __doc__, "profile", "size", "text_tokens",
    folder={"type": Path, "required": True, "help": "of the weights; what is there is taken"},
    layers={"type": int, "help": "blocks of the transformer; all"},
    frames=7, height=64, width=64, rank={"type": int, "default": 4, "help": "of LoRA"},
    limit_gib={
        "type": float, "default": 12.0,
        "help": "a process with more memory of its own, without mapped files, is killed",
    },
)  # fmt: skip
main = command_of("full_size_step", OPTIONS, measure)

if __name__ == "__main__":
    sys.exit(main())
