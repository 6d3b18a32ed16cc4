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
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from diffusers.models.attention_processor import MochiAttnProcessor2_0
from torch import Tensor

from benchmarks.device import cap_memory, kernels_of
from benchmarks.limits import peak_tflops
from benchmarks.profiles import model_options, read_profile
from benchmarks.random_model import RandomClip, clip_for, random_model, work_for
from benchmarks.report import GIB, MODEL_OPTIONS, Figure, command_of, parser, spread
from musicinfuser.device_speed import timed
from musicinfuser.diffusion.flow import interpolate, velocity_loss, velocity_target
from musicinfuser.diffusion.noise_levels import beta_quantile
from musicinfuser.errors import UserError
from musicinfuser.keyed_random import generator, normal
from musicinfuser.latent_space import posterior_sample
from musicinfuser.networks.attention import JointAttention
from musicinfuser.networks.backbones.mochi import compiled_run, run_block
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.work import Work

POLICY_WORDS = ("full", "self_attention", "attention", "none")
COMPILE_WORDS = {"eager": False, "compiled": True}
# diffusers' attention with a mask and padded text, whole blocks recomputed, nothing compiled.
STOCK = "stock"
STOCK_TEXT_TOKENS = 256
BETA = 3.0


def check_variant(variant: str) -> None:
    """Refuse unknown words with a `UserError`."""
    known = (*POLICY_WORDS, *COMPILE_WORDS, STOCK, "profile")
    for word in variant.split("+"):
        if word not in known:
            raise UserError(f"{word!r} in --variants is unknown; use {', '.join(known)}.")


class TrainingStep:
    """Data, noise, forward, backward and AdamW, in the order of Lightning's loop."""

    def __init__(
        self, model: MusicModel, clip: RandomClip, config: Mapping[str, Any], device: torch.device
    ) -> None:
        """Set up the optimizer.

        The model of the profile ``config`` is on the device, and compiled once a variant wants it;
        the clip is in the host's memory, pinned on CUDA.
        """
        self.model, self.clip, self.device = model, clip, device
        settings = config["model"]["init_args"]["optimizer"]["init_args"]
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            trained, lr=float(settings["lr"]), weight_decay=settings["weight_decay"]
        )
        self.is_mixed = config["trainer"]["precision"] == "bf16-mixed"
        self._profile = model_options(config)["memory"]
        self._compiled: Any = None
        self._is_stock = False
        self._step = 0

    def use(self, variant: str) -> None:
        """Run steps in another way from now on; what a variant does not say is the profile's."""
        words = variant.split("+")
        policy = self._profile.gradient_checkpointing
        is_compiled = self._profile.compile_blocks
        self._is_stock = STOCK in words
        if self._is_stock:
            policy, is_compiled = "full", False
        for word in words:
            policy = word if word in POLICY_WORDS else policy  # type: ignore[assignment]
            is_compiled = COMPILE_WORDS.get(word, is_compiled)
        self.model.memory = replace(
            self.model.memory, gradient_checkpointing=policy, compile_blocks=is_compiled
        )
        if is_compiled and self._compiled is None:
            self._compiled = compiled_run()
        self.model.set_block_run(self._compiled if is_compiled else run_block)
        processor = MochiAttnProcessor2_0 if self._is_stock else JointAttention
        for block in self.model.backbone.transformer_blocks:
            block.attn1.processor = processor()

    def __call__(self) -> Tensor:
        """One step; the loss, on the device."""
        clip, index = self.clip.to(self.device), [self._step]
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
        grads = [p.grad for group in self.optimizer.param_groups for p in group["params"]]
        return all(grad is not None and bool(grad.isfinite().all()) for grad in grads)

    def _velocity(self, clip: RandomClip, noisy: Tensor, sigma: Tensor) -> Tensor:
        text, length = clip.text, clip.text.shape[1]
        told: dict[str, Any] = {"text_lengths": (length,)}
        if self._is_stock:
            text = torch.nn.functional.pad(text, (0, 0, 0, STOCK_TEXT_TOKENS - length))
            mask = torch.arange(STOCK_TEXT_TOKENS, device=self.device) < length
            told = {"encoder_attention_mask": mask[None]}
        return self.model(
            noisy, text, self.model.timestep(sigma), audio_features=clip.audio, **told
        )

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
    results, details["failed"] = run_variants(step, variants, settings)
    reserved = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0
    work = work_for(model, settings)
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
