"""How clips are sampled: the settings, and latents of encoded conditions."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from musicinfuser import keyed_random
from musicinfuser.clip_size import (
    check_clip_size,
    check_takes_image,
    geometry_of,
    latent_shape,
    num_latent_frames,
)
from musicinfuser.diffusion.flow import begun_with, with_first_given
from musicinfuser.diffusion.guidance import Denoiser, guidance_away, once_per_step, text_guidance
from musicinfuser.diffusion.sampler import LINEAR_THRESHOLD, Solver, sample
from musicinfuser.diffusion.windows import Windows, in_windows
from musicinfuser.errors import UserError
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.networks.backbones import SolverName, family_named
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.safetensors_files import save_tensors
from musicinfuser.setting_checks import check_choice, check_number
from musicinfuser.setting_differences import without_defaults

WindowNoise = Literal["repeated", "independent"]
# Windows as long as the authors' training clips.
WINDOW_FRAMES, WINDOW_OVERLAP_FRAMES = 73, 36


@dataclass(frozen=True)
class SamplingSpec:
    """How latents are sampled."""

    num_steps: int
    """Steps (authors' code: 64)."""
    guidance_scale: float
    """Text guidance (section 5.1: 6.0)."""
    music_guidance_scale: float = 1.0
    """Guidance away from the same prompt without music (ours); 1 is none, and costs nothing."""
    negative_prompt: str = ""
    """Prompt of the unconditional branch; empty means zero text tokens."""
    linear_threshold: float = LINEAR_THRESHOLD
    """Of Mochi: noise removed in the linear half of the schedule (0.025)."""
    fps: float = 30.0
    """Frame rate of the model's videos."""
    window_frames: int = WINDOW_FRAMES
    """Of clips in windows: frames of a window, 6k + 1; best as many as the model was trained on."""
    window_overlap_frames: int = WINDOW_OVERLAP_FRAMES
    """Of clips in windows: frames that neighbours share at least, 6k; more is smoother and takes
    more windows."""
    window_noise: WindowNoise = "repeated"
    """Of clips in windows: ``repeated``: all windows start from the noise of the first, so that
    the dancer changes less (after FreeNoise, arXiv 2310.15169); ``independent``: as in one pass."""
    family: str = "mochi"
    """As ``model.backbone.family``: which noise levels there are, and which frame counts windows
    can have."""
    shift: float | None = None
    """Of Wan: how far noise levels are moved towards noise; null is 5."""
    solver: SolverName = "euler"
    """``euler``; or of Wan ``unipc``, which its folders name: diffusers' scheduler, on its own
    noise levels, with more memory of latents."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_number("sampling.num_steps", self.num_steps, at_least=1)
        check_number("sampling.guidance_scale", self.guidance_scale, at_least=0)
        check_number("sampling.music_guidance_scale", self.music_guidance_scale, at_least=0)
        check_choice("sampling.window_noise", self.window_noise, get_args(WindowNoise))
        check_number("sampling.shift", self.shift, above=0, hint=", or null")
        check_choice("sampling.solver", self.solver, get_args(SolverName))
        self.make_solver()
        temporal = geometry_of(self.family).temporal
        if self.window_frames <= temporal or self.window_frames % temporal != 1:
            example = 12 * temporal + 1
            raise UserError(
                f"sampling.window_frames is {self.window_frames}; use {temporal}k + 1 from "
                f"{temporal + 1} on, e.g. {example}."
            )
        overlap, most = self.window_overlap_frames, self.window_frames - 1
        if not 0 < overlap < self.window_frames or overlap % temporal:
            raise UserError(
                f"sampling.window_overlap_frames is {overlap}; windows of {self.window_frames} "
                f"frames can share {temporal}k frames, {temporal} to {most}."
            )

    def stored(self) -> dict[str, Any]:
        """What decides clips, as older files have it: without what only other families change."""
        return without_defaults(self, "family", "shift", "solver")

    def noise_levels(self) -> Tensor:
        """``(num_steps + 1,)`` from 1 to 0 on the CPU."""
        return self.make_solver().levels

    def make_solver(self) -> Solver:
        """What takes the steps of one clip or one batch of them; it may remember earlier ones."""
        return family_named(self.family).solver(
            self.solver, self.num_steps, linear_threshold=self.linear_threshold, shift=self.shift
        )

    def windows(self, num_frames: int) -> Windows | None:
        """Windows over a clip's latent frames; None where one pass holds it."""
        if num_frames <= self.window_frames:
            return None
        geometry = geometry_of(self.family)
        return Windows(
            num_latent_frames(num_frames, geometry=geometry),
            length=num_latent_frames(self.window_frames, geometry=geometry),
            overlap=self.window_overlap_frames // geometry.temporal,
            repeats_noise=self.window_noise == "repeated",
            frames_per_latent=geometry.temporal,
        )


@dataclass(frozen=True)
class LayerGuidance:
    """Guidance away from the same model without one block (section 4.1, eq. 4)."""

    layer: int
    """The block that is an identity for video and text, counted from 0."""
    scale: float
    """s in `guidance_away`; 0 is none, and costs nothing."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_number("the scale of layer guidance", self.scale, at_least=0)


AudioConditioning = Tensor | Mapping[int, Tensor]
"""Audio features ``(B, S, audio width)``, or those of each window by its first latent frame."""


class LatentCheckpoint:
    """The latents of one clip after its last finished step: a song can take hours."""

    def __init__(
        self,
        folder: Path,
        stem: str,
        made_by: Mapping[str, Any],
        *,
        on_saved: Callable[[int], None] | None = None,
    ) -> None:
        """Name the file; nothing is read or written yet.

        Args:
            folder: Where it lies; made with the first step.
            stem: What its name starts with.
            made_by: All that decides the latents; with anything else in it, another file.
            on_saved: Called with the number of steps that are done, each time they are on disk.
        """
        text = json.dumps(made_by, sort_keys=True, default=str)
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        self.path = folder / f"{stem}_{digest}.safetensors"
        self.on_saved = on_saved

    def num_done(self) -> int:
        """How many steps an earlier call left here; 0 where there is no file that can be read."""
        try:
            with safe_open(self.path, framework="pt") as file:
                return int(file.metadata()["num_done"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return 0

    def resume(self, noise: Tensor, solver: Solver) -> tuple[int, Tensor]:
        """How many steps are done and the latents after them; none and the noise for a new clip.

        The solver is put where the one was that did them.
        """
        num_done = self.num_done()
        if num_done == 0:
            return 0, noise
        tensors = {name: t.to(noise.device) for name, t in load_file(self.path).items()}
        latents = tensors.pop("latents")
        solver.remember(num_done, tensors)
        return num_done, latents

    def save(self, solver: Solver, step: int, latents: Tensor) -> None:
        """Write the latents after a step, counted from 0, and what the solver remembers."""
        tensors = {"latents": latents, **solver.memory()}
        tensors = {name: tensor.cpu() for name, tensor in tensors.items()}
        save_tensors(tensors, self.path, metadata={"num_done": str(step + 1)})
        if self.on_saved is not None:
            self.on_saved(step + 1)

    def remove(self) -> None:
        """Delete the file, and the folder if nothing else is in it."""
        self.path.unlink(missing_ok=True)
        if self.path.parent.is_dir() and not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()


@torch.no_grad()
def sample_latents(
    model: MusicModel,
    *,
    text: Tensor,
    negative: Tensor,
    audio: AudioConditioning | None,
    first_frame: Tensor | None = None,
    request: GenerationRequest,
    sampling: SamplingSpec,
    device: torch.device,
    checkpoint: LatentCheckpoint | None = None,
    windows: Windows | None = None,
    **options: Any,
) -> Tensor:
    """Normalised latents ``(1, C, T, H, W)`` fp32 of one clip.

    Args:
        model: The adapted transformer.
        text: ``(L, text width)`` features of the prompt.
        negative: ``(L', text width)`` features of the negative prompt; both may be empty.
        audio: As in `Conditions`, for one clip.
        first_frame: Likewise.
        request: Seed and size.
        sampling: Steps and guidance.
        device: Where to compute; latents in windows stay on the CPU.
        checkpoint: Where the latents go after each step, and from which sampling resumes.
        windows: As in `denoise`.
        **options: ``by_layer``, ``progress`` and ``on_window`` of `denoise`.
    """
    size, geometry = (request.num_frames, request.height, request.width), model.kind.geometry
    check_clip_size(*size, geometry=geometry)
    channels, num_frames, *area = latent_shape(*size, geometry=geometry)
    # Drawn on the CPU so that a seed means the same picture on every device; no draw depends on how
    # many windows there are.
    stream = keyed_random.generator(request.seed, 0, "sampling noise")
    num_drawn = num_frames if windows is None else windows.num_drawn
    noise = torch.randn(1, channels, num_drawn, *area, generator=stream)
    noise = noise.to(device) if windows is None else windows.noise(noise)
    conditions = Conditions(
        text[None].to(device), negative[None].to(device), audio, first_frame=first_frame
    )
    if checkpoint is not None:
        options["solver"] = solver = sampling.make_solver()
        options["first_step"], noise = checkpoint.resume(noise, solver)
        options["on_step_end"] = partial(checkpoint.save, solver)
    return denoise(model, conditions, noise, sampling, windows=windows, **options)


@dataclass
class Conditions:
    """Prompts and music of a batch of clips; a callback may change them between steps."""

    text: Tensor
    """``(B, L, text width)`` features of the prompts, right-padded."""
    negative: Tensor
    """``(B, L', text width)`` features of the negative prompts; both may be empty."""
    audio: AudioConditioning | None
    """For both branches (authors' code), on any device; None switches ZICA off."""
    text_lengths: tuple[int, ...] | None = None
    """Valid tokens of each prompt; None is all."""
    negative_lengths: tuple[int, ...] | None = None
    """Valid tokens of each negative prompt; None is all."""
    first_frame: Tensor | None = None
    """``(B, C, 1, H, W)`` normalised latents of the pictures that the clips begin with, as
    `Encoders.encode_picture` gives them; None for none."""

    def audio_from(self, start: int) -> Tensor | None:
        """Features for the window that starts at a latent frame, on the device of the text."""
        if self.audio is None or isinstance(self.audio, Tensor):
            return self.audio
        return self.audio[start].to(self.text.device)


@torch.no_grad()
def denoise(
    model: MusicModel,
    conditions: Conditions,
    noise: Tensor,
    sampling: SamplingSpec,
    *,
    solver: Solver | None = None,
    by_layer: LayerGuidance | None = None,
    windows: Windows | None = None,
    progress: Callable[[range], Iterable[int]] | None = None,
    on_window: Callable[[], None] | None = None,
    first_step: int = 0,
    on_step_end: Callable[[int, Tensor], Tensor | None] | None = None,
    lora_scale: float = 1.0,
) -> Tensor:
    """Normalised latents of a batch, of the shape of ``noise``, fp32: the one way to sample.

    A first frame that is given takes the place of the latents' own in all that the model sees of
    them, and has no noise, as in `WanImageToVideoPipeline` of diffusers; of clips in windows the
    first window begins with it.

    Args:
        model: The adapted transformer.
        conditions: Looked at anew in each step.
        noise: ``(B, C, T, H, W)``, on the model's device; with windows anywhere, where the result
            is too.
        sampling: Steps and guidance; prompts are in ``conditions``.
        solver: What takes the steps; None is a new one, as ``sampling`` says.
        by_layer: Further guidance away from the model without a block; None for none.
        windows: Denoise in windows; None for one pass.
        progress: Wraps the range of steps.
        on_window: Called after each window of each step.
        first_step: As in `sample`.
        on_step_end: As in `sample`.
        lora_scale: Times what each LoRA counts.

    Raises:
        UserError: A first frame is given, and the backbone cannot begin with one.
    """
    if conditions.first_frame is not None:
        check_takes_image(model.kind.geometry)

    def denoiser(
        start: int,
        *,
        is_negative: bool = False,
        drop_audio: bool = False,
        skip_layers: tuple[int, ...] = (),
    ) -> Denoiser:
        def velocity(latents: Tensor, sigma: Tensor) -> Tensor:
            features = conditions.negative if is_negative else conditions.text
            lengths = conditions.negative_lengths if is_negative else conditions.text_lengths
            if start == 0 and conditions.first_frame is not None:
                latents = begun_with(conditions.first_frame, latents)
                sigma = with_first_given(sigma, latents.shape[2])
            return model(
                latents,
                features,
                model.timestep(sigma),
                audio_features=None if drop_audio else conditions.audio_from(start),
                text_lengths=lengths or (features.shape[1],) * len(features),
                skip_layers=skip_layers,
                lora_scale=lora_scale,
            ).float()

        return velocity

    def guided(start: int) -> Denoiser:
        conditional = once_per_step(denoiser(start))
        velocity = text_guidance(
            conditional, denoiser(start, is_negative=True), sampling.guidance_scale
        )
        if conditions.audio is not None:
            without, scale = denoiser(start, drop_audio=True), sampling.music_guidance_scale - 1
            velocity = guidance_away(velocity, conditional, without, scale)
        if by_layer is not None:
            without = denoiser(start, skip_layers=(by_layer.layer,))
            velocity = guidance_away(velocity, conditional, without, by_layer.scale)
        return velocity

    velocity = (
        guided(0)
        if windows is None
        else in_windows(guided, windows, device=conditions.text.device, on_window=on_window)
    )
    latents = sample(
        velocity, noise, solver or sampling.make_solver(), first_step=first_step,
        progress=progress, on_step_end=on_step_end,
    )  # fmt: skip
    return begun_with(conditions.first_frame, latents)
