"""Clips of a small world with what is to be seen in them, for training and judging probes."""

import dataclasses
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from tqdm import tqdm

from datamodules import AISTDataset, YouTubeDataset
from datamodules.aist_names import tables
from datamodules.clips import CutSettings, RawClip
from datamodules.cutting import ClipDataset
from musicinfuser.errors import UserError
from musicinfuser.fingerprint import fingerprint_folder
from musicinfuser.keyed_random import generator
from musicinfuser.latent_space import normalise, posterior_sample
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.safetensors_files import save_tensors
from small_world.generator.corpus import read_recipe, read_truth
from small_world.generator.test_clips import joints_in_clip
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
        records: Per clip its id, source, whether it is held out, the beats in seconds on the clip's
            clock, and by attribute a class number or `UNKNOWN`.
    """

    frames: NDArray[np.uint8]
    decoded: NDArray[np.uint8]
    decoded_index: NDArray[np.int64]
    joints: NDArray[np.float32]
    records: list[dict[str, Any]]

    @cached_property
    def labels(self) -> dict[str, NDArray[np.int64]]:
        """Per attribute a class number or `UNKNOWN`, shape (N,)."""
        return {name: np.array([r["labels"][name] for r in self.records]) for name in CLASSES}

    @cached_property
    def decoded_at(self) -> dict[int, int]:
        """Place in `decoded` by the number of the clip."""
        return {int(number): place for place, number in enumerate(self.decoded_index)}

    def where(self, *, held_out: bool, source: str | None = None) -> list[int]:
        """Numbers of the training or the held-out clips."""
        return [
            number
            for number, record in enumerate(self.records)
            if record["held_out"] == held_out and source in (None, record["source"])
        ]

    def is_solo(self, number: int) -> bool:
        """Whether the joints of a clip are known."""
        return bool(np.isfinite(self.joints[number]).all())

    def versions(self, number: int) -> list[torch.Tensor]:
        """The frames of a clip, raw and, where there are any, through the VAE."""
        found = [self.frames[number]]
        if number in self.decoded_at:
            found.append(self.decoded[self.decoded_at[number]])
        return [torch.from_numpy(np.array(frames)) for frames in found]


def open_clips(world: Path, vae: Path, cache: Path, options: CutOptions) -> ProbeClips:
    """Cut and decode the clips of a world once, pass some through the VAE, and keep the result.

    ``vae`` is a folder in diffusers' layout with a ``vae`` in it. The cache takes some 3 GB for
    2,500 clips, and is made again where it was made from something else. `UserError` if the world
    or the VAE is missing or too few clips can be read.
    """
    settings = json.dumps(
        {
            "world": dataclasses.asdict(read_recipe(world)),
            "vae": fingerprint_folder(vae / "vae"),
            **dataclasses.asdict(options),
        }
    )
    path = cache / "clips.safetensors"
    if not path.is_file() or _opened(path)[1]["settings"] != settings:
        arrays, records = _cut_all(world, options)
        _decode_some(vae, arrays, records, options)
        tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
        save_tensors(tensors, path, metadata={"settings": settings, "records": json.dumps(records)})
    arrays, metadata = _opened(path)
    return ProbeClips(**arrays, records=json.loads(metadata["records"]))


def _opened(path: Path) -> tuple[dict[str, NDArray], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name).numpy() for name in file.keys()}, file.metadata()


def labels_of(truth: dict[str, Any]) -> dict[str, int]:
    """Class numbers of a recording; what its captions never name is `UNKNOWN`."""
    kind, colour, _ = truth.get("backdrop", ["studio", "", ""])
    words = truth | {
        "backdrop_kind": kind,
        "backdrop_colour": colour,
        "num_dancers": str(truth["num_dancers"]),
    }
    return {
        name: classes.index(words[name]) if words.get(name) in classes else UNKNOWN
        for name, classes in CLASSES.items()
    }


def _cut_all(world: Path, options: CutOptions) -> tuple[dict[str, NDArray], list[dict[str, Any]]]:
    recipe = read_recipe(world)
    names = ("num_frames", "height", "width", "fps", "seed")
    settings = CutSettings(**{name: getattr(options, name) for name in names})
    datasets: list[ClipDataset] = [
        AISTDataset(settings, world / "aist"),
        YouTubeDataset(settings, world / "youtube"),
    ]
    number_of = {draw_wild(item.index, recipe.seed).title: item.index for item in plan_wild(recipe)}
    first_held_out = len(number_of) - options.num_held_out_wild
    total = sum(map(len, datasets))
    frames = np.empty((total, options.num_frames, options.height, options.width, 3), np.uint8)
    records: list[dict[str, Any]] = []
    joints: list[NDArray[np.float32]] = []
    num_groups = 0
    raw = (dataset[number] for dataset in datasets for number in range(len(dataset)))
    for clip in tqdm(raw, "cutting", total, unit="clip"):
        if not isinstance(clip, RawClip):
            continue
        spec = clip.spec
        truth = read_truth(world, spec.path)
        held_out = spec.split == "held_out"
        if spec.source == "youtube":
            held_out = number_of[spec.path.stem] >= first_held_out
        elif truth["situation"] == "GR":
            # Held-out music has no group dances; without these, three dancers went unjudged.
            held_out = num_groups % GROUP_SHARE == 0
            num_groups += 1
        placed = joints_in_clip(truth, spec, fps=options.fps)[0].astype(np.float32)
        frames[len(records)] = clip.frames.numpy()
        joints.append(placed if truth["num_dancers"] == 1 else np.full_like(placed, np.nan))
        beats = np.array(truth["beats_seconds"]) - spec.start_seconds
        inside = (beats >= 0) & (beats < options.num_frames / options.fps)
        records.append(
            {
                "clip_id": spec.clip_id,
                "source": spec.source,
                "held_out": held_out,
                "beats_seconds": beats[inside].round(5).tolist(),
                "labels": labels_of(truth),
            }
        )
    if not any(record["held_out"] for record in records):
        raise UserError(f"{world} holds no clip to held-out music; make it with --held-out.")
    return {"frames": frames[: len(records)], "joints": np.stack(joints)}, records


def _decode_some(
    vae: Path, arrays: dict[str, NDArray], records: list[dict[str, Any]], options: CutOptions
) -> None:
    """Add draws of the latents, decoded: clips as a model that never errs would generate them."""
    encoders, cpu = Encoders(EncodersSpec(mochi=str(vae), dtype="float32")), torch.device("cpu")
    chosen = [
        number
        for number, record in enumerate(records)
        if record["held_out"] or number % options.vae_share == 0
    ]
    frames = arrays["frames"]
    decoded = np.empty((len(chosen), *frames.shape[1:]), np.uint8)
    for place, number in enumerate(tqdm(chosen, "through the VAE", unit="clip")):
        mean, logvar = encoders.encode_video(torch.from_numpy(frames[number])[None], device=cpu)
        stream = generator(options.seed, records[number]["clip_id"], "probe latents")
        latents = posterior_sample(mean, logvar, torch.randn(mean.shape, generator=stream))
        latents = normalise(latents, encoders.latents_mean, encoders.latents_std)
        decoded[place] = encoders.decode_video(latents)[0]
    arrays |= {"decoded": decoded, "decoded_index": np.array(chosen, np.int64)}
