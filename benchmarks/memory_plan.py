"""What a profile holds on its GPU while it trains, samples and decodes, counted without one.

    python -m benchmarks.memory_plan --profile 24gb --cap_gib 22 \
        --out benchmarks/results/memory_24gb.json
    python -m benchmarks.memory_plan --profile wan_1b --layers 30 --width 832 --train_frames 81 \
        --sample_frames 81 --policies full self_attention attention --out RESULT.json

Runs the whole recipe in eager mode with every storage followed (see `benchmarks.meta_memory`):
adapters in fp32, autocast on, nothing compiled. Each sum is what is on the device at its worst
moment, with a flat rate for CUDA's context and what the allocator cannot use. Of other backbones
than Mochi decoding is not counted; one that can begin with a picture does so, which takes more.
"""

import argparse
import math
from collections.abc import Mapping
from itertools import product
from typing import Any

import torch

from benchmarks.meta_memory import POLICIES, LiveBytes, simulated_sampling, simulated_step
from benchmarks.profiles import build_on_meta, family_of, read_profile
from benchmarks.report import GIB, Figure, command_of, parser
from benchmarks.vae import vae_and_inputs
from musicinfuser.clip_size import num_visual_tokens
from musicinfuser.networks.backbones import Mochi
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.vae_memory import tile_size_for
from preflight.memory import CONTEXT_BYTES, FP32_BYTES, frozen_on_device, num_trained


def copies_on_device(model: MusicModel) -> int:
    """Bytes of the streamed weights' copies, which stay between passes."""
    if model.streamed is None:
        return 0
    streamed = set(model.streamed.parameters())
    largest = max(
        sum(p.nbytes for p in block.parameters() if p in streamed) for block in model.kind.blocks
    )
    return (model.streamed.ahead + 1) * largest


@torch.no_grad()
def decoding(
    settings: argparse.Namespace, frames: int, *, free_bytes: float
) -> tuple[int, int, int | None]:
    """Bytes of the VAE's weights, the most above them while it decodes a clip, and its tiles.

    ``free_bytes`` is what the model leaves to the VAE.
    """
    size = {"frames": frames, "height": settings.height, "width": settings.width}
    vae, inputs = vae_and_inputs(
        argparse.Namespace(size=settings.size, **size), torch.device("meta")
    )
    weights = sum(p.nbytes for p in vae.parameters())
    tile = tile_size_for(inputs["decode"].shape, free_bytes - weights)
    latents, others = inputs["decode"], 0
    if tile is not None:
        # One of the largest stands for all; those that were decoded before it lie beside it.
        side, stride = tile // 8, tile * 3 // 32
        num_tiles = math.prod(math.ceil(n / stride) for n in latents.shape[3:])
        others = (num_tiles - 1) * 3 * frames * tile**2 * latents.element_size()
        latents = latents[..., :side, :side]
    vae.use_tiling = False
    with LiveBytes([*vae.parameters(), *inputs.values()]) as live:
        vae.decode(latents, return_dict=False)
    return weights, live.peak + others, tile


def measure(settings: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    """Each job's parts and their sum beside the cap."""
    config = read_profile(settings.profile)
    is_mochi = family_of(config) is Mochi

    def build(**ways: Any) -> MusicModel:
        # Nothing is compiled without a device: these are eager's sums, the larger ones.
        return build_on_meta(
            config, num_layers=settings.layers, size=settings.size, compile_blocks=False, **ways
        )

    model = build()
    trained = num_trained(model)
    frozen, copies = frozen_on_device(model), copies_on_device(model)
    area = (settings.height, settings.width)
    figures: list[Figure] = []

    def add(job: str, parts: Mapping[str, float], note: str = "") -> None:
        parts = {"frozen weights": frozen, **parts, "context and fragmentation": CONTEXT_BYTES}
        figures.extend(Figure(f"{job}: {what}", n / GIB, "GiB") for what, n in parts.items())
        total = sum(parts.values()) / GIB
        figures.append(Figure(f"{job}: together", total, "GiB", settings.cap_gib, note))

    details: dict[str, Any] = {}
    begins = model.kind.geometry.takes_image
    state = {"trained weights and Adam, fp32": 3 * FP32_BYTES * trained}
    for frames, policy in product(settings.train_frames, settings.policies or [None]):
        ways = {} if policy is None else {"gradient_checkpointing": policy}
        step = simulated_step(build(**ways), frames, *area, autocast=True, first_given=begins)
        job = f"training, {frames} frames" + ("" if policy is None else f", {policy}")
        details[job] = step
        add(job, state | {"activations, gradients, copies of weights": step["peak"]})
    for frames in settings.train_frames:
        # AdamW's foreach form makes one temporary list as large as the weights.
        add(f"training, {frames} frames, AdamW's step", state | {
            "gradients and a temporary, fp32": 2 * FP32_BYTES * trained,
            "copies of weights": copies})  # fmt: skip
    weights = {"trained weights, fp32": float(FP32_BYTES * trained)}
    for frames in settings.sample_frames:
        peak = simulated_sampling(build(), frames, *area, first_given=begins)
        add(f"sampling, {frames} frames", weights | {"activations, copies of weights": peak})
    for frames in settings.sample_frames if is_mochi else ():
        kept = copies + _rotary_bytes(model, frames, *area)
        held = frozen + weights["trained weights, fp32"] + kept + CONTEXT_BYTES
        free_bytes = (settings.cap_gib or math.inf) * GIB - held
        vae, peak, tile = decoding(settings, frames, free_bytes=free_bytes)
        add(f"decoding, {frames} frames", weights | {
            "copies of weights and rotations": kept, "VAE": vae, "a clip in the decoder": peak},
            "whole" if tile is None else f"in tiles of {tile} px")  # fmt: skip
    return figures, details


def _rotary_bytes(model: MusicModel, frames: int, height: int, width: int) -> int:
    """Cos and sin in fp32, kept from sampling."""
    _, heads, channels = model.backbone.pos_frequencies.shape
    tokens = num_visual_tokens(frames, height, width)
    return 2 * FP32_BYTES * tokens * heads * channels


OPTIONS = parser(
    __doc__, "profile", "size", "layers", "height", "width",
    cap_gib={"type": float, "help": "what may be used of the GPU's memory"},
    train_frames={"nargs": "*", "type": int, "default": [73]},
    sample_frames={"nargs": "*", "type": int, "default": [73, 145]},
    policies={"nargs": "*", "choices": POLICIES, "help": "of training, if not the profile's"},
)  # fmt: skip
main = command_of("memory_plan", OPTIONS, measure)

if __name__ == "__main__":
    main()
