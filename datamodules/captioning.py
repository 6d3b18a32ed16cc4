"""CaptioningDataModule: pictures of every video that has no caption yet."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.captions import find_caption, read_captions, tables_in, written_captions
from datamodules.clips import SkippedClip
from datamodules.folders import file_key, find_videos
from datamodules.loader_processes import HostDataModule
from musicinfuser.label_files import LabelError
from musicinfuser.media.decoding import TIME_LIMIT_SECONDS, Deadline
from musicinfuser.media.errors import MediaError
from musicinfuser.media.video import probe_video, read_clip
from musicinfuser.setting_checks import check_number


@dataclass(frozen=True, eq=False)
class Stills:
    """Pictures of one video; the readable ones, where it is damaged.

    Attributes:
        path: The video.
        file: Its `file_key` below the root, under which a caption is looked up.
        frames: uint8 RGB in [0, 255], shape (T, H, W, 3), in order.
        seconds: When each is shown, counted from the first video frame.
        duration_seconds: Length of the video.
    """

    path: Path
    file: str
    frames: Tensor
    seconds: tuple[float, ...]
    duration_seconds: float


def read_stills(
    path: Path,
    *,
    file: str,
    num_frames: int,
    longest_side: int,
    time_limit_seconds: float = TIME_LIMIT_SECONDS,
) -> Stills:
    """Decode the pictures in the middle of equal parts of a video.

    A download that broke off still gives clips, and so a caption: half of the pictures are enough.
    ``file`` is the video's `file_key`; ``longest_side`` is in pixels, and smaller videos are not
    enlarged; the time limit is for all pictures together.

    Raises:
        MediaError: If more than half of them cannot be read, or not all in time.
    """
    deadline = Deadline(path, time_limit_seconds)
    info = probe_video(path, time_limit_seconds=time_limit_seconds)
    shrink = min(1.0, longest_side / max(info.width, info.height))
    height, width = (max(1, round(side * shrink)) for side in (info.height, info.width))
    seconds = [info.duration_seconds * (i + 0.5) / num_frames for i in range(num_frames)]
    frames: dict[float, Tensor] = {}
    damage: MediaError | None = None
    for moment in seconds:
        try:
            frames[moment] = read_clip(
                path,
                start_seconds=moment,
                num_frames=1,
                height=height,
                width=width,
                crop=None,
                time_limit_seconds=time_limit_seconds,
            )[0]
        except MediaError as error:
            damage = damage or error
        deadline.check()
    if damage is not None and 2 * len(frames) < num_frames:
        raise damage
    return Stills(
        path, file, torch.stack(list(frames.values())), tuple(frames), info.duration_seconds
    )


def read_or_skip(paths: list[Path], *, root: Path, **numbers: Any) -> list[Stills | SkippedClip]:
    """`read_stills` of some videos, or why there are none; runs in the loader's processes."""
    found: list[Stills | SkippedClip] = []
    for path in paths:
        try:
            found.append(read_stills(path, file=file_key(path.relative_to(root)), **numbers))
        except MediaError as error:
            found.append(SkippedClip.unreadable("", path, error))
    return found


class CaptioningDataModule(HostDataModule):
    """Videos without a caption for `VideoCaptioner`; `callbacks.CaptionWriter` writes the tables.

    A video has a caption if `YouTubeDataset` would find one, or if this job has written one.
    """

    def __init__(
        self,
        root: str,
        *,
        captions: str | list[str] = "auto",
        tables: str | None = None,
        num_frames: int = 16,
        longest_side: int = 448,
        num_workers: int = 2,
        time_limit_seconds: float = TIME_LIMIT_SECONDS,
    ) -> None:
        """Set up; the folder is looked at in `setup`.

        Args:
            root: Folder with videos, at any depth.
            captions: Where captions may be already, as `YouTubeDataset` takes it.
            tables: Folder for the tables that are written; null is ``captions`` in ``root``, where
                `YouTubeDataset` finds them by itself.
            num_frames: Pictures per video (authors' code: 16).
            longest_side: Pixels of the longer side of a picture; a model may shrink them further.
            num_workers: Processes that decode ahead.
            time_limit_seconds: When a video is given up, so that none can hold up the job.
        """
        super().__init__(num_workers)
        self.numbers: dict[str, Any] = {
            "num_frames": num_frames,
            "longest_side": longest_side,
            "time_limit_seconds": time_limit_seconds,
        }
        for name, number in self.numbers.items():
            check_number(f"data.{name}", number, above=0)
        self.root = Path(root)
        self.captions = captions
        self.tables = Path(tables) if tables is not None else written_captions(self.root)

    def setup(self, stage: str) -> None:
        """Find the videos and their captions.

        Raises:
            UserError: A folder without videos, or a table that cannot be read.
        """
        entries = [self.captions] if isinstance(self.captions, str) else self.captions
        table = read_captions(self.root, [*entries, *tables_in(self.tables)])
        self.videos: list[Path] = []
        self.missing: set[Path] = set()
        self.illegible: dict[Path, str] = {}
        """Why the text beside a video cannot be read."""
        for video in find_videos(self.root):
            try:
                caption = find_caption(video, self.root, table)
            except LabelError as error:
                self.illegible[video] = f"its caption cannot be read: {error}"
                continue
            self.videos.append(video)
            if not caption:
                self.missing.add(video)

    def uncaptioned(self, rank: int, world_size: int) -> list[Path]:
        """A rank's share of the videos without a caption.

        Shares are cut from all videos: what another rank has captioned by now changes nothing.
        """
        return [path for path in self.videos[rank::world_size] if path in self.missing]

    def predict_dataloader(self) -> DataLoader:
        """This rank's share, one video per batch."""
        assert self.trainer is not None
        mine: Any = self.uncaptioned(self.trainer.global_rank, self.trainer.world_size)
        read = partial(read_or_skip, root=self.root, **self.numbers)
        return DataLoader(mine, collate_fn=read, num_workers=self.num_workers)
