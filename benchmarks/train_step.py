"""Seconds and memory of a training step at full size, with random weights.

    python -m benchmarks.train_step --out runs/step.json --profile 80gb --variants profile,full

Variants take turns within one run, so that their ratio does not depend on the machine's mood; one
that fails is named and left out.
A step goes from the batch in the host's memory to the optimizer's end. ``--layers 2 --size small
--frames 7 --height 32 --width 32`` tries it on a CPU. No claim of correctness comes from here.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.device import cap_memory, kernels_of
from benchmarks.limits import Work, peak_tflops
from benchmarks.profiles import read_profile
from benchmarks.random_model import clip_for, random_model
from benchmarks.report import GIB, MODEL_OPTIONS, Figure, command_of, parser, spread, timed
from benchmarks.training_step import TrainingStep, check_variant


def measure(settings: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    """Build, warm up, take turns."""
    device = torch.device(settings.device)
    variants = settings.variants.split(",")
    for variant in variants:
        check_variant(variant)
    peak, source = peak_tflops(device)
    config = read_profile(settings.profile)
    cap_memory(settings, device)
    details: dict[str, Any] = {"peak_tflops": peak, "peak_from": source}
    began = time.perf_counter()
    # Compiled once a variant wants it, so that an old compiler fails that variant only.
    model = random_model(
        config, device, num_layers=settings.layers, size=settings.size, compile_blocks=False
    )
    details["build_s"] = time.perf_counter() - began
    if device.type == "cuda":
        # All weights were there for a moment, whatever the profile.
        torch.cuda.reset_peak_memory_stats(device)
    step = TrainingStep(model, clip_for(model, settings, device), config, device)
    results, details["failed"] = run_variants(step, variants, settings)
    reserved = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0
    work = Work.of(model, settings)
    details |= {"useful_tflop": work.useful, "reserved": reserved, "variants": results}
    if any(result["compiled"] for result in results.values()):
        counters = torch._dynamo.utils.counters
        details["graph_breaks"] = sum(counters["graph_break"].values())
        details["graphs"] = counters["stats"].get("unique_graphs", 0)
    return figures_of(results, details["failed"], work, peak, settings, reserved), details


def run_variants(
    step: TrainingStep, variants: Sequence[str], settings: argparse.Namespace
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What each variant took, and why others failed."""
    results: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    warm_up = max(settings.warm_up, 1)

    def attempt(variant: str, run: Callable[[], Any]) -> Any:
        try:
            step.use(variant)
            return run()
        except Exception as error:  # compilers raise of everything; the other variants go on
            failed[variant] = f"{type(error).__name__}: {error}"[:300]
            results.pop(variant, None)
            step.forget()
            return None

    for variant in variants:
        times = attempt(variant, lambda: [timed(step, step.device) for _ in range(warm_up)])
        if times is not None:
            results[variant] = {
                "policy": step.model.memory.gradient_checkpointing,
                "compiled": step.model.memory.compile_blocks,
                "first_step_s": times[0], "step_s": [], "peak_allocated": 0,
            }  # fmt: skip
    for _ in range(settings.steps):
        for variant in list(results):
            took = attempt(variant, step.measured)
            if took is not None:
                held = results[variant]
                held["step_s"].append(took[0])
                held["peak_allocated"] = max(held["peak_allocated"], took[1])
    for variant in list(results):
        run = step if settings.no_profile else partial(kernels_of, step, step.device)
        found = attempt(variant, run)
        if found is not None:
            results[variant] |= {"finite": step.gradients_are_finite()}
            results[variant] |= {} if settings.no_profile else found
    return results, failed


def figures_of(
    results: dict[str, dict[str, Any]], failed: dict[str, str], work: Work, peak: float,
    settings: argparse.Namespace, reserved: int,
) -> list[Figure]:  # fmt: skip
    """The table: times beside the executed and the useful work at the peak rate."""
    figures = [Figure(name, "failed", "", None, why) for name, why in failed.items()]
    first = None
    for variant, result in results.items():
        seconds = spread(result["step_s"])
        first = first or seconds["median_s"]
        executed = work.training_step(result["policy"]) / peak
        policy = f"{result['policy']}, {'compiled' if result['compiled'] else 'eager'}"
        figures += [
            Figure(f"{variant}: step, median", seconds["median_s"], "s", executed,
                   f"{policy}; limit: {work.training_step(result['policy']):.4g} TFLOP executed"),
            Figure(f"{variant}: step, 90th percentile", seconds["p90_s"], "s", executed),
            Figure(f"{variant}: model FLOP utilisation", work.useful / peak / seconds["median_s"],
                   "of the peak rate", 1.0, f"{work.useful:.4g} TFLOP useful"),
            Figure(f"{variant}: over the first variant", seconds["median_s"] / first, "times"),
            Figure(f"{variant}: first step, compiling included", result["first_step_s"], "s"),
            Figure(f"{variant}: finite gradients", int(result["finite"]), "", 1.0),
            Figure(f"{variant}: attention ran as", _attention(result), ""),
        ]  # fmt: skip
        if result["peak_allocated"]:
            cap = settings.memory_cap_gib
            figures.append(
                Figure(f"{variant}: peak allocated", result["peak_allocated"] / GIB, "GiB", cap)
            )
    if reserved:
        figures.append(
            Figure("reserved, all variants", reserved / GIB, "GiB", settings.memory_cap_gib)
        )
    return figures


def _attention(result: dict[str, Any]) -> str:
    names = result.get("attention_kernels") or result.get("attention") or {}
    return ", ".join(f"{name[:60]} x{count}" for name, count in names.items()) or "not profiled"


OPTIONS = parser(
    __doc__, *MODEL_OPTIONS, steps=20, no_profile={"action": "store_true"},
    variants={
        "default": "profile",
        "help": "each of full, attention, none, eager, compiled, stock or profile, joined by +; a "
        "comma between variants",
    },
    warm_up={"type": int, "default": 5, "help": "steps of each variant"},
)  # fmt: skip
main = command_of("train_step", OPTIONS, measure)

if __name__ == "__main__":
    sys.exit(main())
