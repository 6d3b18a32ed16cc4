"""A loaded pipeline with its adapters, which makes one video at a time."""

import argparse
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from musicinfuser import keyed_random
from musicinfuser.adapters.loading import adapter_parts, check_belongs, load_lora
from musicinfuser.app.options import default_settings, shortest_seconds
from musicinfuser.clip_size import GEOMETRIES, LatentGeometry, check_clip_size
from musicinfuser.errors import UserError
from musicinfuser.generation import GeneratedClip, SamplingSpec, read_track, write_clip
from musicinfuser.generation_requests import NO_AUDIO, GenerationRequest
from musicinfuser.memory.out_of_memory import named_out_of_memory
from musicinfuser.networks.backbones import families_of
from musicinfuser.networks.music_adapter import MusicAdapter
from musicinfuser.pipelines.of_any_family import pipeline_for
from musicinfuser.pretrained_sources import part_config


class StoppedError(Exception):
    """The visitor does not want the video any more."""


@dataclass(frozen=True)
class FormInput:
    """What a visitor asks for."""

    song: str
    """A file with sound."""
    prompt: str
    seed: int
    seconds: float
    """Length of the video, rounded to frames that the model can make."""
    start_seconds: float
    """Where in the song it begins."""
    adapter: str
    num_steps: int
    guidance_scale: float
    music_guidance_scale: float
    image: str | None = None
    """A file with a picture that becomes the first frame, of a model that can begin with one."""


def num_frames_of(seconds: float, geometry: LatentGeometry, fps: float) -> int:
    """Frames of a backbone that last ``seconds`` but for one: 2.4 s are 73 of Mochi."""
    return geometry.temporal * max(round(seconds * fps / geometry.temporal), 1) + 1


class Generator:
    """What `python -m musicinfuser.app` generates with.

    Attributes:
        pipeline: On its device.
        adapters: By the names visitors see: ZICA, and the name of its LoRA in the pipeline or None.
        defaults: Size of the videos, and the settings a page starts with.
        offload: ``none``, ``model`` or ``group``.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        """Load model and adapters as the command line says.

        Raises:
            MissingWeightsError: Weights are not there.
            AdapterMismatchError: An adapter is of another base; says where.
            OutOfMemoryError: The device is too small; says which option to use.
            UserError: A size the model cannot take, or no such device.
        """
        self.offload = options.offload
        self.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            reason = f"--device {self.device} is not there; give cpu, or leave it out."
            raise UserError(reason) from error
        on_gpu = torch.device(self.device).type == "cuda"
        if self.offload != "none" and not on_gpu:
            raise UserError(f"--offload {self.offload} needs a GPU; the device is {self.device}.")
        # Before anything large is read, as far as the model's config is on this machine.
        for kind in families_of(part_config(options.model, "transformer")):
            _check_options(options, GEOMETRIES[kind.family], GEOMETRIES[kind.family].fps)
        dtype = getattr(torch, options.dtype or ("bfloat16" if on_gpu else "float32"))
        parts: dict[str, Any] = {}
        zicas: dict[str, MusicAdapter] = {}
        for name, folder in options.adapter.items():
            found = adapter_parts(
                folder, base=options.model,
                audio_encoder=parts.get("audio_encoder") or options.audio_encoder,
                feature_extractor=parts.get("feature_extractor"),
            )  # fmt: skip
            parts = found | {part: value for part, value in parts.items() if value is not None}
            zicas[name] = found["zica"]
        pipeline_class = pipeline_for(options.model)
        pipeline = pipeline_class.from_pretrained(options.model, dtype=dtype, **parts)
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline, self.adapters = pipeline, dict[str, tuple[MusicAdapter, str | None]]()
        for number, (name, folder) in enumerate(options.adapter.items()):
            lora = f"adapter{number}"
            check_belongs(
                zicas[name], pipeline.transformer, pipeline.audio_encoder,
                pipeline.feature_extractor,
            )  # fmt: skip
            load_lora(pipeline, folder, name=lora)
            has_lora = lora in getattr(pipeline.transformer, "peft_config", {})
            self.adapters[name] = zicas[name], lora if has_lora else None
        self.geometry, self.fps = pipeline.kind.geometry, zicas[next(iter(zicas))].fps
        _check_options(options, self.geometry, self.fps)
        for name, zica in zicas.items():
            if zica.fps != self.fps:
                raise UserError(
                    f"the adapter {name} was trained on {zica.fps:g} frames per second, another "
                    f"one on {self.fps:g}; open a page for each."
                )
        self.defaults = default_settings(pipeline.transformer, options)
        if options.vae_tiling:
            pipeline.vae.enable_tiling()
        self._chosen: str | None = None
        self._lock = threading.Lock()
        remedy = {"none": "add --offload model", "model": "use --offload group"}
        with named_out_of_memory("the model", remedy.get(self.offload, "use a larger device")):
            self.choose(next(iter(self.adapters)))

    @property
    def seconds_per_latent(self) -> float:
        """By which a video can be longer."""
        return shortest_seconds(self.geometry, self.fps)

    def num_frames(self, seconds: float) -> int:
        """As `num_frames_of` of this model."""
        return num_frames_of(seconds, self.geometry, self.fps)

    def choose(self, name: str) -> None:
        """Condition the pipeline on music through one of its adapters.

        Raises:
            UserError: There is none of that name.
        """
        if name not in self.adapters:
            raise UserError(f"there is no adapter {name!r}; choose {' or '.join(self.adapters)}.")
        if name == self._chosen:
            return
        zica, lora = self.adapters[name]
        pipeline, is_first = self.pipeline, self._chosen is None
        pipeline.register_modules(zica=zica)
        if lora is not None:
            pipeline.set_adapters([lora])
            pipeline.enable_lora()
        elif any(other is not None for _, other in self.adapters.values()):
            pipeline.disable_lora()
        if self.offload == "model":
            pipeline.enable_model_cpu_offload(device=self.device)
        elif self.offload == "group":
            if is_first:
                pipeline.enable_group_offload(
                    torch.device(self.device), offload_type="leaf_level", use_stream=True,
                    exclude_modules=["zica"],
                )  # fmt: skip
            zica.to(self.device)
        else:
            pipeline.to(self.device)
        self._chosen = name

    def generate(
        self, form: FormInput, folder: Path, *, with_music: bool, on_step: Callable[[int], None]
    ) -> Path:
        """Make one video with the song as its sound.

        The same input gives what ``train.py predict`` gives for this track, prompt and seed. One
        call at a time: others wait.

        Args:
            form: What to make.
            folder: Where the mp4 goes.
            with_music: Whether the model is conditioned on the song, or on no audio.
            on_step: Called after each step with the number of steps done; may raise.

        Raises:
            UserError: Whatever does not fit, in one sentence.
        """
        request = GenerationRequest(
            track=form.song, prompt=form.prompt, seed=form.seed,
            num_frames=self.num_frames(form.seconds), height=self.defaults.height,
            width=self.defaults.width, track_offset_seconds=form.start_seconds,
            heard=None if with_music else NO_AUDIO, image=form.image,
        )  # fmt: skip
        defaults, kind = self.defaults, self.pipeline.kind
        sampling = SamplingSpec(
            form.num_steps, form.guidance_scale, form.music_guidance_scale, fps=self.fps,
            negative_prompt=defaults.negative_prompt, family=kind.family,
        )  # fmt: skip

        def callback(_: Any, step: int, timestep: Any, tensors: dict) -> dict:
            on_step(step + 1)
            return {}

        with self._lock:
            self.choose(form.adapter)
            try:
                output: Any = self.pipeline(
                    request.prompt, audio=request.track if with_music else None,
                    audio_start_seconds=form.start_seconds, height=request.height,
                    width=request.width, num_frames=request.num_frames,
                    num_inference_steps=sampling.num_steps, guidance_scale=sampling.guidance_scale,
                    music_guidance_scale=sampling.music_guidance_scale,
                    negative_prompt=sampling.negative_prompt, image=request.image,
                    # As `predict` draws it.
                    generator=keyed_random.generator(request.seed, 0, "sampling noise"),
                    output_type="pt", callback_on_step_end=callback,
                )  # fmt: skip
            finally:
                # Also where a callback ended the call.
                self.pipeline.maybe_free_model_hooks()
        frames = (output.frames[0].float().cpu() * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        _, _, sound, padded_seconds = read_track(request, fps=self.fps)
        # Visitors see the names of their files, not where the server keeps them.
        image = None if form.image is None else Path(form.image).name
        shown = replace(request, track=Path(form.song).name, image=image)
        clip = GeneratedClip(shown, frames, sound, padded_seconds, self.fps)
        return folder / write_clip(folder, clip, sampling=sampling, system=form.adapter).file


def _check_options(options: argparse.Namespace, geometry: LatentGeometry, fps: float) -> None:
    """Refuse sizes and lengths that a model cannot make (`UserError`)."""
    unit = geometry.unit
    check_clip_size(1, options.height or unit, options.width or unit, geometry=geometry)
    shortest = shortest_seconds(geometry, fps)
    if options.max_seconds < shortest:
        raise UserError(
            f"--max_seconds is {options.max_seconds:g}; the shortest video lasts {shortest:.2g} s."
        )
