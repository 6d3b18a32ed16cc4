"""Clips of the AIST Dance Video Database."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from datamodules.aist_names import (
    AISTName,
    AISTPPSplit,
    is_held_out,
    is_in_aistpp,
    music_of,
    parse_name,
    tables,
)
from datamodules.captions import AIST_BASE_CAPTION, aist_caption, draw_template, file_key
from datamodules.clips import CropMode, SkippedClip, Source
from datamodules.cutting import ClipDataset, CutSettings, SourceVideo
from datamodules.folders import find_videos, other_files, select_files
from musicinfuser.clip_size import ClipSize
from musicinfuser.errors import UserError
from musicinfuser.media.colours import Decoding
from musicinfuser.media.decoding import TIME_LIMIT_SECONDS

AUTHORS_CAMERAS = ("c01", "c10")
AUTHORS_SITUATIONS = ("BM", "FM", "GR", "MM")
AISTPP_SPLITS: tuple[AISTPPSplit, ...] = ("train", "val", "test")


class AISTDataset(ClipDataset):
    """Clips cut from AIST videos, captioned from their names.

    A clip is ``"held_out"`` if any piece heard in its video is one of the ten of Table 7. The
    defaults are what the authors' code does in effect: the two front cameras, and no showcases,
    cyphers and battles. Their code drops those three only because it looks for the camera at a
    place of the name where they have none; they stay out here too because cyphers mix in held-out
    pieces and captions of the three cannot name the genre.

    Videos come from https://aistdancedb.ongaaccel.jp after its terms of use are accepted.
    """

    source: Source = "aist"

    def __init__(
        self,
        root: str | Path,
        *,
        num_frames: int = 73,
        height: int = 480,
        width: int = 848,
        fps: float = 30.0,
        cameras: Sequence[str] | None = AUTHORS_CAMERAS,
        situations: Sequence[str] | None = AUTHORS_SITUATIONS,
        crops_per_minute: float = 5.0,
        edge_margin: float = 0.05,
        crop: CropMode = "aist",
        audio_channel: Literal["mean", "first"] = "mean",
        allow_upscaling: bool = False,
        seed: int = 42,
        files: Sequence[str] | None = None,
        buckets: Sequence[ClipSize] | None = None,
        decoding: Decoding = "corrected",
        time_limit_seconds: float = TIME_LIMIT_SECONDS,
    ) -> None:
        """Find the videos below a folder and decide their clips.

        Args:
            root: Folder with videos under their AIST names, at any depth.
            num_frames: Frames per clip (authors' code: 73, the 2.5 s of section 5.1).
            height: Height of the frames in pixels.
            width: Width of the frames in pixels.
            fps: Frame rate of the clips.
            cameras: Cameras to keep, or None for all.
            situations: Situations to keep, or None for all seven.
            crops_per_minute: Clips per minute of video, rounded up per file (authors' code).
            edge_margin: Part of the video at each end that no clip touches (authors' code).
            crop: ``"aist"`` or ``"centre"``.
            audio_channel: ``"mean"`` of all channels, or ``"first"`` as in the authors' code.
            allow_upscaling: Keep videos whose crop is smaller than the target. The authors skip
                videos smaller than the target.
            seed: Seed of clip starts and caption templates.
            files: Restrict to these videos, by path relative to ``root`` or bare name.
            buckets: Heights and widths to choose from by a video's aspect, in place of the one
                size; those that are not wide take the centre.
            decoding: ``"corrected"`` or ``"plain"`` (authors' code), see `CutSettings`.
            time_limit_seconds: When a file is given up, see `CutSettings`.

        Raises:
            ValueError: If a setting is invalid, the folder is missing, or no clip can be cut.
        """
        root = Path(root)
        known = tables()
        _require_known("cameras", cameras, known.cameras)
        _require_known("situations", situations, known.situations)
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
            min_loudness_dbfs=None,
            seed=seed,
            buckets=buckets,
            decoding=decoding,
            time_limit_seconds=time_limit_seconds,
        )
        paths = self.videos = find_videos(root)
        self.root = root
        if files is not None:
            paths = select_files(root, videos=paths, files=files)
        names: dict[Path, AISTName] = {}
        misnamed: list[SkippedClip] = []
        num_not_selected: Counter[str] = Counter()
        for path in paths:
            name = parse_name(path)
            if name is None:
                reason = f"not an AIST name: {path.name}"
                misnamed.append(SkippedClip(self.source, path, reason))
            elif situations is not None and name.situation not in situations:
                num_not_selected[f"situation {name.situation}"] += 1
            elif name.camera not in (known.cameras if cameras is None else cameras):
                num_not_selected[f"camera {name.camera}"] += 1
            else:
                names[path] = name
        super().__init__(
            [_source_video(path, name, root) for path, name in names.items()],
            settings=settings,
            caption_of=lambda video, clip_id: aist_caption(
                names[video.path], template_index=draw_template(clip_id, seed=seed)
            ),
        )
        self.skipped = misnamed + self.skipped
        self.num_not_selected = dict(num_not_selected)
        self.notes = other_files(root)
        self._require_clips(root)


def _source_video(path: Path, name: AISTName, root: Path) -> SourceVideo:
    pieces = music_of(name)
    music = pieces[0] if pieces and len(pieces) == 1 else None
    attributes = {
        "file": file_key(path.relative_to(root)),
        "genre": name.genre,
        "situation": name.situation,
        "camera": name.camera,
        "dancers": ",".join(name.dancers),
        "choreography": name.choreography,
        "variation": name.variation,
        "bpm": str(tables().music_bpm[music]) if music else None,
        "aistpp_split": next((s for s in AISTPP_SPLITS if is_in_aistpp(name, s)), None),
    }
    return SourceVideo(
        path=path,
        clip_stem=str(name),
        base_caption=AIST_BASE_CAPTION,
        music=music,
        split="held_out" if is_held_out(name) else "train",
        attributes={key: value for key, value in attributes.items() if value},
    )


def _require_known(setting: str, codes: Sequence[str] | None, known: dict[str, str]) -> None:
    unknown = sorted(set(codes or ()) - set(known))
    if unknown:
        raise UserError(f"{setting}: no such code as {unknown[0]!r}; known are {sorted(known)}.")
