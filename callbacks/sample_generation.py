"""SampleGeneration: clips generated while training goes on."""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from callbacks.ema import averaged_weights
from callbacks.sigterm import NOTICE
from callbacks.step_callback import StepCallback
from dance_eval.metrics.beat_alignment import BeatAlignment
from dance_eval.metrics.beat_trackers import BEAT_RATE_HZ
from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.music_beats import MusicBeats
from musicinfuser.clip_size import check_clip_size, check_takes_image, geometry_of
from musicinfuser.errors import UserError
from musicinfuser.generation import OUTPUT_RATE_HZ, GeneratedClip, generate, write_clip
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.media.audio import read_audio
from musicinfuser.media.errors import MediaError
from musicinfuser.media.generated import write_manifest
from musicinfuser.media.latents import CacheError
from musicinfuser.media.pictures import read_picture
from musicinfuser.memory.out_of_memory import OutOfMemoryError
from musicinfuser.networks.transformers_audio import TransformersAudio
from musicinfuser.pretrained_sources import MissingWeightsError, find_local
from musicinfuser.setting_checks import check_number, file_problem
from musicinfuser.throw_away import throw_away_mode

NO_SAMPLES = (
    "no samples while training: {}; name tracks in sample_generation.requests, or set "
    "sample_generation.every_n_steps to 0."
)


@dataclass(frozen=True)
class SampleRequest:
    """A clip to watch over the course of training."""

    track: str
    """An audio file, or a video whose sound is used."""
    prompt: str
    seed: int = 0
    track_offset_seconds: float = 0.0
    heard: str | None = None
    """Another file the clip is conditioned on in place of the track, or ``nothing``."""
    heard_offset_seconds: float | None = None
    """Where in it; null is the offset in the track."""
    image: str | None = None
    """A picture that becomes the first frame, of a backbone that can begin with one."""


class SampleGeneration(StepCallback):
    """Generates the same requests every so many steps, through the code that `predict` uses.

    Where no requests are named, they are clips of held-out music of the training's own cache: the
    video that each was cut from, from where it was cut, and its caption, whose features the cache
    holds. If that cannot be, one line says why at the start and the training goes on without.

    Two such clips of 32 steps every 1,000 training steps, the default of base.yaml, take 4.0 % of
    the run's work, decoding included (counted at full size; 64 steps: 7.8 %).

    Runs on the trainer's device in its precision, without gradient. Random streams, train and eval
    modes, gradients and cached memory are left as they were found, so a run with samples equals a
    run without. With AdapterEMA the averaged weights are watched. On SIGTERM a clip under way is
    given up.

    The clips' beat alignment and its level of chance are logged beside them, from beats tracked in
    the whole track; of few clips it is a noisy curve.
    """

    def __init__(
        self,
        every_n_steps: int = 0,
        requests: list[SampleRequest] | None = None,
        num_frames: int = 73,
        height: int = 480,
        width: int = 848,
        num_logged_frames: int = 8,
        held_out_clips: int = 2,
        held_out_steps: int = 32,
        family: str = "mochi",
    ) -> None:
        """Choose what to watch.

        Args:
            every_n_steps: Optimizer steps between samples; 0 switches sampling off.
            requests: Tracks, prompts and seeds; empty for clips of the cache's held-out music.
            num_frames: Frames per clip, of Mochi 6k + 1, of named requests.
            height: Pixels, likewise.
            width: Pixels, likewise.
            num_logged_frames: Frames of a clip in the logged picture.
            held_out_clips: How many, where no requests are named.
            held_out_steps: Sampling steps of these, if ``model.sampling`` has more; named requests
                take all of those.
            family: As ``model.backbone.family``: which sizes clips can have.
        """
        check_number("sample_generation.every_n_steps", every_n_steps, at_least=0)
        check_number("sample_generation.held_out_clips", held_out_clips, at_least=1)
        check_number("sample_generation.held_out_steps", held_out_steps, at_least=1)
        # Also where no requests are named.
        check_clip_size(num_frames, height, width, geometry=geometry_of(family))
        self.every_n_steps, self.num_logged_frames = every_n_steps, num_logged_frames
        self.held_out_clips, self.held_out_steps = held_out_clips, held_out_steps
        self._held_out: list[GenerationRequest] = []
        self._rhythm = BeatAlignment()
        self._beats = MusicBeats(partial(read_audio, rate_hz=BEAT_RATE_HZ))
        size: dict[str, Any] = {"num_frames": num_frames, "height": height, "width": width}
        self.requests = [GenerationRequest(**vars(request), **size) for request in requests or []]
        if any(request.image for request in self.requests):
            what = "an image is given in sample_generation.requests"
            check_takes_image(geometry_of(family), what)

    def before_run(self, cli: LightningCLI) -> None:
        """Refuse what cannot be: a sharded backbone runs on all processes at once.

        Samples of the cache's clips are then left out, with a warning.
        """
        is_sharded = getattr(cli.model, "shard_backbone", False) and cli.trainer.world_size > 1
        if cli.subcommand == "fit" and is_sharded and self.every_n_steps and self.requests:
            raise UserError(
                "model.shard_backbone and samples while training exclude each other; set "
                "sample_generation.every_n_steps to 0 and `predict` from checkpoints."
            )

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse missing tracks before training starts; choose clips where none are named."""
        self._held_out = []
        if stage != "fit" or not self.every_n_steps:
            return
        for problem in self.missing_tracks():
            raise UserError(problem)
        if not self.requests and not 0 <= trainer.max_steps < self.every_n_steps:
            self._held_out = self._choose(trainer, pl_module)

    def missing_tracks(self) -> list[str]:
        """A sentence for each file that is named and not there, and each damaged picture."""
        files = [f for r in self.requests for f in (r.track, r.heard_file, r.image)]
        name = "sample_generation.requests"
        problems = [file_problem(name, file) for file in files if file is not None]
        for request in self.requests:
            if request.image is not None and Path(request.image).is_file():
                try:
                    read_picture(request.image, height=request.height, width=request.width)
                except MediaError as error:
                    problems.append(f"{name}: {error}")
        return [problem for problem in problems if problem is not None]

    def _choose(self, trainer: L.Trainer, module: Any) -> list[GenerationRequest]:
        data: Any = getattr(trainer, "datamodule", None)
        chosen: dict[GenerationRequest, Tensor] = {}
        reason = self.obstacle(module, data)
        try:
            if reason is None and hasattr(data, "held_out_requests"):
                chosen = data.held_out_requests(self.held_out_clips)
        except CacheError as error:
            reason = str(error)
        # All processes do as the first: they wait for each other where samples are due.
        requests: list[GenerationRequest] = trainer.strategy.broadcast(list(chosen))
        if not requests:
            rank_zero_warn(NO_SAMPLES.format(reason or "there is no cache of clips"))
            return []
        texts = {request.prompt: text for request, text in chosen.items()}
        negative = module.sampling.negative_prompt
        if negative and (features := data.cached_text(negative)) is not None:
            texts[negative] = features
        module.encoders.take_captions(texts)
        return requests

    @staticmethod
    def obstacle(module: Any, data: Any) -> str | None:
        """Why a model cannot make samples of the clips of ``data``'s cache; None if it can."""
        if not hasattr(module, "encoders"):
            return "the model generates no clips"
        if module.is_sharded:
            return "the backbone is spread over the processes (model.shard_backbone)"
        spec = module.encoders.spec
        parts: list[tuple[str, str, str | None]] = [("VAE", spec.mochi, "vae")]
        parts += [
            ("audio encoder", audio.source, audio.subfolder)
            for audio in module.encoders.audio.parts
            if isinstance(audio, TransformersAudio)
        ]
        negative = module.sampling.negative_prompt
        if negative and not (hasattr(data, "has_text") and data.has_text(negative)):
            parts.append(("text encoder", spec.mochi, "text_encoder"))
        for name, source, subfolder in parts:
            if find_local(source, subfolder) is None:
                return f"the {name} of {source} is not on this machine"
        return None

    def on_step_end(self, trainer: L.Trainer, pl_module: L.LightningModule, step: int) -> None:
        """Generate at the interval."""
        is_due = self.every_n_steps and step % self.every_n_steps == 0
        if is_due and (self.requests or self._held_out):
            self.generate(trainer, pl_module, step)

    def generate(self, trainer: L.Trainer, module: Any, step: int) -> None:
        """Generate, write and log this process's share of the requests."""
        # The folder's manifest lists all that lies in it.
        name = "_".join(filter(None, (throw_away_mode(trainer), f"step_{step:06d}")))
        folder = Path(trainer.default_root_dir, "samples", name)
        sampling, requests = module.sampling, self.requests
        if not requests:
            num_steps = min(sampling.num_steps, self.held_out_steps)
            sampling, requests = replace(sampling, num_steps=num_steps), self._held_out
        mine = requests[trainer.global_rank :: trainer.world_size]
        self._rhythm.to(module.device)
        with (
            averaged_weights(trainer, module),
            _untouched(module),
            trainer.precision_plugin.forward_context(),
            torch.no_grad(),
        ):
            for request in mine:
                try:
                    clip = generate(
                        module.adapted, module.encoders, request, sampling,
                        device=module.device, progress=_until_sigterm,
                    )  # fmt: skip
                except _GivenUpError:
                    break
                except (MediaError, MissingWeightsError, OutOfMemoryError) as error:
                    rank_zero_warn(f"no sample for {request.track}: {error}")
                    continue
                write_clip(folder, clip, sampling=sampling, system=f"step {step}")
                self._log(trainer, clip, step)
                self._watch_rhythm(clip)
        trainer.strategy.barrier("samples written")
        self._log_rhythm(trainer, step)
        if trainer.is_global_zero and folder.is_dir():
            write_manifest(folder)

    def _watch_rhythm(self, clip: GeneratedClip) -> None:
        """Add a clip to the beat alignment of this step's samples."""
        request = clip.request
        entry = ClipEntry(
            Path(), request.file_stem(), "samples", track=request.track,
            track_offset_seconds=request.track_offset_seconds or 0.0,
        )  # fmt: skip
        scored = ScoredClip(
            frames=clip.frames.cpu(),
            fps=clip.fps,
            waveform=clip.waveform.cpu(),
            rate_hz=OUTPUT_RATE_HZ,
            name=entry.file,
            seed=0,
            beats_seconds=partial(
                self._beats.read, entry, duration_seconds=len(clip.frames) / clip.fps
            ),
        )
        try:
            self._rhythm.update(scored)
        except UserError as error:
            rank_zero_warn(f"no beat alignment of the sample for {request.track}: {error}")

    def _log_rhythm(self, trainer: L.Trainer, step: int) -> None:
        """Log the means over the clips of all processes; nothing where there is none."""
        if trainer.world_size == 1 and not self._rhythm.update_called:
            return
        found = {name: float(value) for name, value in self._rhythm.compute().items()}
        self._rhythm.reset()
        names = {"score": "samples/beat_alignment", "chance": "samples/beat_alignment_chance"}
        if not math.isnan(found["score"]):
            for logger in trainer.loggers:
                logger.log_metrics({tag: found[name] for name, tag in names.items()}, step)

    def _log(self, trainer: L.Trainer, clip: GeneratedClip, step: int) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                tag = f"samples/{clip.request.file_stem()}"
                chosen = torch.linspace(0, len(clip.frames) - 1, self.num_logged_frames).long()
                strip = clip.frames[chosen].permute(1, 0, 2, 3).flatten(1, 2)
                logger.experiment.add_image(tag, strip.numpy(), step, dataformats="HWC")
                # Resampled music can pass full scale, which TensorBoard would cut off.
                sound = clip.waveform / clip.waveform.abs().max().clamp(min=1)
                logger.experiment.add_audio(tag, sound[None], step, OUTPUT_RATE_HZ)


class _GivenUpError(Exception):
    """There are only seconds left, which are for the checkpoint."""


def _until_sigterm(steps: range) -> Iterator[int]:
    for step in steps:
        if NOTICE.received:
            raise _GivenUpError
        yield step


@contextmanager
def _untouched(module: L.LightningModule) -> Iterator[None]:
    """Put random states and module modes back, and free what sampling cached."""
    modes = {name: part.training for name, part in module.named_modules()}
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = [module.device] if module.device.type == "cuda" else []
    module.eval()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for name, part in module.named_modules():
            part.training = modes[name]
        if devices:
            torch.cuda.empty_cache()
