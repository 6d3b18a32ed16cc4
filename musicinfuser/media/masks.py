"""Masks of encoded clips: where in each latent frame the dancer is.

::

    cache/masks/<source>/<clip_id>.safetensors   mask

A mask holds one number in [0, 1] per latent pixel, ``(T, H, W)``: the mean over the pixels and the
frames that the latent pixel stands for, since a loss per latent pixel weighs their mean, too. They
are files of their own, so that masks can be added to a cache whose clips stay as they are.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from musicinfuser.media.latents import CacheError
from musicinfuser.safetensors_files import save_tensors

MadeOf = Mapping[str, str]
"""From which file and part of a video a mask was made, and how."""


def mask_path(cache_dir: str | Path, source: str, clip_id: str) -> Path:
    """Where the mask of a clip lies."""
    return Path(cache_dir, "masks", source, f"{clip_id}.safetensors")


def write_mask(path: Path, mask: Tensor, made_of: MadeOf) -> None:
    """Write a mask ``(T, H, W)`` in [0, 1], whole or not at all; half precision is kept."""
    save_tensors({"mask": mask.half()}, path, metadata={"made_of": json.dumps(dict(made_of))})


def read_mask(path: Path) -> Tensor:
    """A mask ``(T, H, W)`` in [0, 1], fp32.

    Raises:
        CacheError: It is missing or broken.
    """
    try:
        return load_file(path)["mask"].float()
    except (OSError, SafetensorError, KeyError) as error:
        raise CacheError(
            f"the mask {path} cannot be read ({type(error).__name__}); delete it and encode again."
        ) from error


def mask_made_of(path: Path) -> dict[str, str] | None:
    """What `write_mask` noted; None where there is no such file."""
    try:
        with safe_open(str(path), "pt") as file:
            return json.loads((file.metadata() or {})["made_of"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def people_boxes(places: Tensor, *, margin: float) -> Tensor:
    """A box around each person in each frame.

    Args:
        places: ``(P, T, J, 2)``, x before y, with NaN for what is not seen.
        margin: What a box is wider and higher by on each side, as a share of its longer side.

    Returns:
        ``(P, T, 4)``: left, top, right and bottom in the unit of the places; where a person is not
        seen, a box without an inside.
    """
    is_seen = places.isfinite().all(dim=-1, keepdim=True)
    low = torch.where(is_seen, places, torch.inf).amin(dim=2)
    high = torch.where(is_seen, places, -torch.inf).amax(dim=2)
    around = margin * (high - low).amax(dim=-1, keepdim=True).clamp(min=0)
    return torch.cat([low - around, high + around], dim=-1)


def box_coverage(boxes: Tensor, height: int, width: int) -> Tensor:
    """How much of each latent pixel lies in a box of some person, exactly.

    Args:
        boxes: ``(P, T, 4)`` as `people_boxes` gives them, in latent pixels from the top left.
        height: Latent pixels.
        width: Latent pixels.

    Returns:
        ``(T, height, width)`` in [0, 1]; where boxes overlap, the larger share.
    """
    left, top, right, bottom = boxes.float().unbind(dim=-1)
    across, down = _overlap(left, right, width), _overlap(top, bottom, height)
    shares = down[..., :, None] * across[..., None, :]
    return torch.cat([shares.new_zeros(1, *shares.shape[1:]), shares]).amax(dim=0)


def _overlap(start: Tensor, end: Tensor, number: int) -> Tensor:
    """Of each of so many cells of length 1, the share between start and end, ``(..., number)``."""
    cells = torch.arange(number)
    inside = torch.minimum(end[..., None], cells + 1) - torch.maximum(start[..., None], cells)
    return inside.clamp(0, 1)


def over_latent_pixels(frames: Tensor, side: int) -> Tensor:
    """Means of grey frames ``(N, H, W)`` over the pixels of each latent one, ``side`` a side."""
    return F.avg_pool2d(frames[:, None], side)[:, 0]


def over_latent_frames(frames: Tensor, frames_per_latent: int) -> Tensor:
    """Means over the frames of each latent one: the first stands for one, each other for several.

    Args:
        frames: ``(N, H, W)``, N of ``frames_per_latent`` k + 1.
        frames_per_latent: Of the backbone, see `musicinfuser.clip_size.LatentGeometry`.

    Returns:
        ``(k + 1, H, W)``.
    """
    rest = frames[1:].unflatten(0, (-1, frames_per_latent)).mean(dim=1)
    return torch.cat([frames[:1], rest]) if len(frames) > 1 else frames
