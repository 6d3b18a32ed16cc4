"""The list of those clips of a cache that no longer count, since their videos are gone or others.

The encode job writes it into the cache, where training reads it: the videos need not be there. A
clip is listed with the content of the video it was made of, so one that has been encoded anew since
counts again.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from musicinfuser.atomic_files import write_json_lines
from musicinfuser.label_files import LabelError, read_json_lines

if TYPE_CHECKING:
    from musicinfuser.media.latents import ClipHeader

OUTDATED_LIST_NAME = "outdated_clips.jsonl"
GONE = "no longer in the folder: the video is gone"
REPLACED = "its video has changed: this clip is of the former one"


@dataclass(frozen=True)
class OutdatedClip:
    """A clip that no longer counts."""

    source: str
    clip_id: str
    file: str
    """The video it was made of."""
    file_blake2b: str | None
    """The content of that; None for clips from before this was noted."""
    reason: str

    @classmethod
    def of(cls, header: "ClipHeader", reason: str) -> "OutdatedClip":
        """A stored clip with the reason why it does not count."""
        own = header.attributes
        file, content = own.get("file", ""), own.get("file_blake2b")
        return cls(header.source, header.clip_id, file, content, reason)

    @property
    def key(self) -> tuple[str, str, str | None]:
        """What a stored clip is recognised by."""
        return self.source, self.clip_id, self.file_blake2b


def write_outdated(cache_dir: str | Path, clips: Sequence[OutdatedClip]) -> None:
    """Write the list of a cache; where there was none, nothing is written for no clip."""
    path = Path(cache_dir, OUTDATED_LIST_NAME)
    if clips or path.is_file():
        write_json_lines(path, map(asdict, clips))


def read_outdated(cache_dir: str | Path) -> list[OutdatedClip]:
    """The list of a cache; empty where there is none.

    Raises:
        LabelError: It cannot be read.
    """
    path = Path(cache_dir, OUTDATED_LIST_NAME)
    if not path.is_file():
        return []
    found = []
    for line, row in read_json_lines(path):
        try:
            found.append(OutdatedClip(**row))
        except TypeError:
            raise LabelError(
                path, "is no line of outdated clips; delete the file and encode again.", line
            ) from None
    return found


def current_clips(
    cache_dir: str | Path, headers: "Sequence[ClipHeader]"
) -> "tuple[list[ClipHeader], list[OutdatedClip]]":
    """Those of a cache's clips that count, and those that do not.

    Raises:
        LabelError: The list cannot be read.
    """
    listed = {clip.key: clip for clip in read_outdated(cache_dir)}
    current: list[ClipHeader] = []
    outdated: list[OutdatedClip] = []
    for header in headers:
        clip = listed.get(OutdatedClip.of(header, "").key)
        if clip is None:
            current.append(header)
        else:
            outdated.append(clip)
    return current, outdated
