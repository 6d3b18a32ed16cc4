"""How much memory a run takes, estimated from its sizes.

The shares of activations, which each family of backbones has, were counted with every storage
tracked (`benchmarks.meta_memory`). At Mochi's size, 73 frames of 480x848 and 48 blocks, 16 of them
with audio, in GiB above the weights:

    gradient_checkpointing   after the forward pass   at the peak
    full                                        6.1          10.9
    attention                                  13.7          18.3
    none                                      167           168

One block keeps 3.6 GiB for its backward pass, its input takes 0.12. `attention` keeps the outputs
of self-attention (5.8 GiB) and of attention to audio (1.9) besides. With inputs in the host's
memory, three of them are on the device: the last block's and, in turn, two others. The recipe has
20.1 GB of frozen weights, 5.4 of them for modulations and 14.5 others of the blocks, and 12.0 GB of
trained state. None of it was measured on a GPU.

Shape legend: N visual tokens of a batch, D width, F inner width of the feed-forward layers.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from musicinfuser.clip_size import ClipShape
from musicinfuser.memory.settings import GradientCheckpointing
from musicinfuser.networks.backbones import Mochi
from musicinfuser.networks.backbones.base import ActivationShares
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.quantised import held_bytes, value_type
from musicinfuser.networks.vae_memory import TILE_SIZES
from musicinfuser.tables import Row
from preflight.report import Report, gigabytes, table

# What attention gives: its values, and an fp32 normaliser per head of 128 channels.
KEPT_ATTENTION_WIDTHS = 1 + 4 / (128 * 2)
# Inputs of blocks that are on the device at once where the others are in the host's memory.
INPUTS_ON_DEVICE = 3
KEPT = {
    "full": "one block recomputed",
    "self_attention": "one block recomputed but for self-attention",
    "attention": "one block recomputed but for attention",
    "none": "all kept",
}
# CUDA's context, cuBLAS's workspaces, and what the allocator cannot use.
CONTEXT_BYTES = 1.5e9
# fp32 weight, its gradient, and Adam's two moments.
BYTES_PER_TRAINED, FP32_BYTES = 16, 4
ADAM_BYTES = BYTES_PER_TRAINED - 2 * FP32_BYTES
# Mochi's VAE untiled at 73 frames of 480x848 in bf16: 23.4 GiB to encode, with 64 channels at full
# resolution.
ENCODE_BYTES_PER_PIXEL_CHANNEL = 23.4 * 2**30 / (73 * 480 * 848 * 64)
# Python with its libraries, and a process that loads clips.
PROCESS_BYTES, WORKER_BYTES = 3e9, 0.7e9


def num_trained(model: nn.Module) -> int:
    """Parameters that training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def frozen_bytes(model: nn.Module) -> int:
    """Bytes of the weights that training leaves as they are."""
    return sum(held_bytes(p) for p in model.parameters() if not p.requires_grad)


def modulation_bytes_on_host(model: MusicModel) -> int:
    """Bytes of the modulations' weights that stay in the host's memory."""
    blocks = model.kind.blocks if model.memory.modulations_on_host else ()
    layers = (layer for block in blocks for layer in model.kind.modulation_layers(block))
    return sum(layer.get_parameter("weight").nbytes for layer in layers)


def streamed_bytes(model: MusicModel) -> int:
    """Bytes of the blocks' weights that are copied to the device for their block's turn."""
    return sum(p.nbytes for p in model.streamed.parameters()) if model.streamed else 0


def frozen_on_device(model: MusicModel) -> int:
    """Bytes of frozen weights that are neither streamed nor kept on the host."""
    return frozen_bytes(model) - modulation_bytes_on_host(model) - streamed_bytes(model)


@dataclass(frozen=True)
class TrainingSizes:
    """What decides how much memory a training step takes."""

    frozen_bytes: int
    """Of the backbone."""
    num_trained: int
    """Parameters."""
    num_tokens: int
    """N: batch size times tokens per clip."""
    width: int
    inner_width: int
    num_blocks: int
    num_audio_blocks: int
    value_bytes: int
    """Of one activation: 2 in bf16, 4 in fp32."""
    gradient_checkpointing: GradientCheckpointing
    on_host_bytes: int = 0
    """Of the frozen weights, the modulations' that stay in the host's memory."""
    streamed_bytes: int = 0
    """Of the frozen weights, those of blocks that are copied for their block's turn."""
    offload_inputs: bool = False
    """Whether the blocks' inputs are in the host's memory between forward and backward pass."""
    optimizer_bytes: float = ADAM_BYTES
    """Of the optimizer's state per trained parameter: 8 of Adam's two moments in fp32."""
    num_averages: int = 0
    """Running averages of the trained weights that are kept beside them."""
    text_attentions: int = 0
    """Of a block, to text alone."""
    shares: ActivationShares = Mochi.shares
    """What a block of the family holds."""
    first_given: bool = False
    """Whether clips begin with a given frame, so that tokens have modulations of their own."""
    num_shares: int = 1
    """Devices that the frozen weights are spread over."""

    @classmethod
    def of(cls, model: MusicModel, **others: Any) -> Self:
        """The sizes of a model; ``others`` are those that it does not know."""
        feed_forward = model.kind.feed_forward(model.kind.blocks[0])
        return cls(
            frozen_bytes=frozen_bytes(model),
            num_trained=num_trained(model),
            width=feed_forward.out_features,
            inner_width=feed_forward.in_features,
            num_blocks=len(model.kind.blocks),
            num_audio_blocks=len(model.layers),
            value_bytes=value_type(feed_forward.weight).itemsize,
            gradient_checkpointing=model.memory.gradient_checkpointing,
            on_host_bytes=modulation_bytes_on_host(model),
            streamed_bytes=streamed_bytes(model),
            offload_inputs=model.memory.offload_inputs,
            text_attentions=model.kind.text_attentions,
            shares=model.kind.shares,
            **others,
        )


def input_bytes(sizes: TrainingSizes) -> int:
    """What goes into a block: N values of width D."""
    return sizes.num_tokens * sizes.width * sizes.value_bytes


def activation_bytes(sizes: TrainingSizes) -> float:
    """Most that is held between forward and backward pass, besides weights and gradients.

    Of a family whose shares are of the start of the backward pass, what gradients take the place of
    is left out.

    What is recomputed keeps every block's input and, for one block at a time, all it needs;
    `attention` keeps a value of width D per token and attention as well, with its normalisers,
    `self_attention` the same without those to audio and to text alone.
    """
    shares, per_width = sizes.shares, input_bytes(sizes)
    per_inner = sizes.num_tokens * sizes.inner_width * sizes.value_bytes
    block = shares.widths * per_width + shares.inner_widths * per_inner
    audio = shares.audio_widths * per_width
    alike = shares.rotary_bytes * sizes.num_tokens * sizes.width
    passing = max(shares.passing_widths * per_width, shares.passing_inner_widths * per_inner)
    if sizes.first_given:
        of_all, of_block = shares.given_widths
        alike, block = alike + of_all * per_width, block + of_block * per_width
    if sizes.gradient_checkpointing == "none":
        return sizes.num_blocks * block + sizes.num_audio_blocks * audio + alike + passing
    between = _kept_of_blocks(sizes)
    if shares.are_of_start:
        between = max(between - FP32_BYTES * sizes.num_trained, 0)
    return between + block + passing + min(sizes.num_audio_blocks, 1) * audio + alike


def _kept_of_blocks(sizes: TrainingSizes) -> float:
    """Bytes that blocks which are recomputed leave between forward and backward pass."""
    num_inputs = INPUTS_ON_DEVICE if sizes.offload_inputs else sizes.num_blocks
    num_kept = float(num_inputs)
    if sizes.gradient_checkpointing in ("self_attention", "attention"):
        hears = sizes.gradient_checkpointing == "attention"
        others = sizes.num_audio_blocks + sizes.text_attentions * sizes.num_blocks
        num_kept += (sizes.num_blocks + hears * others) * KEPT_ATTENTION_WIDTHS
    return num_kept * input_bytes(sizes)


def training_rows(sizes: TrainingSizes) -> list[Row]:
    """The parts of the device's memory in GB, their sum last."""
    parts = {
        **_frozen_parts(sizes),
        "trained weights, fp32": sizes.num_trained * FP32_BYTES,
        "gradients, fp32": sizes.num_trained * FP32_BYTES,
        "Adam, fp32" if sizes.optimizer_bytes == ADAM_BYTES else "the optimizer's state": (
            sizes.num_trained * sizes.optimizer_bytes
        ),
        "averages, fp32": sizes.num_averages * sizes.num_trained * FP32_BYTES,
        f"activations, {KEPT[sizes.gradient_checkpointing]}": activation_bytes(sizes),
        "context and fragmentation": CONTEXT_BYTES,
    }
    return _rows({what: size for what, size in parts.items() if size})


def encoding_rows(
    *, text_bytes: float, vae_bytes: float, audio_bytes: float, shapes: Sequence[ClipShape],
    channels: int, value_bytes: int, is_tiled: bool,
) -> list[Row]:  # fmt: skip
    """The parts of the device's memory while clips are encoded, in GB, their sum last.

    The text encoder comes and goes before the first clip; the larger of the two stages counts. Of
    clips there are the frames that are encoded at a time, height and width, of the VAE as many
    channels at full resolution; tiles have 256x256 px.
    """
    most = TILE_SIZES[0] if is_tiled else float("inf")
    num_pixels = max(n * min(h, most) * min(w, most) for n, h, w in shapes)
    encoding = ENCODE_BYTES_PER_PIXEL_CHANNEL * num_pixels * channels * value_bytes / 2
    clips = vae_bytes + audio_bytes + encoding
    parts = {
        "VAE and audio encoder": vae_bytes + audio_bytes,
        f"a clip in the VAE, {'tiled' if is_tiled else 'untiled'}": encoding,
    }
    if text_bytes > clips:
        parts = {"captions: the text encoder": text_bytes}
    return _rows(parts | {"context and fragmentation": CONTEXT_BYTES})


def loaded_bytes(sizes: TrainingSizes) -> float:
    """What a training holds in the host's memory: weights, as they are read, and block inputs."""
    inputs = sizes.num_blocks * input_bytes(sizes) if sizes.offload_inputs else 0
    return sizes.frozen_bytes + sizes.num_trained * FP32_BYTES + inputs


def host_bytes(*, weights: float, num_workers: int) -> float:
    """RAM of one process and its workers, with all its weights on the host at the start."""
    return PROCESS_BYTES + weights + num_workers * WORKER_BYTES


def _frozen_parts(sizes: TrainingSizes) -> dict[str, float]:
    on_device = sizes.frozen_bytes - sizes.on_host_bytes - sizes.streamed_bytes
    # While one block's are in use, the next one's are on their way.
    visiting = {
        "modulations of two blocks, copied": 2 * sizes.on_host_bytes / sizes.num_blocks,
        "weights of two blocks, copied": 2 * sizes.streamed_bytes / sizes.num_blocks,
    }
    if sizes.num_shares == 1:
        return {"frozen weights": float(on_device), **visiting}
    return {
        f"frozen weights, one of {sizes.num_shares} shares": on_device / sizes.num_shares,
        "gathered weights of two blocks": 2 * on_device / sizes.num_blocks,
        **visiting,
    }


def _rows(parts: dict[str, float]) -> list[Row]:
    rows: list[Row] = [{"memory": w, "GB": gigabytes(size)} for w, size in parts.items()]
    return [*rows, {"memory": "together", "GB": gigabytes(sum(parts.values()))}]


def total_bytes(rows: list[Row]) -> float:
    """The sum of a table of memory."""
    total = rows[-1]["GB"]
    assert isinstance(total, float)
    return total * 1e9


def gpu_bytes() -> list[int]:
    """Memory of each CUDA device of this machine."""
    if not torch.cuda.is_available():
        return []
    count = torch.cuda.device_count()
    return [torch.cuda.get_device_properties(i).total_memory for i in range(count)]


def ram_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def add_memory(
    what: str, rows: list[Row], report: Report, *, accelerator: str, host: float
) -> None:
    """Add the section on memory of ``training`` or ``encoding``; too little becomes a problem.

    The rows are the device's, ``host`` is the bytes of RAM per process besides what a CPU run
    computes in.
    """
    needed, gpus = total_bytes(rows), gpu_bytes()
    if accelerator == "cpu":
        host += needed - CONTEXT_BYTES
        gpu = "none asked for (trainer.accelerator: cpu)"
    elif not gpus:
        gpu = "none"
        report.problem(
            f"there is no CUDA GPU here and trainer.accelerator is {accelerator}; {what} needs one "
            f"with {gigabytes(needed):.1f} GB (set trainer.accelerator to cpu for small models)."
        )
    else:
        smallest = min(gpus)
        gpu = f"{len(gpus)} x {gigabytes(smallest):.1f} GB"
        if needed > smallest:
            report.problem(
                f"{what} needs about {gigabytes(needed):.1f} GB of GPU memory and the GPU has "
                f"{gigabytes(smallest):.1f} GB; take fewer frames or smaller ones, "
                f"{'a config of configs/profiles' if what == 'training' else 'vae_tiling'} or a "
                "larger GPU."
            )
    ram = gigabytes(ram_bytes())
    if gigabytes(host) > ram:
        report.problem(
            f"{what} needs about {gigabytes(host):.1f} GB of RAM per process and the machine has "
            f"{ram:.1f} GB; use a larger machine or fewer workers."
        )
    report.add(
        "memory (an estimate)",
        table(rows),
        f"GPU: {gpu}",
        f"RAM: about {gigabytes(host):.1f} GB per process, of {ram:.1f} GB",
    )
