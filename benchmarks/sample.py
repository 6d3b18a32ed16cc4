"""Seconds of sampling one clip's latents with guidance, with random weights; decoding is apart.

    python -m benchmarks.sample --out runs/sample.json --profile 80gb --steps 64

The first run warms up with two steps. ``benchmarks.vae`` times the decoder.
"""

import argparse
from contextlib import nullcontext
from typing import Any

import torch

from benchmarks.device import cap_memory, kernels_of
from benchmarks.limits import peak_tflops
from benchmarks.profiles import read_profile
from benchmarks.random_model import clip_for, random_model, work_for
from benchmarks.report import GIB, MODEL_OPTIONS, Figure, command_of, parser
from musicinfuser.device_speed import timed
from musicinfuser.generation import SamplingSpec, sample_latents
from musicinfuser.generation_requests import GenerationRequest


def measure(settings: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    """Build, warm up, sample several times."""
    device = torch.device(settings.device)
    peak, source = peak_tflops(device)
    config = read_profile(settings.profile)
    cap_memory(settings, device)
    changes = {} if settings.compile is None else {"compile_blocks": settings.compile}
    model = random_model(
        config, device, num_layers=settings.layers, size=settings.size, **changes
    ).eval()
    clip = clip_for(model, settings, device)
    audio = clip.audio.to(device)
    request = GenerationRequest(
        track="", prompt="", seed=0, num_frames=settings.frames, height=settings.height,
        width=settings.width,
    )  # fmt: skip
    given = config["model"]["init_args"]["sampling"]
    is_mixed = config["trainer"]["precision"] == "bf16-mixed"
    lowered: Any = torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)

    def sample(num_steps: int) -> torch.Tensor:
        sampling = SamplingSpec(
            num_steps=num_steps, guidance_scale=given["guidance_scale"], shift=given.get("shift"),
            family=model.kind.family,
        )  # fmt: skip
        with lowered if is_mixed else nullcontext():
            return sample_latents(
                model, text=clip.text[0], negative=clip.text[0, :0], audio=audio, request=request,
                sampling=sampling, device=device,
            )  # fmt: skip

    first = timed(lambda: sample(2), device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    results: list[torch.Tensor] = []
    times = [timed(lambda: results.append(sample(settings.steps)), device)
             for _ in range(settings.runs)]  # fmt: skip
    work = work_for(model, settings)
    best, limit = min(times), work.sampling(settings.steps) / peak
    whole = given["num_steps"]
    figures = [
        Figure(f"{settings.steps} steps, best of {settings.runs}", best, "s", limit,
               f"limit: {work.sampling(settings.steps):.4g} TFLOP, LoRA merged"),
        Figure("per step", best / settings.steps, "s", limit / settings.steps),
        Figure(f"{whole} steps, by the time per step", best / settings.steps * whole, "s",
               work.sampling(whole) / peak),
        Figure("two steps at first, compiling included", first, "s"),
        Figure("finite latents", int(all(bool(r.isfinite().all()) for r in results)), "", 1.0),
    ]  # fmt: skip
    if device.type == "cuda":
        cap = settings.memory_cap_gib
        for name, size in (
            ("allocated", torch.cuda.max_memory_allocated(device)),
            ("reserved", torch.cuda.max_memory_reserved(device)),
        ):
            figures.append(Figure(f"peak {name}", size / GIB, "GiB", cap))
    details = {"peak_tflops": peak, "peak_from": source, "run_s": times}
    if not settings.no_profile:
        details |= kernels_of(lambda: sample(1), device)
    return figures, details


OPTIONS = parser(
    __doc__, *MODEL_OPTIONS, steps=64, runs=3, no_profile={"action": "store_true"},
    compile={"action": argparse.BooleanOptionalAction, "help": "by default as in the profile"},
)  # fmt: skip
main = command_of("sample", OPTIONS, measure)

if __name__ == "__main__":
    main()
