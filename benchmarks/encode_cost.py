"""What one clip costs to encode: arithmetic at full size, and time for media on this machine.

    python -m benchmarks.encode_cost --out runs/encode_cost.json

Counts the operations of Mochi's VAE, T5-XXL and wav2vec 2.0 by their published sizes on the meta
device; reads clips of a 1080p video as the encode job does, in one process; writes a clip's file.
Where there is a GPU, the encoders run on it too, with random weights.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLMochi
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config, T5EncoderModel, Wav2Vec2Config, Wav2Vec2Model

from benchmarks.limits import peak_tflops
from benchmarks.report import Figure, command_of, parser
from musicinfuser.clip_size import MOCHI, latent_shape
from musicinfuser.device_speed import timed
from musicinfuser.keyed_random import generator
from musicinfuser.media.audio import clip_audio_seconds, read_audio
from musicinfuser.media.video import aist_crop, probe_video, read_clip
from musicinfuser.media.video_writing import write_video
from musicinfuser.networks.transformers_audio import TransformersAudio
from musicinfuser.safetensors_files import save_tensors

FPS = MOCHI.fps
# google/t5-v1_1-xxl.
T5_XXL = {
    "d_model": 4096, "d_kv": 64, "d_ff": 10_240, "num_layers": 24, "num_heads": 64,
    "feed_forward_proj": "gated-gelu", "vocab_size": 32_128,
}  # fmt: skip
CAPTION_TOKENS = 256
SECONDS_OF_VIDEO = 10


def encoders(settings: argparse.Namespace, device: str) -> dict[str, Callable[[], object]]:
    """Each encoder at full size, with random weights, on one clip or caption."""
    frames, seconds = settings.num_frames, clip_audio_seconds(settings.num_frames, fps=FPS)
    with torch.device(device), torch.no_grad():
        vae = AutoencoderKLMochi().eval().to(torch.bfloat16)
        text = T5EncoderModel(T5Config(**T5_XXL)).eval().to(torch.bfloat16)
        audio = Wav2Vec2Model(Wav2Vec2Config()).eval()
        pixels = torch.zeros(1, 3, frames, settings.height, settings.width, dtype=torch.bfloat16)
        tokens = torch.zeros(1, CAPTION_TOKENS, dtype=torch.long)
        sound = torch.zeros(1, round(seconds * TransformersAudio.rate_hz))
    return {
        "VAE": lambda: vae.encode(pixels),
        "T5-XXL, per caption": lambda: text(tokens),
        "wav2vec 2.0": lambda: audio(sound),
    }


def arithmetic(settings: argparse.Namespace) -> dict[str, float]:
    """TFLOP of each encoder."""
    counted = {}
    for name, run in encoders(settings, "meta").items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        counted[name] = counter.get_total_flops() / 1e12
    return counted


def on_gpu(settings: argparse.Namespace) -> dict[str, float]:
    """Seconds of each encoder on the GPU, the best of three after one for warming up."""
    measured = {}
    for name, run in encoders(settings, "cuda").items():
        with torch.no_grad():
            run()
            measured[name] = min(timed(run, torch.device("cuda")) for _ in range(3))
    return measured


def media(settings: argparse.Namespace, folder: Path) -> list[Figure]:
    """Core seconds and bytes of what surrounds the encoders, per clip, in one process."""
    path = folder / "gBR_sBM_c01_d04_mBR0_ch01.mp4"
    shape = (round(SECONDS_OF_VIDEO * settings.video_fps), 1080, 1920, 3)
    noise = torch.randint(0, 255, (1, 3, 135, 240), generator=generator(0, "picture", "0"))
    still = torch.nn.functional.interpolate(noise.float(), shape[1:3], mode="bicubic")
    still = still.clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0)
    # A picture that moves, so that there is something to decode.
    frames = torch.stack([still.roll((3 * t, 5 * t), (0, 1)) for t in range(shape[0])])
    sound = torch.zeros(SECONDS_OF_VIDEO * 48_000)
    write_video(path, frames, fps=settings.video_fps, audio=sound, audio_rate_hz=48_000)
    info = probe_video(path)
    crop = aist_crop(
        info.width, info.height, target_height=settings.height, target_width=settings.width
    )
    times: dict[str, list[float]] = {"read the video": [], "read the sound": [], "write": []}
    latent = latent_shape(settings.num_frames, settings.height, settings.width)
    for number in range(settings.repeats):
        start = time.process_time()
        begin = number * (SECONDS_OF_VIDEO - 3) / max(settings.repeats - 1, 1)
        size = {"height": settings.height, "width": settings.width, "crop": crop, "fps": FPS}
        read_clip(path, start_seconds=begin, num_frames=settings.num_frames, **size)
        video = time.process_time()
        read_audio(
            path, rate_hz=TransformersAudio.rate_hz, start_seconds=begin, duration_seconds=2.5
        )
        heard = time.process_time()
        file = folder / f"{number}.safetensors"
        tensors = {name: torch.randn(latent).bfloat16() for name in ("mean", "logvar")}
        save_tensors({**tensors, "audio": torch.randn(124, 768)}, file, metadata={})
        done = time.process_time()
        for name, seconds in zip(times, (video - start, heard - video, done - heard), strict=True):
            times[name].append(seconds)
    return [
        *(Figure(name, sum(values) / len(values), "core s") for name, values in times.items()),
        Figure("size of the clip's file", file.stat().st_size / 1e6, "MB"),
    ]


def measure(settings: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    """Count, and time what this machine can run."""
    with tempfile.TemporaryDirectory() as folder:
        figures = media(settings, Path(folder))
    counted = arithmetic(settings)
    figures += [Figure(name, value, "TFLOP") for name, value in counted.items()]
    device = torch.device(settings.device)
    if device.type == "cuda":
        peak, source = peak_tflops(device)
        figures += [
            Figure(f"{name}, on the GPU", value, "s", counted[name] / peak, f"limit: {source}")
            for name, value in on_gpu(settings).items()
        ]
    return figures, {}


OPTIONS = parser(
    __doc__, "height", "width", "device", num_frames=73,
    video_fps={"type": float, "default": 60.0, "help": "of the 1080p video"},
    repeats={"type": int, "default": 8, "help": "clips that are read"},
)  # fmt: skip
main = command_of("encode_cost", OPTIONS, measure)

if __name__ == "__main__":
    main()
