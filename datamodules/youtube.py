"""Clips of any folder of dance videos, such as ones collected from YouTube."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from datamodules.captions import (
    YOUTUBE_BASE_CAPTION,
    YOUTUBE_EMPTY_CAPTION,
    file_key,
    find_captions,
    read_captions,
    unread_texts,
)
from datamodules.clips import CropMode, SkippedClip, Source, Split
from datamodules.cut_finding import require_detector
from datamodules.cutting import ClipDataset, CutSettings, SourceVideo
from datamodules.folders import find_videos, other_files, select_files
from datamodules.shots import ShotSettings
from musicinfuser import keyed_random
from musicinfuser.clip_size import ClipSize
from musicinfuser.errors import UserError
from musicinfuser.media.colours import Decoding
from musicinfuser.media.decoding import TIME_LIMIT_SECONDS
from musicinfuser.media.errors import printable

MAX_SLUG_CHARACTERS = 60
MAX_NAMED_CAPTIONS = 20


class YouTubeDataset(ClipDataset):
    """Clips cut from any videos, captioned by text files beside them or by tables.

    The paper's playlists are not named (section 5.1), so the videos are the reader's own. A caption
    is looked for in ``<video name>.txt`` beside the video, then in the tables; where there is none
    the video gets "a YouTube dance video" (authors' code).

    Attributes:
        num_missing_captions: Videos without a caption.
        num_unused_captions: Entries of the tables that match no video.
    """

    source: Source = "youtube"

    def __init__(
        self,
        root: str | Path,
        *,
        num_frames: int = 73,
        height: int = 480,
        width: int = 848,
        fps: float = 30.0,
        crops_per_minute: float = 5.0,
        edge_margin: float = 0.05,
        crop: CropMode = "centre",
        audio_channel: Literal["mean", "first"] = "mean",
        allow_upscaling: bool = False,
        captions: str | Sequence[str] = "auto",
        min_loudness_dbfs: float | None = -50.0,
        held_out_fraction: float = 0.0,
        seed: int = 42,
        files: Sequence[str] | None = None,
        buckets: Sequence[ClipSize] | None = None,
        decoding: Decoding = "corrected",
        time_limit_seconds: float = TIME_LIMIT_SECONDS,
        shots: ShotSettings | None = None,
    ) -> None:
        """Find the videos and captions below a folder and decide the clips.

        Args:
            root: Folder with videos, at any depth.
            num_frames: Frames per clip.
            height: Height of the frames in pixels.
            width: Width of the frames in pixels.
            fps: Frame rate of the clips.
            crops_per_minute: Clips per minute of video, rounded up per file.
            edge_margin: Part of the video at each end that no clip touches; 0 lets whole short
                clips in.
            crop: ``"centre"``, or ``"aist"`` as the authors' script does to these videos too.
            audio_channel: ``"mean"`` of all channels or ``"first"``.
            allow_upscaling: Keep videos whose crop is smaller than the target.
            captions: A table (``.jsonl`` or ``.csv`` with ``file`` and ``caption``), a folder of
                tables ``captions*``, or ``"auto"`` for ``captions.jsonl`` or ``captions.csv`` in
                ``root`` and the tables in ``root/captions``, where there are any; or several of
                these, of which the first with a caption for a video counts.
            min_loudness_dbfs: Clips with a lower RMS level of sound are left out when they are
                read; None keeps them.
            held_out_fraction: Part of the videos to hold out, chosen by a hash of seed and file
                name, so that copies of a video fall on one side.
            seed: Seed of clip starts and of the choice of held-out videos.
            files: Restrict to these videos, by path relative to ``root`` or bare name.
            buckets: Heights and widths to choose from by a video's aspect, in place of the one
                size.
            decoding: ``"corrected"`` or ``"plain"`` (authors' code), see `CutSettings`.
            time_limit_seconds: When a file is given up, see `CutSettings`.
            shots: How to find cuts, so that no clip crosses one; ``crops_per_minute`` then counts
                the shots that are long enough. None cuts anywhere, as the authors do. It is the
                default here because all else needs a further package and decodes every file whole;
                ``configs/encode.yaml`` looks for cuts, since a clip across one teaches to cut.

        A video is left out if the text beside it cannot be read.

        Raises:
            ValueError: If a setting or the table is invalid, the folder is missing, no clip can be
                cut, or ``shots`` is given without PySceneDetect.
        """
        root = Path(root)
        if shots is not None:
            require_detector()
        if not 0 <= held_out_fraction <= 1:
            raise UserError(f"held_out_fraction must lie in [0, 1], not {held_out_fraction}.")
        settings = CutSettings(
            num_frames=num_frames,
            height=height,
            width=width,
            fps=fps,
            crop=crop,
            crops_per_minute=crops_per_minute,
            edge_margin=edge_margin,
            audio_channel=audio_channel,
            allow_upscaling=allow_upscaling,
            min_loudness_dbfs=min_loudness_dbfs,
            seed=seed,
            buckets=buckets,
            decoding=decoding,
            time_limit_seconds=time_limit_seconds,
        )
        paths = self.videos = find_videos(root)
        self.root = root
        table = read_captions(root, captions)
        keys = {path: file_key(path.relative_to(root)) for path in paths}
        unused = sorted(set(table).difference(keys.values()))
        if files is not None:
            paths = select_files(root, videos=paths, files=files)
        texts, reasons = find_captions(paths, root, table)
        self.num_unused_captions = len(unused)
        self.num_missing_captions = sum(not text for text in texts.values())
        videos = [
            SourceVideo(
                path=path,
                clip_stem=clip_stem(keys[path]),
                base_caption=YOUTUBE_BASE_CAPTION,
                music=None,
                split=_split(path, held_out_fraction=held_out_fraction, seed=seed),
                attributes={"file": keys[path]},
            )
            for path in texts
        ]
        super().__init__(
            videos,
            settings=settings,
            caption_of=lambda video, clip_id: texts[video.path] or YOUTUBE_EMPTY_CAPTION,
            shots=shots,
        )
        self.skipped = [SkippedClip(self.source, *why) for why in reasons.items()] + self.skipped
        self.notes = _caption_notes(
            self.num_missing_captions, unused, unread_texts(root, self.videos, captions)
        ) + other_files(root)
        self._require_clips(root)


def _caption_notes(num_missing: int, unused: Sequence[str], unread: Sequence[str]) -> list[str]:
    notes = []
    if num_missing:
        notes.append(f"videos without a caption of their own: {num_missing}")
    if unused:
        notes.append(f"captions of no video: {_named(unused)}")
    if unread:
        notes.append(f"texts and tables that are not read as captions: {_named(unread)}")
    return notes


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


def _split(path: Path, *, held_out_fraction: float, seed: int) -> Split:
    draw = keyed_random.key(seed, file_key(path.name), "held-out video") / 2**63
    return "held_out" if draw < held_out_fraction else "train"
