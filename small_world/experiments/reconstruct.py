"""Send a folder of clips through a VAE: the most that any model on its latents can reach.

    python -m small_world.experiments.reconstruct SET/ground_truth SET/reconstructed

Prints the peak signal-to-noise ratio and writes the decoded clips with their sound, in the layout
that `evaluate.py score` reads.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from dance_eval.metrics.intervals import bootstrap_mean
from musicinfuser.atomic_files import write_text
from musicinfuser.media.audio import read_audio
from musicinfuser.media.video import probe_video, read_clip
from musicinfuser.media.video_writing import write_video
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.tables import csv_table
from small_world.parts.autoencoder import psnr

SYSTEM = "ground truth through the VAE"
RATE_HZ = 24_000


def reconstruct(source: Path, out: Path, encoders: Encoders) -> list[float]:
    """Write every clip of ``source/clips.csv`` as the VAE gives it back; returns dB per clip.

    The mean of the posterior is decoded, without a draw.
    """
    with (source / "clips.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    device, values = torch.device("cpu"), []
    shape = (1, -1, 1, 1, 1)
    for row in tqdm(rows, unit="clip", desc="through the VAE"):
        path = source / row["file"]
        info = probe_video(path)
        fps = info.average_fps
        frames = read_clip(
            path,
            start_seconds=0.0,
            num_frames=round(info.duration_seconds * fps),
            height=info.height,
            width=info.width,
            fps=fps,
            crop=None,
        )
        mean, _ = encoders.encode_video(frames[None], device=device)
        normal = (mean - encoders.latents_mean.view(shape)) / encoders.latents_std.view(shape)
        decoded = encoders.decode_video(normal)[0]
        values.append(float(psnr(decoded[None] / 127.5 - 1, frames[None] / 127.5 - 1)))
        write_video(
            out / row["file"],
            decoded,
            fps=fps,
            audio=read_audio(path, rate_hz=RATE_HZ) if info.has_audio else None,
            audio_rate_hz=RATE_HZ if info.has_audio else None,
        )
    write_text(out / "clips.csv", csv_table([row | {"system": SYSTEM} for row in rows]))
    return values


def main(arguments: Sequence[str] | None = None) -> None:
    """Reconstruct a folder and print the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a folder with clips.csv")
    parser.add_argument("out", type=Path)
    parser.add_argument("--vae", default="assets/small-mochi", help="a folder with vae/")
    settings = parser.parse_args(arguments)
    encoders = Encoders(EncodersSpec(mochi=settings.vae, dtype="float32"))
    values = reconstruct(settings.source, settings.out, encoders)
    interval = bootstrap_mean(values, seed=0, name="psnr", confidence=0.95)
    lowest = min(values)
    print(f"PSNR {interval.text(2)} dB, lowest {lowest:.2f} dB, {len(values)} clips")


if __name__ == "__main__":
    main()
