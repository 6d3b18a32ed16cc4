"""Clips of a small world with what is to be seen in them, for training and judging probes."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from datamodules import AISTDataset, YouTubeDataset
from datamodules.aist_names import tables
from datamodules.clips import CROPS, ClipSpec, CutSettings, RawClip
from datamodules.cutting import ClipDataset
from musicinfuser.atomic_files import atomic_file, write_text
from musicinfuser.errors import UserError
from musicinfuser.fingerprint import fingerprint_folder
from musicinfuser.keyed_random import generator
from musicinfuser.latent_space import normalise, posterior_sample
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from small_world.generator import read_recipe
from small_world.generator.corpus import WORLD_FILE
from small_world.generator.wardrobe import BOTTOMS, TOPS, WALLS, WILD_BACKDROPS
from small_world.generator.wild import draw_wild, plan_wild

CLASSES: dict[str, tuple[str, ...]] = {
    "genre": tuple(tables().genres),
    "top": TOPS,
    "bottom": BOTTOMS,
    "backdrop_kind": ("studio", *WILD_BACKDROPS),
    "backdrop_colour": WALLS,
    "num_dancers": ("1", "2", "3"),
}
"""What a clip may be, by attribute."""

UNKNOWN = -1
GROUP_SHARE = 8
"""One in so many group dances is held out."""

CPU = torch.device("cpu")
_FRAME_SLACK = 1e-3


@dataclass(frozen=True)
class CutOptions:
    """How clips are cut and which are kept; the same defaults as the encode job's.

    Attributes:
        num_frames: Frames per clip.
        height: Rows.
        width: Columns.
        fps: Frame rate.
        seed: Seed of the cuts and of the VAE's noise.
        num_held_out_wild: Videos from the wild kept out of training, the last by number.
        vae_share: One in so many training clips also goes through the VAE; held-out ones all do.
    """

    num_frames: int = 73
    height: int = 64
    width: int = 64
    fps: float = 30.0
    seed: int = 42
    num_held_out_wild: int = 150
    vae_share: int = 3


@dataclass(frozen=True, eq=False)
class ProbeClips:
    """Clips of a world in a fixed order.

    Attributes:
        frames: uint8 RGB, shape (N, T, H, W, 3); a file that is read when touched.
        decoded: The same through the VAE, for the clips of `decoded_index`, shape (M, T, H, W, 3).
        decoded_index: Which clips those are, shape (M,).
        joints: Of the only dancer as shares of the clip's picture, float32, shape (N, T, 15, 2);
            NaN with several dancers.
        labels: Per attribute a class number or `UNKNOWN`, shape (N,).
        records: Per clip its id, source, camera, caption, whether it is held out, and the beats in
            seconds on the clip's clock.
    """

    frames: NDArray[np.uint8]
    decoded: NDArray[np.uint8]
    decoded_index: NDArray[np.int64]
    joints: NDArray[np.float32]
    labels: dict[str, NDArray[np.int64]]
    records: list[dict[str, Any]]

    def where(self, *, held_out: bool, source: str | None = None) -> NDArray[np.int64]:
        """Numbers of the training or the held-out clips."""
        return np.array(
            [
                number
                for number, record in enumerate(self.records)
                if record["held_out"] == held_out and source in (None, record["source"])
            ],
            np.int64,
        )


def open_clips(world: Path, vae: Path, cache: Path, options: CutOptions) -> ProbeClips:
    """Cut and decode the clips of a world once, pass some through the VAE, and keep the result.

    Args:
        world: A small world.
        vae: Folder in diffusers' layout with a ``vae`` in it.
        cache: Folder for the arrays, some 3 GB for 2,500 clips; made again where it was made from
            something else.
        options: How to cut.

    Raises:
        ValueError: If the world or the VAE is missing or too few clips can be read.
    """
    settings = {
        "world": json.loads(_text_of(world / WORLD_FILE)),
        "vae": fingerprint_folder(vae / "vae"),
        **dataclasses.asdict(options),
    }
    if not _is_settled(cache / "raw.json", settings):
        _cut_all(world, cache, options)
        write_text(cache / "raw.json", json.dumps(settings))
    records = json.loads(_text_of(cache / "records.json"))
    if not _is_settled(cache / "decoded.json", settings):
        _decode_some(vae, cache, records, options)
        write_text(cache / "decoded.json", json.dumps(settings))
    return ProbeClips(
        frames=np.load(cache / "frames.npy", mmap_mode="r"),
        decoded=np.load(cache / "decoded.npy", mmap_mode="r"),
        decoded_index=np.load(cache / "decoded_index.npy"),
        joints=np.load(cache / "joints.npy"),
        labels={name: np.array([record["labels"][name] for record in records]) for name in CLASSES},
        records=records,
    )


def labels_of(truth: dict[str, Any]) -> dict[str, int]:
    """Class numbers of a recording; what its captions never name is `UNKNOWN`."""
    kind, colour, _ = truth.get("backdrop", ["studio", "", ""])
    words = {
        "genre": truth["genre"],
        "top": truth.get("top"),
        "bottom": truth.get("bottom"),
        "backdrop_kind": kind,
        "backdrop_colour": colour,
        "num_dancers": str(truth["num_dancers"]),
    }
    return {
        name: classes.index(words[name]) if words[name] in classes else UNKNOWN
        for name, classes in CLASSES.items()
    }


def joints_in_clip(
    truth: dict[str, Any], spec: ClipSpec, *, fps: float, height: int, width: int
) -> NDArray[np.float32]:
    """Joints of the first dancer in the frames that a clip shows, as shares of the clip's picture.

    Args:
        truth: Of the recording.
        spec: The clip.
        fps: Frame rate of the clip.
        height: Rows of the clip.
        width: Columns of the clip.

    Returns:
        Shape (T, 15, 2); outside [0, 1] where a joint is cut off.
    """
    box = CROPS[spec.crop](
        truth["width"], truth["height"], target_height=height, target_width=width
    )
    seconds = spec.start_seconds + np.arange(spec.num_frames) / fps
    shown = np.floor(seconds * truth["fps"] + _FRAME_SLACK).astype(int)
    picture = np.array(truth["joints"][0])[shown.clip(0, truth["num_frames"] - 1)]
    pixels = picture * (truth["width"], truth["height"])
    return ((pixels - (box.left, box.top)) / (box.width, box.height)).astype(np.float32)


def _cut_all(world: Path, cache: Path, options: CutOptions) -> None:
    recipe = read_recipe(world)
    settings = CutSettings(
        num_frames=options.num_frames,
        height=options.height,
        width=options.width,
        fps=options.fps,
        seed=options.seed,
    )
    datasets: list[ClipDataset] = [
        AISTDataset(settings, world / "aist"),
        YouTubeDataset(settings, world / "youtube"),
    ]
    number_of = {draw_wild(item.index, recipe.seed).title: item.index for item in plan_wild(recipe)}
    first_held_out = len(number_of) - options.num_held_out_wild
    total = sum(map(len, datasets))
    shape = (options.num_frames, options.height, options.width, 3)
    records: list[dict[str, Any]] = []
    num_groups = 0
    joints: list[NDArray[np.float32]] = []
    with atomic_file(cache / "all_frames.npy") as temporary:
        frames = np.lib.format.open_memmap(temporary, "w+", np.uint8, (total, *shape))
        for clip in tqdm(_clips(datasets), "cutting", total, unit="clip"):
            spec = clip.spec
            truth = json.loads(_text_of(world / "truth" / f"{spec.path.stem}.json"))
            held_out = spec.split == "held_out"
            if spec.source == "youtube":
                held_out = number_of[spec.path.stem] >= first_held_out
            elif truth["situation"] == "GR":
                # Held-out music has no group dances; without these, three dancers went unjudged.
                held_out = num_groups % GROUP_SHARE == 0
                num_groups += 1
            is_solo = truth["num_dancers"] == 1
            placed = joints_in_clip(
                truth, spec, fps=options.fps, height=options.height, width=options.width
            )
            frames[len(records)] = clip.frames.numpy()
            joints.append(placed if is_solo else np.full_like(placed, np.nan))
            beats = np.array(truth["beats_seconds"]) - spec.start_seconds
            inside = (beats >= 0) & (beats < options.num_frames / options.fps)
            records.append(
                {
                    "clip_id": spec.clip_id,
                    "source": spec.source,
                    "camera": truth.get("camera"),
                    "situation": truth.get("situation"),
                    "caption": spec.caption,
                    "held_out": held_out,
                    "beats_seconds": beats[inside].round(5).tolist(),
                    "labels": labels_of(truth),
                }
            )
        frames.flush()
        # The clips that turned out unreadable or silent leave a tail.
        with atomic_file(cache / "frames.npy") as whole:
            np.save(whole, frames[: len(records)])
    (cache / "all_frames.npy").unlink()
    if not any(record["held_out"] for record in records):
        raise UserError(f"{world} holds no clip to held-out music; make it with --held-out.")
    with atomic_file(cache / "joints.npy") as temporary:
        np.save(temporary, np.stack(joints))
    write_text(cache / "records.json", json.dumps(records, ensure_ascii=False))


def _clips(datasets: list[ClipDataset]) -> Iterable[RawClip]:
    for dataset in datasets:
        for number in range(len(dataset)):
            clip = dataset[number]
            if isinstance(clip, RawClip):
                yield clip


def through_vae(frames: torch.Tensor, encoders: Encoders, *, name: str, seed: int) -> torch.Tensor:
    """A clip as a model that never errs would generate it: a draw of its latents, decoded.

    Args:
        frames: uint8 (T, H, W, 3).
        encoders: With the VAE.
        name: Keys the draw.
        seed: Keys the draw.
    """
    mean, logvar = encoders.encode_video(frames[None], device=CPU)
    noise = torch.randn(mean.shape, generator=generator(seed, name, "probe latents"))
    latents = posterior_sample(mean, logvar, noise)
    latents = normalise(latents, encoders.latents_mean, encoders.latents_std)
    return encoders.decode_video(latents)[0]


def _decode_some(
    vae: Path, cache: Path, records: list[dict[str, Any]], options: CutOptions
) -> None:
    encoders = Encoders(EncodersSpec(mochi=str(vae), dtype="float32"))
    chosen = [
        number
        for number, record in enumerate(records)
        if record["held_out"] or number % options.vae_share == 0
    ]
    frames = np.load(cache / "frames.npy", mmap_mode="r")
    with atomic_file(cache / "decoded.npy") as temporary:
        decoded = np.lib.format.open_memmap(
            temporary, "w+", np.uint8, (len(chosen), *frames.shape[1:])
        )
        for place, number in enumerate(tqdm(chosen, "through the VAE", unit="clip")):
            clip = torch.from_numpy(np.array(frames[number]))
            name = records[number]["clip_id"]
            decoded[place] = through_vae(clip, encoders, name=name, seed=options.seed)
        decoded.flush()
    with atomic_file(cache / "decoded_index.npy") as temporary:
        np.save(temporary, np.array(chosen, np.int64))


def _is_settled(path: Path, settings: dict[str, Any]) -> bool:
    return path.is_file() and json.loads(path.read_text("utf-8")) == json.loads(
        json.dumps(settings)
    )


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); make the world first."
        ) from None
