"""Write a folder of clips again, changed in one way, for `evaluate.py score` and sweeps.

    python -m small_world.experiments.changed_clips SET/ground_truth SET/reconstructed \
        --vae assets/small-mochi

``--vae`` is the most that any model on the latents of a VAE can reach, and prints the peak
signal-to-noise ratio. ``--late`` is the dancer who follows: what was filmed is cut so that it comes
late by as much as the sound that is named as heard. ``--dance_of_another`` is the dancer who cannot
hear the track that the clip has: in silence, or with the other clip's track. The other changes are
worse clips, by which metrics can be judged.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur
from tqdm import tqdm

from dance_eval.metrics.clip_folder import START_COLUMNS
from dance_eval.metrics.intervals import bootstrap_mean
from dance_eval.tables import csv_table
from musicinfuser.aist_music import music_code
from musicinfuser.atomic_files import write_text
from musicinfuser.errors import UserError, in_one_sentence
from musicinfuser.generation_requests import SHIFTED, SILENCE
from musicinfuser.keyed_random import generator
from musicinfuser.label_files import read_csv
from musicinfuser.latent_space import normalise
from musicinfuser.media.audio import read_audio
from musicinfuser.media.video import probe_video, read_clip
from musicinfuser.media.video_writing import write_video
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from small_world.parts.autoencoder import psnr

RATE_HZ = 24_000
COLUMNS = ("file", "system", "track", "prompt")
SHIFTS_SECONDS = (0.0, 0.1, 0.2, 0.3, 0.4)
"""Those of configs/control/lag.yaml."""
Change = Callable[[Tensor, int], Tensor]
"""uint8 frames ``(T, H, W, 3)`` and the number of the clip to other frames of that shape."""


def with_noise(frames: Tensor, index: int, *, level: float) -> Tensor:
    """Gaussian noise of a standard deviation in grey levels of 255, new in every frame."""
    drawn = torch.randn(frames.shape, generator=generator(0, index, f"noise {level}"))
    return (frames + level * drawn).round().clamp(0, 255).to(torch.uint8)


def blurred(frames: Tensor, index: int, *, sigma_px: float) -> Tensor:
    """A Gaussian blur of every frame."""
    size = 2 * round(3 * sigma_px) + 1
    found = gaussian_blur(frames.permute(0, 3, 1, 2), [size, size], [sigma_px, sigma_px])
    return found.permute(0, 2, 3, 1).contiguous()


def through_vae(frames: Tensor, index: int, *, encoders: Encoders) -> Tensor:
    """The mean of the posterior, decoded."""
    mean, _ = encoders.encode_video(frames[None], device=torch.device("cpu"))
    return encoders.decode_video(normalise(mean, encoders.latents_mean, encoders.latents_std))[0]


def _filmed(path: Path) -> tuple[Tensor, float]:
    """uint8 frames ``(T, H, W, 3)`` of a clip, and their rate."""
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
    return frames, fps


def _write(path: Path, frames: Tensor, fps: float, *, sound_of: Path, start: float = 0.0) -> None:
    """Write frames with the sound of another video from so many seconds on, if it has one."""
    has_audio = probe_video(sound_of).has_audio
    sound = read_audio(sound_of, rate_hz=RATE_HZ, start_seconds=start) if has_audio else None
    rate_hz = RATE_HZ if has_audio else None
    write_video(path, frames, fps=fps, audio=sound, audio_rate_hz=rate_hz)


def _rows(source: Path) -> list[dict[str, str]]:
    return [row for _, row in read_csv(source / "clips.csv", required=COLUMNS, others=True)]


def write_changed(
    source: Path, out: Path, system: str, change: Change | None, *, swap_prompts: bool = False
) -> list[float]:
    """Write every clip of ``source/clips.csv`` again, with its sound, and their list.

    ``system`` comes after that of the old clips. A change of None keeps the frames; with
    ``swap_prompts`` each clip has the prompt of the clip half a list away. Gives the peak
    signal-to-noise ratio of each clip in dB.
    """
    rows = _rows(source)
    values = []
    for index, row in enumerate(tqdm(rows, unit="clip", desc=system)):
        path = source / row["file"]
        frames, fps = _filmed(path)
        changed = frames if change is None else change(frames, index)
        values.append(float(psnr(changed[None] / 127.5 - 1, frames[None] / 127.5 - 1)))
        _write(out / row["file"], changed, fps, sound_of=path)
    half = len(rows) // 2 if swap_prompts else 0
    listed = [
        row | {"system": f"{row['system']}{system}", "prompt": other["prompt"]}
        for row, other in zip(rows, rows[half:] + rows[:half], strict=True)
    ]
    write_text(out / "clips.csv", csv_table(listed))
    return values


def write_late(
    source: Path, out: Path, *, shifts_seconds: Sequence[float] = SHIFTS_SECONDS
) -> None:
    """Write every clip once per shift, filmed so much earlier than its sound, and their list.

    All are shorter than the clip by the largest shift, have the sound from there on, and are listed
    as made from sound that was late by the shift; so a lag is measured as on generated clips.
    """
    most = max(shifts_seconds)
    listed = []
    for row in tqdm(_rows(source), unit="clip", desc="late"):
        path = source / row["file"]
        frames, fps = _filmed(path)
        num = len(frames) - round(most * fps)
        given = next((name for name in START_COLUMNS if row.get(name)), START_COLUMNS[0])
        start = float(row.get(given) or 0) + most
        kept = {k: v for k, v in row.items() if k not in ("num_frames", "sha256")}
        for shift in shifts_seconds:
            first = round((most - shift) * fps)
            file = f"{Path(row['file']).stem}_late_{shift:g}.mp4"
            _write(out / file, frames[first : first + num], fps, sound_of=path, start=most)
            listed.append(
                kept
                | {"file": file, "system": f"{row['system']}, {SHIFTED}", given: f"{start:g}"}
                | {"heard": row["track"], "heard_offset_seconds": f"{start - shift:g}"}
            )
    write_text(out / "clips.csv", csv_table(listed))


def _piece(track: str) -> str:
    return music_code(Path(track).name) or track


def write_dance_of_another(source: Path, out: Path, *, heard: str) -> None:
    """Write every clip with the frames of one of another track, with its own sound, and their list.

    ``heard`` is ``silence`` or ``track``: what the dancer is said to have heard, the latter being
    the track that was danced to. `UserError` if there is one track only.
    """
    rows = _rows(source)
    listed = []
    for index, row in enumerate(tqdm(rows, unit="clip", desc="dance of another")):
        after = rows[index + 1 :] + rows[:index]
        own = _piece(row["track"])
        other = next((one for one in after if _piece(one["track"]) != own), None)
        if other is None:
            raise UserError(f"{source}: holds clips of one track only; give those of several.")
        frames, fps = _filmed(source / other["file"])
        _write(out / row["file"], frames, fps, sound_of=source / row["file"])
        control = "silent audio" if heard == SILENCE else "mismatched audio"
        kept = {name: text for name, text in row.items() if name != "sha256"}
        told = SILENCE if heard == SILENCE else other["track"]
        listed.append(kept | {"system": f"{row['system']}, {control}", "heard": told})
    write_text(out / "clips.csv", csv_table(listed))


def main(arguments: Sequence[str] | None = None) -> None:
    """Change a folder as the options say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a folder with clips.csv")
    parser.add_argument("out", type=Path)
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--vae", help="a folder with vae/: encode and decode")
    way.add_argument("--noise", type=float, help="standard deviation in grey levels of 255")
    way.add_argument("--blur", type=float, help="standard deviation in pixels")
    way.add_argument("--swap_prompts", action="store_true", help="the prompt of another clip")
    way.add_argument("--late", action="store_true", help="the dance 0 to 0.4 s late")
    way.add_argument(
        "--dance_of_another",
        choices=[SILENCE, "track"],
        help="the frames of a clip of another track, as if that or nothing were heard",
    )
    settings = parser.parse_args(arguments)
    if settings.late:
        write_late(settings.source, settings.out)
        return
    if settings.dance_of_another is not None:
        write_dance_of_another(settings.source, settings.out, heard=settings.dance_of_another)
        return
    change: Change | None = None
    if settings.vae is not None:
        spec = EncodersSpec(mochi=settings.vae, dtype="float32")
        system, change = " through the VAE", partial(through_vae, encoders=Encoders(spec))
    elif settings.noise is not None:
        system = f", noise {settings.noise:g}"
        change = partial(with_noise, level=settings.noise)
    elif settings.blur is not None:
        system = f", blur {settings.blur:g} px"
        change = partial(blurred, sigma_px=settings.blur)
    else:
        system = ", prompt of another clip"
    values = write_changed(
        settings.source, settings.out, system, change, swap_prompts=settings.swap_prompts
    )
    if settings.vae is not None:
        interval = bootstrap_mean(values, seed=0, name="psnr")
        print(f"PSNR {interval.text(2)} dB, lowest {min(values):.2f} dB, {len(values)} clips")


if __name__ == "__main__":
    with in_one_sentence("changed_clips"):
        main()
