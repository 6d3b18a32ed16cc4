"""Which clips of a cache are of videos that are gone from their folders, or are others now."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from datamodules.cutting import ClipDataset
from musicinfuser.file_identity import FileIdentity
from musicinfuser.media.errors import printable
from musicinfuser.media.latents import (
    GONE,
    REPLACED,
    ClipHeader,
    OutdatedClip,
    read_clip_header,
    read_outdated,
    stored_clips,
)

Folder = tuple[str, str]
"""A source and the path of a folder."""
Videos = Mapping[str, Path]
"""The videos of a folder by their paths below it."""


def has_changed(header: ClipHeader, video: Path) -> bool:
    """Whether a video is another one than a clip was made of, as far as the clip says."""
    identity = FileIdentity.from_attributes(header.attributes)
    return identity is not None and not identity.is_that_of(
        video, noted_ns=header.path.stat().st_mtime_ns
    )


def find_outdated(cache_dir: str | Path, datasets: Sequence[ClipDataset]) -> list[OutdatedClip]:
    """The clips of a cache that no longer count.

    A clip is judged if it comes from a folder of the datasets, or from one that was moved there,
    which shows by clips that are still cut from it. What an earlier job listed of other folders
    stays listed. A clip that is only not selected now counts: its video is there.

    Args:
        cache_dir: The cache.
        datasets: What the folders hold now.

    Raises:
        CacheError: A clip's file is broken.
        LabelError: The list of an earlier job cannot be read.
    """
    headers = [read_clip_header(path) for path in stored_clips(cache_dir)]
    listed = {clip.key: clip for clip in read_outdated(cache_dir)}
    now: dict[tuple[str, str], Path] = {
        (spec.source, spec.clip_id): spec.path for data in datasets for spec in data.clips
    }
    folders = _folders(headers, datasets)
    outdated = []
    for header in headers:
        path, folder = now.get((header.source, header.clip_id)), _folder(header, folders)
        if path is None and folder in folders:
            path = folders[folder].get(header.attributes["file"].removeprefix(f"{folder[1]}/"))
            if path is None:
                outdated.append(OutdatedClip.of(header, GONE))
                continue
        if path is None:
            outdated += [listed[key] for key in [OutdatedClip.of(header, "").key] if key in listed]
        elif has_changed(header, path):
            outdated.append(OutdatedClip.of(header, REPLACED))
    return outdated


def _folders(
    headers: Sequence[ClipHeader], datasets: Sequence[ClipDataset]
) -> dict[Folder, Videos]:
    """What the folders that clips come from hold now, as far as the datasets know."""
    known: dict[Folder, Videos] = {}
    cut_from: dict[tuple[str, str], Videos] = {}
    for data in datasets:
        found = {printable(path.relative_to(data.root)): path for path in data.videos}
        known[data.source, printable(data.root)] = found
        cut_from |= {(spec.source, spec.clip_id): found for spec in data.clips}
    folders = dict(known)
    for header in headers:
        folder, videos = _folder(header, known), cut_from.get((header.source, header.clip_id))
        if folder is not None and folder not in known and videos is not None:
            folders[folder] = {**folders.get(folder, {}), **videos}
    return folders


def _folder(header: ClipHeader, known: Mapping[Folder, Videos]) -> Folder | None:
    """The folder a clip comes from; clips that do not say so may lie below a known one."""
    root, file = header.attributes.get("root"), header.attributes.get("file", "")
    if root is not None:
        return header.source, root
    below = (f for f in known if f[0] == header.source and file.startswith(f"{f[1]}/"))
    return next(below, None)
