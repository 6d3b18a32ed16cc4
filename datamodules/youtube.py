"""Clips of any folder of dance videos, such as ones collected from YouTube."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules.captions import find_caption, read_captions, unread_texts
from datamodules.clips import CutSettings, SkippedClip, SourceVideo, Split
from datamodules.cutting import ClipDataset
from datamodules.folders import file_key
from musicinfuser import keyed_random
from musicinfuser.label_files import LabelError
from musicinfuser.media.errors import printable
from musicinfuser.setting_checks import check_number

YOUTUBE_BASE_CAPTION = "a dance video"
"""Stands in for a caption in a part of the training steps (Table 8, section 4.5)."""

YOUTUBE_EMPTY_CAPTION = "a YouTube dance video"
"""Caption of a video that has none (authors' code)."""

MAX_SLUG_CHARACTERS = 60
MAX_NAMED_CAPTIONS = 20


class YouTubeDataset(ClipDataset):
    """Clips cut from any videos, captioned by text files beside them or by tables.

    The paper's playlists are not named (section 5.1), so the videos are the reader's own. A caption
    is looked for in ``<video name>.txt`` beside the video, then in the tables; where there is none
    the video gets "a YouTube dance video" (authors' code). A video is left out if the text beside
    it cannot be read.

    Attributes:
        num_missing_captions: Videos without a caption.
        num_unused_captions: Entries of the tables that match no video.
    """

    source = "youtube"

    def __init__(
        self,
        settings: CutSettings,
        root: str | Path,
        *,
        captions: str | Sequence[str] = "auto",
        held_out_fraction: float = 0.0,
        min_loudness_dbfs: float | None = -50.0,
        **options: Any,
    ) -> None:
        """Find the videos and captions below a folder and decide the clips.

        Args:
            settings: What is the same for all sources.
            root: Folder with videos, at any depth.
            captions: A table (``.jsonl`` or ``.csv`` with ``file`` and ``caption``), a folder of
                tables ``captions*``, or ``"auto"`` for ``captions.jsonl`` or ``captions.csv`` in
                ``root`` and the tables in ``root/captions``, where there are any; or several of
                these, of which the first with a caption for a video counts.
            held_out_fraction: Part of the videos to hold out, chosen by a hash of seed and file
                name, so that copies of a video fall on one side.
            min_loudness_dbfs: Clips with a lower RMS level of sound are left out when they are
                read; None keeps them.
            **options: As `ClipDataset` takes them. ``configs/encode.yaml`` looks for cuts
                (``shots``), since a clip across one teaches to cut.

        Raises:
            UserError: As `ClipDataset`; or a setting or table is invalid.
        """
        check_number("held_out_fraction", held_out_fraction, at_least=0, at_most=1)
        self.held_out_fraction = held_out_fraction
        self.num_missing_captions = 0
        self._captions = read_captions(Path(root), captions)
        super().__init__(settings, root, min_loudness_dbfs=min_loudness_dbfs, **options)
        keys = {file_key(path.relative_to(self.root)) for path in self.videos}
        unused = sorted(set(self._captions) - keys)
        self.num_unused_captions = len(unused)
        unread = unread_texts(self.root, self.videos, captions)
        notes = {
            "videos without a caption of their own": self.num_missing_captions,
            "captions of no video": unused and _named(unused),
            "texts and tables that are not read as captions": unread and _named(unread),
        }
        self.notes = [f"{what}: {files}" for what, files in notes.items() if files] + self.notes

    def describe(self, path: Path) -> SourceVideo | SkippedClip:
        """Caption and split of a video, or why its caption cannot be read."""
        try:
            caption = find_caption(path, self.root, self._captions)
        except LabelError as error:
            return SkippedClip(self.source, path, f"its caption cannot be read: {error}")
        self.num_missing_captions += not caption
        return SourceVideo(
            path=path,
            clip_stem=clip_stem(file_key(path.relative_to(self.root))),
            caption=caption or YOUTUBE_EMPTY_CAPTION,
            base_caption=YOUTUBE_BASE_CAPTION,
            split=self._split(path),
        )

    def _split(self, path: Path) -> Split:
        key = keyed_random.key(self.settings.seed, file_key(path.name), "held-out video")
        return "held_out" if key / 2**63 < self.held_out_fraction else "train"


def _named(files: Sequence[str]) -> str:
    names = ", ".join(map(printable, files[:MAX_NAMED_CAPTIONS]))
    return f"{len(files)} ({names}{', ...' if len(files) > MAX_NAMED_CAPTIONS else ''})"


def clip_stem(relative_path: str) -> str:
    """A file name for the clips of a video: readable ASCII, made unique by a hash of the path.

    The ending is part of the hash, so ``a.mp4`` and ``a.mkv`` differ; so are letters outside ASCII,
    so names that look alike after cleaning differ too.
    """
    digest = hashlib.blake2b(relative_path.encode(), digest_size=5).hexdigest()
    plain = unicodedata.normalize("NFKD", relative_path.rpartition(".")[0])
    slug = re.sub(r"[^A-Za-z0-9-]+", "_", plain.encode("ascii", "ignore").decode()).strip("_-")
    return f"{slug[:MAX_SLUG_CHARACTERS] or 'video'}-{digest}"
