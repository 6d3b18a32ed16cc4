"""Seconds and memory of a VAE on one clip, whole and in tiles, with random weights.

    python -m benchmarks.vae --out runs/vae.json

Mochi's, or with ``--family wan`` that of Wan 2.1, in fp32. ``--size small --frames 7 --height 32
--width 32`` tries it on a CPU. Where the memory does not
suffice, the table says so and the run goes on.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.device import cap_memory
from benchmarks.limits import peak_tflops
from benchmarks.random_model import give_weights
from benchmarks.report import GIB, SIZE_OPTIONS, Figure, command_of, parser
from musicinfuser.clip_size import geometry_of, latent_shape
from musicinfuser.device_speed import timed
from musicinfuser.keyed_random import generator
from musicinfuser.networks.backbones import family_named
from musicinfuser.networks.vae_memory import TILE_SIZES, use_tiles

SMALL: dict[str, dict[str, Any]] = {
    "mochi": {
        "encoder_block_out_channels": (12, 32, 64), "decoder_block_out_channels": (12, 32, 64),
        "layers_per_block": (0, 1, 1, 1), "temporal_expansions": (2, 3),
        "spatial_expansions": (4, 2), "add_attention_block": (False,) * 4,
    },
    "wan": {"base_dim": 8, "num_res_blocks": 1},
}  # fmt: skip
"""By family; full size is what diffusers' classes are by themselves."""


def vae_and_inputs(
    settings: argparse.Namespace, device: torch.device, family: str = "mochi"
) -> tuple[Any, dict[str, Tensor]]:
    """The VAE in its type and what its two halves take; nothing but shapes on the meta device."""
    kind, geometry = family_named(family).vae, geometry_of(family)
    with torch.device("meta"):
        options = SMALL[family] if settings.size == "small" else {}
        vae = kind.model_class(**options).eval().requires_grad_(False)
    vae = vae.to(kind.dtype or torch.bfloat16)
    latents = latent_shape(settings.frames, settings.height, settings.width, geometry=geometry)
    shapes = {
        "encode": (1, 3, settings.frames, settings.height, settings.width),
        "decode": (1, *latents),
    }
    if device.type == "meta":
        return vae, {k: torch.empty(s, dtype=vae.dtype, device=device) for k, s in shapes.items()}
    stream = generator(0, "vae", "random weights", device=device)
    give_weights(vae.to_empty(device=device), stream)
    draw: Any = {"generator": stream, "device": device, "dtype": vae.dtype}
    return vae, {name: torch.randn(shape, **draw) for name, shape in shapes.items()}


def halves(vae: Any, inputs: dict[str, Tensor]) -> dict[str, Callable[[], Tensor]]:
    """What is timed."""
    return {
        "encode": lambda: vae.encode(inputs["encode"]).latent_dist.mean,
        "decode": lambda: vae.decode(inputs["decode"], return_dict=False)[0],
    }


@torch.no_grad()
def counted_tflop(settings: argparse.Namespace, half: str, family: str = "mochi") -> float:
    """Products and convolutions of one half, on a whole clip."""
    vae, inputs = vae_and_inputs(settings, torch.device("meta"), family)
    with FlopCounterMode(display=False) as counter:
        halves(vae, inputs)[half]()
    return counter.get_total_flops() / 1e12


@torch.no_grad()
def measure(settings: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    """Both halves, whole and in tiles."""
    device = torch.device(settings.device)
    cap_memory(settings, device)
    peak, source = peak_tflops(device)
    vae, inputs = vae_and_inputs(settings, device, settings.family)
    figures = []
    for half, run in halves(vae, inputs).items():
        if half not in settings.halves:
            continue
        # Tiles overlap, so they take more; to count them takes long.
        work = counted_tflop(settings, half, settings.family)
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
    family={"choices": SMALL, "default": "mochi"},
)  # fmt: skip
main = command_of("vae", OPTIONS, measure)

if __name__ == "__main__":
    main()
