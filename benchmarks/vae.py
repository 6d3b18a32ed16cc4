"""Seconds and memory of Mochi's VAE on one clip, whole and in tiles, with random weights.

    python -m benchmarks.vae --out runs/vae.json

``--size small --frames 7 --height 32 --width 32`` tries it on a CPU. Where the memory does not
suffice, the table says so and the run goes on.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKLMochi
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.device import cap_memory
from benchmarks.limits import peak_tflops
from benchmarks.random_model import give_weights
from benchmarks.report import GIB, SIZE_OPTIONS, Figure, command_of, parser
from musicinfuser.clip_size import latent_shape
from musicinfuser.device_speed import timed
from musicinfuser.keyed_random import generator
from musicinfuser.networks.vae_memory import TILE_SIZES, use_tiles

SIZES: dict[str, dict[str, Any]] = {
    "full": {},
    "small": {
        "encoder_block_out_channels": (12, 32, 64), "decoder_block_out_channels": (12, 32, 64),
        "layers_per_block": (0, 1, 1, 1), "temporal_expansions": (2, 3),
        "spatial_expansions": (4, 2), "add_attention_block": (False,) * 4,
    },
}  # fmt: skip


def vae_and_inputs(
    settings: argparse.Namespace, device: torch.device
) -> tuple[AutoencoderKLMochi, dict[str, Tensor]]:
    """The VAE in bf16 and what its two halves take; nothing but shapes on the meta device."""
    with torch.device("meta"):
        vae = AutoencoderKLMochi(**SIZES[settings.size]).eval().requires_grad_(False)
    vae = vae.to(torch.bfloat16)
    latents = latent_shape(settings.frames, settings.height, settings.width)
    shapes = {
        "encode": (1, 3, settings.frames, settings.height, settings.width),
        "decode": (1, *latents),
    }
    if device.type == "meta":
        return vae, {k: torch.empty(s, dtype=vae.dtype, device=device) for k, s in shapes.items()}
    stream = generator(0, "vae", "random weights", device=device)
    give_weights(vae.to_empty(device=device), stream)
    draw: Any = {"generator": stream, "device": device, "dtype": torch.bfloat16}
    return vae, {name: torch.randn(shape, **draw) for name, shape in shapes.items()}


def halves(vae: AutoencoderKLMochi, inputs: dict[str, Tensor]) -> dict[str, Callable[[], Tensor]]:
    """What is timed."""
    return {
        "encode": lambda: vae.encode(inputs["encode"]).latent_dist.mean,
        "decode": lambda: vae.decode(inputs["decode"], return_dict=False)[0],
    }


@torch.no_grad()
def counted_tflop(settings: argparse.Namespace, half: str) -> float:
    """Products and convolutions of one half, on a whole clip."""
    vae, inputs = vae_and_inputs(settings, torch.device("meta"))
    with FlopCounterMode(display=False) as counter:
        halves(vae, inputs)[half]()
    return counter.get_total_flops() / 1e12


@torch.no_grad()
def measure(settings: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    """Both halves, whole and in tiles."""
    device = torch.device(settings.device)
    cap_memory(settings, device)
    peak, source = peak_tflops(device)
    vae, inputs = vae_and_inputs(settings, device)
    figures = []
    for half, run in halves(vae, inputs).items():
        if half not in settings.halves:
            continue
        # Tiles overlap, so they take more; to count them takes long.
        work = counted_tflop(settings, half)
        for tiled in (False, True):
            use_tiles(vae, settings.tile if tiled else None)
            name = f"{half}, {'in tiles' if tiled else 'whole'}"
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
            try:
                run()
                seconds = min(timed(run, device) for _ in range(settings.runs))
            except torch.OutOfMemoryError:
                figures.append(Figure(name, "out of memory", "s"))
                continue
            note = f"limit: {work:.4g} TFLOP as counted" + (", without overlaps" if tiled else "")
            figures.append(Figure(name, seconds, "s", work / peak, note))
            if device.type == "cuda":
                held = torch.cuda.max_memory_allocated(device) / GIB
                figures.append(Figure(f"{name}: peak allocated", held, "GiB"))
    return figures, {"peak_tflops": peak, "peak_from": source}


OPTIONS = parser(
    __doc__, *SIZE_OPTIONS, "device", "memory_cap_gib", runs=3,
    tile={"type": int, "default": TILE_SIZES[0], "help": "side in pixels"},
    halves=["encode", "decode"],
)  # fmt: skip
main = command_of("vae", OPTIONS, measure)

if __name__ == "__main__":
    main()
