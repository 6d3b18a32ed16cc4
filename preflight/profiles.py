"""What a training takes with each file of configs/profiles, and which of them fits a machine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from musicinfuser.device_speed import product_tflops
from musicinfuser.networks.lora import is_lora_name
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.quantised import held_bytes, quantised_bytes
from musicinfuser.networks.work import Work
from musicinfuser.tables import Row
from preflight import memory
from preflight.memory import (
    TrainingSizes,
    input_bytes,
    total_bytes,
    training_rows,
)
from preflight.report import Report, gigabytes, table

PROFILES_FOLDER = "configs/profiles/"
EIGHT_BIT_ADAM_BYTES = 2.1
PROFILES: dict[str, dict[str, Any]] = {
    "80gb": {"gradient_checkpointing": "attention"},
    "40gb": {"gradient_checkpointing": "full", "modulations_on_host": True},
    "24gb": {
        "gradient_checkpointing": "full",
        "modulations_on_host": True,
        "stream_blocks": True,
        "offload_inputs": True,
    },
}
PROFILES["wan_24gb"] = PROFILES["24gb"] | {"modulations_on_host": False}
PROFILES["16gb"] = PROFILES["24gb"] | {"optimizer_bytes": EIGHT_BIT_ADAM_BYTES}
PROFILES["8gb"] = PROFILES["16gb"] | {"modulations_on_host": False}
PROFILES["int8"] = {"gradient_checkpointing": "full", "quantize": "int8"}
PROFILES["fp8"] = PROFILES["int8"] | {"quantize": "fp8"}
PROFILES["nf4"] = PROFILES["int8"] | {"quantize": "nf4"}
"""What decides about memory in the files of configs/profiles, the fastest first, quantised ones
last; ``optimizer_bytes`` per trained parameter where a file names another optimizer."""


def block_bytes(model: MusicModel) -> tuple[int, int]:
    """Of all blocks: frozen weights that can be streamed, and weights that give modulations."""
    blocks = model.kind.blocks
    frozen = sum(held_bytes(p) for p in blocks.parameters() if not p.requires_grad)
    layers = [layer for block in blocks for layer in model.kind.modulation_layers(block)]
    modulations = sum(held_bytes(layer.get_parameter("weight")) for layer in layers)
    kept = sum(held_bytes(p) for layer in layers for p in layer.parameters())
    return frozen - kept, modulations


def profile_sizes(
    model: MusicModel, sizes: TrainingSizes, name: str, held: tuple[int, int]
) -> TrainingSizes:
    """The sizes of a run with another of `PROFILES`; the model's weights are not quantised.

    ``held`` are its `block_bytes`.
    """
    profile, (streamed, modulations) = PROFILES[name], held
    saved = bytes_saved(model, profile["quantize"]) if "quantize" in profile else 0
    return replace(
        sizes,
        frozen_bytes=sizes.frozen_bytes - saved,
        gradient_checkpointing=profile["gradient_checkpointing"],
        on_host_bytes=modulations if profile.get("modulations_on_host") else 0,
        streamed_bytes=streamed if profile.get("stream_blocks") else 0,
        offload_inputs=profile.get("offload_inputs", False),
        optimizer_bytes=profile.get("optimizer_bytes", sizes.optimizer_bytes),
    )


def bytes_saved(model: MusicModel, quantize: str) -> int:
    """What the weights that `quantise` puts into few bits take less so."""
    return sum(
        weight.nbytes - quantised_bytes(weight, quantize)
        for block in model.kind.blocks
        for name, layer in block.named_modules()
        if isinstance(layer, nn.Linear)
        and not name.startswith(model.kind.not_streamed)
        and not is_lora_name(f"{name}.weight")
        for weight in (layer.weight,)
    )


def profile_row(
    name: str, sizes: TrainingSizes, work: Work, *, num_clips: int = 1, tflops: float | None = None
) -> Row:
    """GB on the GPU, GB of weights and inputs in the host's memory, and work.

    Args:
        name: What is said to have these sizes.
        sizes: Of a run.
        work: Of its model and its largest clip.
        num_clips: Of an optimizer step, on one device.
        tflops: A rate in TFLOP/s; then also the seconds that a step takes at it.
    """
    on_host = sizes.on_host_bytes + sizes.streamed_bytes
    on_host += sizes.num_blocks * input_bytes(sizes) if sizes.offload_inputs else 0
    step = num_clips * work.training_step(sizes.gradient_checkpointing)
    row: dict[str, Any] = {
        "profile": name,
        "GB on the GPU": gigabytes(total_bytes(training_rows(sizes))),
        "GB in host memory": gigabytes(on_host),
        "TFLOP per step": round(step) if step >= 10 else step,
    }
    return row | ({} if tflops is None else {"s per step, at least": step / tflops})


def profile_rows(model: MusicModel, sizes: TrainingSizes, work: Work, **options: Any) -> list[Row]:
    """`profile_row` of each profile that the model's family can run.

    Those with modulations on the host are for families that have such layers, and those that say
    so is off for the others. The sizes are those of the run as its config has it.
    """
    has_modulations = bool(model.kind.modulation_layers(model.kind.blocks[0]))
    held = block_bytes(model)
    return [
        profile_row(name, profile_sizes(model, sizes, name, held), work, **options)
        for name, profile in PROFILES.items()
        if profile.get("modulations_on_host", has_modulations) == has_modulations
    ]


def fitting_profile(
    rows: Sequence[Row], host: Mapping[str, float], *, gpu: float, ram: float
) -> str | None:
    """The first of `profile_rows`, the fastest, that a machine of so many bytes holds.

    ``host`` are the bytes of RAM that each profile needs, the weights that are read at the start
    included, as in the section on memory.
    """
    for row in rows:
        name = str(row["profile"])
        if float(row["GB on the GPU"] or 0) <= gigabytes(gpu) and host[name] <= ram:
            return name
    return None


def add_profiles(
    model: MusicModel,
    sizes: TrainingSizes,
    work: Work,
    report: Report,
    num_clips: int,
    *,
    configs: Sequence[str],
    host_of: Callable[[TrainingSizes], float],
) -> None:
    """Add what a training takes with each profile, and the command for this machine's GPU.

    ``configs`` are the files that the training is given, ``host_of`` says the bytes of RAM of a
    training; other arguments as of `profile_row`.
    """
    gpus = memory.gpu_bytes()
    own = (name for name in PROFILES if f"{PROFILES_FOLDER}{name}.yaml" in " ".join(configs))
    if any("optimizer_bytes" in PROFILES[name] for name in own):
        # That optimizer goes with its file, which another profile takes the place of.
        sizes = replace(sizes, optimizer_bytes=memory.ADAM_BYTES)
    rows = profile_rows(model, sizes, work, num_clips=num_clips, tflops=_rate() if gpus else None)
    lines, held, host = [table(rows)], block_bytes(model), dict[str, float]()
    for profile in PROFILES if gpus else ():
        host[profile] = host_of(profile_sizes(model, sizes, profile, held))
    if gpus and (name := fitting_profile(rows, host, gpu=min(gpus), ram=memory.ram_bytes())):
        files = [*(file for file in configs if PROFILES_FOLDER not in file), f"{name}.yaml"]
        files[-1] = f"{PROFILES_FOLDER}{files[-1]}"
        given = " ".join(f"--config {file}" for file in files)
        chosen = next(row for row in rows if row["profile"] == name)
        said = ", ".join(f"{value:.4g} {key}" for key, value in chosen.items() if key != "profile")
        lines += [
            f"the fastest that fits this machine is {name}: {said}; add your other options to",
            f"    python train.py fit {given}",
        ]
    elif gpus:
        lines.append("none fits this machine; take fewer frames, smaller ones, or a larger GPU")
    report.add("profiles (an estimate)", *lines)


def _rate() -> float | None:
    """TFLOP/s of products on the first GPU; None where they cannot be tried now."""
    try:
        return product_tflops(torch.device("cuda")) if torch.cuda.is_available() else None
    except RuntimeError:  # it has no memory left, for one
        return None
