"""Masks of clips from files beside their videos: joints of people, or a grey video."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.clips import ClipSpec, SkippedClip
from datamodules.cutting import ClipDataset
from datamodules.folders import MASK_MARK, VIDEO_SUFFIXES
from musicinfuser.clip_size import LatentGeometry, latent_shape
from musicinfuser.errors import UserError, looked_for
from musicinfuser.fingerprint import file_digest
from musicinfuser.joint_files import file_beside, read_people
from musicinfuser.media.errors import MediaError, printable
from musicinfuser.media.masks import (
    MadeOf,
    box_coverage,
    mask_made_of,
    mask_path,
    over_latent_frames,
    over_latent_pixels,
    people_boxes,
)
from musicinfuser.media.video import PTS_TOLERANCE_SECONDS, probe_video, read_clip
from musicinfuser.setting_checks import check_number

ASPECT_TOLERANCE = 0.02


@dataclass(frozen=True)
class MaskSettings:
    """Where the masks of videos are, and how large boxes around joints get."""

    folder: str | None = None
    """Where the files lie, found by the video's stem; None: beside each video."""
    margin: float = 0.1
    """What a box around a person's joints is wider and higher by on each side, as a share of its
    longer side; ours: joints end at wrists, ankles and the middle of the head."""

    def __post_init__(self) -> None:
        """Check the range."""
        check_number("data.masks.margin", self.margin, at_least=0)
        if self.folder is not None and not Path(self.folder).is_dir():
            raise UserError(
                f"data.masks.folder names {self.folder}, which is not a folder"
                f"{looked_for(self.folder)}."
            )

    def file_of(self, video: Path) -> Path | None:
        """The mask of a video: ``<stem>.mask.mp4`` or the like, else joints; None without any."""
        folder = video.parent if self.folder is None else Path(self.folder)
        for suffix in VIDEO_SUFFIXES:
            if (path := folder / f"{video.stem}{MASK_MARK}{suffix}").is_file():
                return path
        joints = file_beside(folder, video.stem)
        return joints if joints.is_file() else None


@dataclass(frozen=True, eq=False)
class ClipMask:
    """What is stored as the mask of a clip."""

    spec: ClipSpec
    mask: Tensor
    """``(T, H, W)`` in [0, 1], of the latents' size."""
    made_of: MadeOf


class MaskDataset(Dataset[ClipMask | SkippedClip]):
    """Masks of clips that a cache lacks, or that another file or cut made.

    Attributes:
        num_without: Clips whose videos have no mask.
        example: Where the mask of one of those was looked for.
        num_found: Masks that are in the cache.
    """

    def __init__(
        self,
        datasets: Sequence[ClipDataset],
        settings: MaskSettings,
        *,
        cache_dir: str | Path,
        geometry: LatentGeometry,
    ) -> None:
        """Look for files; none is read but to tell whether it is another now."""
        self.settings, self.geometry, self.cache_dir = settings, geometry, cache_dir
        self.num_without = self.num_found = 0
        self.example: Path | None = None
        self.items: list[tuple[ClipDataset, ClipSpec, Path]] = []
        for dataset in datasets:
            for spec in dataset.clips:
                path = settings.file_of(spec.path)
                if path is None:
                    stored = mask_path(cache_dir, spec.source, spec.clip_id)
                    if stored.is_file():  # of a file that was there before
                        self.num_found += 1
                        continue
                    self.num_without += 1
                    self.example = self.example or spec.path
                elif self._is_there(spec, path, cache_dir):
                    self.num_found += 1
                else:
                    self.items.append((dataset, spec, path))

    def __len__(self) -> int:
        """Masks to make."""
        return len(self.items)

    def __getitem__(self, index: int) -> ClipMask | SkippedClip:
        """Make one mask, or say why there is none."""
        dataset, spec, path = self.items[index]
        try:
            mask = clip_mask(
                dataset, spec, path, margin=self.settings.margin, geometry=self.geometry
            )
            return ClipMask(spec, mask, self._made_of(spec, path))
        except (MediaError, UserError, OSError) as error:
            # That of another file or cut is none of it.
            mask_path(self.cache_dir, spec.source, spec.clip_id).unlink(missing_ok=True)
            reason = f"no mask: {error}"
            return SkippedClip(spec.source, path, reason, spec.clip_id)

    def note(self) -> str:
        """What must be known, in a line; empty where every clip has its mask."""
        if self.example is None:
            return ""
        return (
            f"{self.num_without} clips have no mask: their videos, e.g. {printable(self.example)}, "
            f"have no <name>{MASK_MARK}.mp4 and no <name>.joints.json in "
            f"{self.settings.folder or 'their folders'}."
        )

    def _is_there(self, spec: ClipSpec, path: Path, cache_dir: str | Path) -> bool:
        stored = mask_made_of(mask_path(cache_dir, spec.source, spec.clip_id))
        return stored is not None and stored == self._made_of(spec, path)

    def _made_of(self, spec: ClipSpec, path: Path) -> dict[str, str]:
        shape = latent_shape(*spec.shape, geometry=self.geometry)[1:]
        part = {name: value for name, value in spec.cut.items() if name != "file"}
        return part | {
            "content": file_digest(path, "blake2b"),
            "shape": "x".join(map(str, shape)),
            "margin": f"{self.settings.margin:g}",
        }


def clip_mask(
    dataset: ClipDataset, spec: ClipSpec, path: Path, *, margin: float, geometry: LatentGeometry
) -> Tensor:
    """The mask of a clip, ``(T, H, W)`` in [0, 1], of the latents' size.

    Args:
        dataset: That cuts the clip.
        spec: The clip.
        path: Joints, see `musicinfuser.joint_files`, or a video whose grey is the mask, white
            inside.
        margin: As in `MaskSettings`.
        geometry: Of the backbone.

    Raises:
        MediaError: A video that cannot be read.
        UserError: Joints that cannot be read or placed, or a video of another aspect.
    """
    is_video = path.name.lower().endswith(VIDEO_SUFFIXES)
    make = _from_video if is_video else _from_joints
    frames = make(dataset, spec, path, margin, geometry)
    return over_latent_frames(frames, geometry.temporal)


def _from_joints(
    dataset: ClipDataset, spec: ClipSpec, path: Path, margin: float, geometry: LatentGeometry
) -> Tensor:
    """Per frame, ``(N, H, W)``."""
    people, fps = read_people(path), dataset.settings.fps
    if people.fps is None or people.places.shape[-1] != 2:
        raise UserError(
            f"{path}: a mask needs joints of 2 coordinates and the frames per second, in fps; "
            "`evaluate.py pose` writes both."
        )
    seconds = spec.start_seconds + torch.arange(spec.num_frames, dtype=torch.float64) / fps
    shown = ((seconds + PTS_TOLERANCE_SECONDS) * people.fps).floor().long()
    num_frames = people.places.shape[1]
    # The last frame is shown until the video ends.
    if shown[-1] > num_frames:
        raise UserError(
            f"{path}: holds joints of {num_frames} frames, which end at second "
            f"{num_frames / people.fps:.2f}, but the clip goes on to {seconds[-1]:.2f}."
        )
    info, box = dataset.info_of(spec), dataset.crop_of(spec)
    # Without a size the places are shares of it.
    size = torch.tensor(people.frame_size or (1, 1), dtype=torch.float64)
    pixels = people.places[:, shown.clamp(max=num_frames - 1)] / size
    pixels = pixels * torch.tensor([info.width, info.height]) - torch.tensor([box.left, box.top])
    _, _, height, width = latent_shape(*spec.shape, geometry=geometry)
    latent = pixels * torch.tensor([width / box.width, height / box.height])
    return box_coverage(people_boxes(latent, margin=margin), height, width)


def _from_video(
    dataset: ClipDataset, spec: ClipSpec, path: Path, margin: float, geometry: LatentGeometry
) -> Tensor:
    """Per frame, ``(N, H, W)``; ``margin`` is for joints."""
    info, mask = dataset.info_of(spec), probe_video(path)
    aspects = mask.width * info.height / (mask.height * info.width)
    if abs(aspects - 1) > ASPECT_TOLERANCE:
        raise UserError(
            f"{path}: has {mask.width}x{mask.height} px, another aspect than its video of "
            f"{info.width}x{info.height} px."
        )
    settings = dataset.settings
    frames = read_clip(
        path,
        start_seconds=spec.start_seconds,
        num_frames=spec.num_frames,
        height=spec.height,
        width=spec.width,
        fps=settings.fps,
        crop=dataset.crop_of(spec, mask),
        decoding="plain",
        time_limit_seconds=settings.time_limit_seconds,
    )
    return over_latent_pixels(frames.float().mean(dim=-1) / 255, geometry.spatial)
