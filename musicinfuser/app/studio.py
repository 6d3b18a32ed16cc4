"""A loaded pipeline with its adapters, which makes one video at a time."""

import argparse
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from musicinfuser import keyed_random
from musicinfuser.adapters.loading import adapter_parts, check_belongs, load_lora
from musicinfuser.app.suits import Suit, suit_of
from musicinfuser.clip_size import check_clip_size
from musicinfuser.errors import UserError
from musicinfuser.generation import OUTPUT_RATE_HZ, read_track
from musicinfuser.generation_requests import NO_AUDIO, GenerationRequest
from musicinfuser.media.generated import ManifestEntry, write_generated
from musicinfuser.memory.out_of_memory import named_out_of_memory
from musicinfuser.networks.music_adapter import MusicAdapter
from musicinfuser.networks.text_tokens import cut_note
from musicinfuser.pipelines.conditions import FPS
from musicinfuser.pipelines.music_infuser import MusicInfuserPipeline

SECONDS_PER_LATENT = 6 / FPS


class StoppedError(Exception):
    """The visitor does not want the video any more."""


@dataclass(frozen=True)
class Wish:
    """What a visitor asks for."""

    song: str
    """A file with sound."""
    prompt: str
    seed: int
    seconds: float
    """Length of the video, rounded to 6k + 1 frames."""
    start_seconds: float
    """Where in the song it begins."""
    adapter: str
    num_steps: int
    guidance_scale: float
    music_guidance_scale: float


def num_frames_of(seconds: float) -> int:
    """6k + 1 frames that last ``seconds`` but for one frame: 2.4 s are 73."""
    return 6 * max(round(seconds / SECONDS_PER_LATENT), 1) + 1


class Studio:
    """What `python -m musicinfuser.app` generates with."""

    def __init__(
        self,
        pipeline: MusicInfuserPipeline,
        adapters: dict[str, tuple[MusicAdapter, str | None]],
        *,
        suit: Suit,
        device: str,
        offload: str = "none",
    ) -> None:
        """Take what was loaded.

        Args:
            pipeline: On its device.
            adapters: By the names visitors see: what hears, and the name of its LoRA in the
                pipeline, None without.
            suit: Size of the videos, and where a page starts.
            device: Where to compute.
            offload: ``none``, ``model`` or ``group``.
        """
        self.pipeline, self.adapters, self.suit = pipeline, adapters, suit
        self.device, self.offload = device, offload
        self._chosen: str | None = None
        self._lock = threading.Lock()

    @classmethod
    def load(cls, options: argparse.Namespace) -> "Studio":
        """Load model and adapters as the command line says.

        Raises:
            MissingWeightsError: Weights are not there.
            AdapterMismatchError: An adapter is of another base; says where.
            OutOfMemoryError: The device is too small; says which option to use.
            ValueError: A size Mochi cannot take, or no such device.
        """
        device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        if not _exists(device):
            raise UserError(f"--device {device} is not there; give cpu, or leave it out.")
        on_gpu = torch.device(device).type == "cuda"
        if options.offload != "none" and not on_gpu:
            raise UserError(f"--offload {options.offload} needs a GPU, but the device is {device}.")
        # Before anything large is read.
        check_clip_size(7, options.height or 16, options.width or 16)
        dtype = getattr(torch, options.dtype or ("bfloat16" if on_gpu else "float32"))
        parts: dict[str, Any] = {}
        adapters: dict[str, tuple[MusicAdapter, str | None]] = {}
        for name, folder in options.adapter.items():
            found = adapter_parts(
                folder,
                base=options.model,
                audio_encoder=parts.get("audio_encoder") or options.audio_encoder,
                feature_extractor=parts.get("feature_extractor"),
            )
            parts = found | {part: value for part, value in parts.items() if value is not None}
            adapters[name] = (found["zica"], None)
        pipeline = MusicInfuserPipeline.from_pretrained(options.model, dtype=dtype, **parts)
        pipeline.set_progress_bar_config(disable=True)
        for number, (name, folder) in enumerate(options.adapter.items()):
            zica, lora = adapters[name][0], f"adapter{number}"
            check_belongs(
                zica, pipeline.transformer, pipeline.audio_encoder, pipeline.feature_extractor
            )
            load_lora(pipeline, folder, name=lora)
            has_lora = lora in getattr(pipeline.transformer, "peft_config", {})
            adapters[name] = (zica, lora if has_lora else None)
        suit = suit_of(pipeline.transformer)
        changes = {
            name: getattr(options, name)
            for name in ("height", "width", "num_steps", "guidance_scale")
            if getattr(options, name) is not None
        }
        suit = Suit(**(vars(suit) | changes))
        if options.vae_tiling:
            pipeline.vae.enable_tiling()
        studio = cls(pipeline, adapters, suit=suit, device=device, offload=options.offload)
        remedy = {"none": "add --offload model", "model": "use --offload group"}
        with named_out_of_memory("the model", remedy.get(options.offload, "use a larger device")):
            studio.choose(next(iter(adapters)))
        return studio

    def choose(self, name: str) -> None:
        """Let the pipeline listen with one of its adapters.

        Raises:
            ValueError: There is none of that name.
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

    def cut_note(self, prompt: str) -> str:
        """What is not read of a prompt, in one sentence; empty if it is read whole."""
        return cut_note(prompt, self.pipeline.tokenizer) or ""

    def dance(
        self, wish: Wish, folder: Path, *, hears: bool, on_step: Callable[[int], None]
    ) -> Path:
        """Make one video with the song as its sound.

        The same wish gives what ``train.py predict`` gives for this track, prompt and seed. One
        call at a time: others wait.

        Args:
            wish: What to make.
            folder: Where the mp4 goes.
            hears: Whether the model hears the song, or nothing.
            on_step: Called after each step with the number of steps done; may raise.

        Raises:
            ValueError: Whatever does not fit, in one sentence.
        """
        num_frames = num_frames_of(wish.seconds)

        def callback(_: Any, step: int, timestep: Any, tensors: dict) -> dict:
            on_step(step + 1)
            return {}

        with self._lock:
            self.choose(wish.adapter)
            try:
                output: Any = self.pipeline(
                    wish.prompt,
                    audio=wish.song if hears else None,
                    height=self.suit.height,
                    width=self.suit.width,
                    num_frames=num_frames,
                    num_inference_steps=wish.num_steps,
                    guidance_scale=wish.guidance_scale,
                    music_guidance_scale=wish.music_guidance_scale,
                    audio_start_seconds=wish.start_seconds,
                    # As `predict` draws it.
                    generator=keyed_random.generator(wish.seed, 0, "sampling noise"),
                    output_type="pt",
                    callback_on_step_end=callback,
                )
            finally:
                # Also where a callback ended the call.
                self.pipeline.maybe_free_model_hooks()
        frames = (output.frames[0].float().cpu() * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        request = GenerationRequest(
            track=wish.song,
            prompt=wish.prompt,
            seed=wish.seed,
            num_frames=num_frames,
            height=self.suit.height,
            width=self.suit.width,
            track_offset_seconds=wish.start_seconds,
            heard=None if hears else NO_AUDIO,
        )
        _, _, sound, padded_seconds = read_track(request, fps=FPS)
        entry = ManifestEntry(
            file=f"{request.file_stem()}.mp4",
            system=wish.adapter,
            track=Path(wish.song).name,
            track_offset_seconds=wish.start_seconds,
            prompt=wish.prompt,
            seed=wish.seed,
            num_frames=num_frames,
            fps=FPS,
            height=self.suit.height,
            width=self.suit.width,
            num_steps=wish.num_steps,
            guidance_scale=wish.guidance_scale,
            padded_seconds=padded_seconds,
            music_guidance_scale=wish.music_guidance_scale,
            heard=request.heard,
        )
        return write_generated(
            folder, entry, frames=frames, waveform=sound, audio_rate_hz=OUTPUT_RATE_HZ
        )


def _exists(device: str) -> bool:
    with suppress(RuntimeError, AssertionError):
        torch.empty(0, device=device)
        return True
    return False
