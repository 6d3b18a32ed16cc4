"""One optimizer step of the recipe in plain torch, as the Trainer runs it, in several variants."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from diffusers.models.attention_processor import MochiAttnProcessor2_0
from torch import Tensor

from benchmarks.profiles import model_options
from benchmarks.random_model import RandomClip
from benchmarks.report import timed
from musicinfuser.diffusion.flow import interpolate, velocity_loss, velocity_target
from musicinfuser.diffusion.noise_levels import beta_quantile
from musicinfuser.errors import UserError
from musicinfuser.keyed_random import generator, normal
from musicinfuser.latent_space import posterior_sample
from musicinfuser.networks.adapted_block import compiled_run, run_block
from musicinfuser.networks.attention import JointAttention
from musicinfuser.networks.music_mochi import MusicMochi

POLICY_WORDS = ("full", "self_attention", "attention", "none")
COMPILE_WORDS = {"eager": False, "compiled": True}
# diffusers' attention with a mask and padded text, whole blocks recomputed, nothing compiled.
STOCK = "stock"
STOCK_TEXT_TOKENS = 256
BETA = 3.0


def check_variant(variant: str) -> None:
    """Refuse words that say nothing.

    Raises:
        ValueError: Names the word.
    """
    known = (*POLICY_WORDS, *COMPILE_WORDS, STOCK, "profile")
    for word in variant.split("+"):
        if word not in known:
            raise UserError(f"{word!r} in --variants is unknown; use {', '.join(known)}.")


class TrainingStep:
    """Data, noise, forward, backward and AdamW, in the order of Lightning's loop."""

    def __init__(
        self, model: MusicMochi, clip: RandomClip, config: Mapping[str, Any], device: torch.device
    ) -> None:
        """Set up the optimizer.

        Args:
            model: On ``device``, of the profile; compiled here, once a variant wants it.
            clip: In the host's memory, pinned on CUDA.
            config: The profile.
            device: Where it runs.
        """
        self.model, self.clip, self.device = model, clip, device
        settings = config["model"]["init_args"]["optimizer"]
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
        """Run steps in another way from now on; weights and optimizer stay.

        Args:
            variant: Words joined by ``+``; what none of them says is the profile's.
        """
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
        return self.model(noisy, text, (1 - sigma) * 1000, audio_features=clip.audio, **told)

    def _precision(self) -> Any:
        if not self.is_mixed:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=False)
