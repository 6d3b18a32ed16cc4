"""Seconds and memory of a training step at full size, with random weights.

    python -m benchmarks.train_step --out runs/step.json --profile 80gb --variants profile,full

Variants take turns within one run, so that their ratio does not depend on the machine's mood; one
that fails is named and left out. ``stock`` is the same step by diffusers and peft
(`benchmarks.stock`). A step goes from the batch in the host's memory to the optimizer's end.
``--layers 2 --size small --frames 7 --height 32 --width 32`` tries it on a CPU. No claim of
correctness comes from here.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.device import cap_memory, kernels_of
from benchmarks.limits import peak_tflops
from benchmarks.profiles import model_options, read_profile
from benchmarks.random_model import RandomClip, clip_for, random_model, work_for
from benchmarks.report import GIB, MODEL_OPTIONS, Figure, command_of, parser, spread
from benchmarks.stock import stock_transformer, stock_velocity
from benchmarks.time_limit import TimeLimit
from musicinfuser.device_speed import timed
from musicinfuser.diffusion.flow import interpolate, velocity_loss, velocity_target
from musicinfuser.diffusion.noise_levels import beta_quantile
from musicinfuser.errors import UserError
from musicinfuser.keyed_random import generator, normal
from musicinfuser.latent_space import posterior_sample
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.work import Work

POLICY_WORDS = ("full", "self_attention", "attention", "none")
COMPILE_WORDS = {"eager": False, "compiled": True}
STOCK = "stock"
BETA = 3.0


def check_variant(variant: str) -> None:
    """Refuse unknown words with a `UserError`."""
    known = (*POLICY_WORDS, *COMPILE_WORDS, "profile")
    for word in () if variant == STOCK else variant.split("+"):
        if word not in known:
            raise UserError(
                f"{word!r} in --variants is unknown; use {', '.join(known)}, or {STOCK} alone."
            )


def optimizer_of(
    config: Mapping[str, Any], parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimizer that a profile names."""
    named = config["model"]["init_args"]["optimizer"]
    module, _, name = named["class_path"].rpartition(".")
    try:
        made = getattr(import_module(module), name)
    except ImportError as error:
        raise UserError(
            f"the optimizer {named['class_path']} is not installed here ({error}); install "
            f"{module.partition('.')[0]}, or give another profile."
        ) from error
    return made(parameters, **named["init_args"])


class TrainingStep:
    """Data, noise, forward, backward and optimizer, in the order of Lightning's loop."""

    def __init__(
        self, model: MusicModel, clip: RandomClip, config: Mapping[str, Any], device: torch.device
    ) -> None:
        """Set up the optimizer.

        The model of the profile ``config`` is on the device, and compiled once a variant wants it;
        the clip is in the host's memory, pinned on CUDA.
        """
        self.model, self.clip, self.device = model, clip, device
        self.optimizer = optimizer_of(config, [p for p in model.parameters() if p.requires_grad])
        self.is_mixed = config["trainer"]["precision"] == "bf16-mixed"
        self._profile = model_options(config)["memory"]
        first: Any = model.kind.blocks[0]
        self._eager: Callable[..., Any] = first.run
        self._compiled: Callable[..., Any] | None = None
        self._stock: Any = None
        self._is_stock = False
        self._step = 0

    def use(self, variant: str) -> None:
        """Run steps in another way from now on; what a variant does not say is the profile's."""
        self._is_stock = variant == STOCK
        if self._is_stock:
            self._stock = self._stock or stock_transformer(self.model)
            return
        policy = self._profile.gradient_checkpointing
        is_compiled = self._profile.compile_blocks
        for word in variant.split("+"):
            policy = word if word in POLICY_WORDS else policy  # type: ignore[assignment]
            is_compiled = COMPILE_WORDS.get(word, is_compiled)
        self.model.memory = replace(
            self.model.memory, gradient_checkpointing=policy, compile_blocks=is_compiled
        )
        if is_compiled and self._compiled is None:
            self._compiled = self.model.kind.compiled_run()
        run = self._compiled if is_compiled else None
        self.model.set_block_run(run or self._eager)

    @property
    def way(self) -> dict[str, Any]:
        """What is computed again, and whether blocks are compiled."""
        memory = self.model.memory
        if self._is_stock:
            return {"policy": "full", "compiled": False}
        return {"policy": memory.gradient_checkpointing, "compiled": memory.compile_blocks}

    def work(self, settings: argparse.Namespace) -> Work:
        """Of a step on a clip of ``settings``; stock has no audio, and text with padding."""
        work = work_for(self.model, settings)
        if not self._is_stock:
            return work
        padded = self.model.kind.usual.text_tokens
        return replace(work, num_text_tokens=padded, zica_weights=0, zica_width=0)

    def __call__(self) -> Tensor:
        """One step; the loss, on the device."""
        clip, index, is_cpu = self.clip.to(self.device), [self._step], self.device.type == "cpu"
        self._step += 1
        with self._precision():
            u = torch.rand(1, generator=generator(0, index[0], "sigma"))
            sigma = beta_quantile(u, BETA).to(self.device, non_blocking=True)
            shape = clip.latent_mean.shape[1:]
            noise, posterior = (
                normal(0, index, purpose, shape, device=self.device)
                for purpose in ("noise", "posterior")
            )
            latents = posterior_sample(
                clip.latent_mean.float(), clip.latent_logvar.float(), posterior
            )
            predicted = self._velocity(clip, interpolate(latents, noise, sigma), sigma)
            loss = velocity_loss(predicted, velocity_target(latents, noise)).mean()
        # After the forward pass, as in Lightning: gradients of the last step live until here.
        self.optimizer.zero_grad()
        loss.backward()
        # Those of 8 bits compile themselves, which on a CPU takes longer than all else.
        with torch.compiler.set_stance("force_eager") if is_cpu else nullcontext():
            self.optimizer.step()
        return loss.detach()

    def measured(self) -> tuple[float, int]:
        """Seconds of one step and, on CUDA, the most bytes that were allocated in it."""
        if self.device.type != "cuda":
            return timed(self, self.device), 0
        torch.cuda.reset_peak_memory_stats(self.device)
        seconds = timed(self, self.device)
        return seconds, torch.cuda.max_memory_allocated(self.device)

    def forget(self) -> None:
        """Drop what a step that failed has left behind."""
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def gradients_are_finite(self) -> bool:
        """Whether all trained parameters have a gradient and every value of it is a number."""
        trained = self._stock if self._is_stock else self.model
        grads = [p.grad for p in trained.parameters() if p.requires_grad]
        return all(grad is not None and bool(grad.isfinite().all()) for grad in grads)

    def _velocity(self, clip: RandomClip, noisy: Tensor, sigma: Tensor) -> Tensor:
        kind, timestep = self.model.kind, self.model.timestep(sigma)
        if self._is_stock:
            tokens = kind.usual.text_tokens
            return stock_velocity(self._stock, noisy, clip.text, timestep, text_tokens=tokens)
        return self.model(
            noisy, clip.text, timestep, audio_features=clip.audio,
            text_lengths=(clip.text.shape[1],),
        )  # fmt: skip

    def _precision(self) -> Any:
        if not self.is_mixed:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=False)


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
    limit = TimeLimit(settings.seconds, began)
    with limit:
        results, details["failed"] = run_variants(step, variants, settings, limit)
    reserved = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0
    details |= {"reserved": reserved, "variants": results}
    if any(result["compiled"] for result in results.values()):
        counters = torch._dynamo.utils.counters
        details["graph_breaks"] = sum(counters["graph_break"].values())
        details["graphs"] = counters["stats"].get("unique_graphs", 0)
    return figures_of(results, details["failed"], peak, settings, reserved), details


def run_variants(
    step: TrainingStep, variants: Sequence[str], settings: argparse.Namespace, limit: TimeLimit
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What each variant took, and why others failed or have no figures."""
    results: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    warm_up = max(settings.warm_up, 1)

    def attempt(variant: str, run: Callable[[], Any]) -> Any:
        if limit.is_over:
            return None
        try:
            step.use(variant)
            return run()
        except Exception as error:  # compilers raise of everything; the other variants go on
            if not limit.is_over:
                failed[variant] = f"{type(error).__name__}: {error}"[:300]
                results.pop(variant, None)
            step.forget()
            return None

    def turn(variant: str) -> None:
        took = attempt(variant, step.measured)
        if took is not None:
            results[variant]["step_s"].append(took[0])
            _note(results[variant], took[1], step)

    with suppress(TimeoutError):
        for variant in variants:
            took = attempt(variant, lambda: [step.measured() for _ in range(warm_up)])
            if took is None:
                continue
            work, way = step.work(settings), step.way
            results[variant] = way | {
                "first_step_s": took[0][0], "warm_up_s": [seconds for seconds, _ in took[1:]],
                "step_s": [], "peak_allocated": 0, "finite": True, "useful": work.useful,
                "executed": work.training_step(way["policy"]),
            }  # fmt: skip
            # Compiling may need more.
            _note(results[variant], max((peak for _, peak in took[1:]), default=0), step)
            run = partial(kernels_of, step, step.device)
            found = None if settings.no_profile else attempt(variant, run)
            if found is not None:
                results[variant] |= found
        for variant in list(results) * settings.steps:
            if variant in results:
                turn(variant)
    for variant in set(variants) - failed.keys():
        held = results.get(variant, {"step_s": [], "warm_up_s": []})
        # A compiler may have taken the time in which others would have had their turns.
        held["step_s"] = held["step_s"] or held["warm_up_s"]
        if not held["step_s"]:
            results.pop(variant, None)
            failed[variant] = f"no step was done within {settings.seconds:.0f} s"
    return results, failed


def _note(held: dict[str, Any], peak_allocated: int, step: TrainingStep) -> None:
    """Keep what a step showed beside its time."""
    held["peak_allocated"] = max(held["peak_allocated"], peak_allocated)
    held["finite"] = held["finite"] and step.gradients_are_finite()


def figures_of(
    results: dict[str, dict[str, Any]], failed: dict[str, str], peak: float,
    settings: argparse.Namespace, reserved: int,
) -> list[Figure]:  # fmt: skip
    """The table: times beside the executed and the useful work at the peak rate."""
    figures = [Figure(name, "failed", "", None, why) for name, why in failed.items()]
    first = None
    for variant, result in results.items():
        seconds = spread(result["step_s"])
        first = first or seconds["median_s"]
        executed, useful = result["executed"] / peak, result["useful"]
        policy = f"{result['policy']}, {'compiled' if result['compiled'] else 'eager'}"
        figures += [
            Figure(f"{variant}: step, median", seconds["median_s"], "s", executed,
                   f"{policy}; limit: {result['executed']:.4g} TFLOP executed"),
            Figure(f"{variant}: step, 90th percentile", seconds["p90_s"], "s", executed),
            Figure(f"{variant}: model FLOP utilisation", useful / peak / seconds["median_s"],
                   "of the peak rate", 1.0, f"{useful:.4g} TFLOP useful"),
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
        "help": "each of full, attention, none, eager, compiled or profile, joined by +, or stock; "
        "a comma between variants",
    },
    seconds={"type": float, "help": "what is not done by then is left out"},
    warm_up={"type": int, "default": 5, "help": "steps of each variant"},
)  # fmt: skip
main = command_of("train_step", OPTIONS, measure)

if __name__ == "__main__":
    sys.exit(main())
