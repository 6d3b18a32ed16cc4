"""Requests of a cache's own held-out clips: their music, from where they were cut, and captions."""

from collections.abc import Sequence
from pathlib import Path

from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.media.latents import CacheError, ClipHeader


def held_out_requests(headers: Sequence[ClipHeader], num_clips: int) -> list[GenerationRequest]:
    """Requests to watch a training by: pieces of music that it is never trained on, spread evenly.

    A request takes the sound of the video that a clip was cut from, from where it was cut, with the
    clip's caption and size; its seed is 0. A second clip of a piece is taken only where there are
    fewer pieces than requests.

    Args:
        headers: Of all clips of a cache.
        num_clips: At most so many.

    Raises:
        CacheError: No clip is held out, or no video of one is where the cache says.
    """
    held_out = [header for header in headers if header.split == "held_out"]
    if not held_out:
        raise CacheError("the cache holds no clip of held-out music")
    usable = [header for header in held_out if _has_sound(header)]
    if not usable:
        first = held_out[0].attributes.get("file") or "its header names none"
        raise CacheError(
            f"of {len(held_out)} clips of held-out music the video is not where the cache says "
            f"({held_out[0].clip_id}: {first})"
        )
    pieces: dict[str, ClipHeader] = {}
    for header in usable:
        pieces.setdefault(header.music or header.attributes["file"], header)
    firsts = list(pieces.values())
    num_firsts = min(num_clips, len(firsts))
    chosen = [firsts[i * len(firsts) // num_firsts] for i in range(num_firsts)]
    chosen += [header for header in usable if header not in chosen][: num_clips - num_firsts]
    return [
        GenerationRequest(
            track=header.attributes["file"],
            prompt=header.caption,
            seed=0,
            num_frames=header.recipe.num_frames,
            height=header.recipe.height,
            width=header.recipe.width,
            track_offset_seconds=float(header.attributes["start_seconds"]),
        )
        for header in chosen
    ]


def _has_sound(header: ClipHeader) -> bool:
    """Whether the file is there; whether its sound can be read shows when it is decoded."""
    file, start = (header.attributes.get(name, "") for name in ("file", "start_seconds"))
    try:
        return Path(file).is_file() and 0 <= float(start) < float("inf")
    except (OSError, ValueError):
        return False
