"""VideoCaptioner: videos to captions, as a predict job."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import lightning.pytorch as L

from musicinfuser.networks.captioner import Captioner, CaptionerSpec

if TYPE_CHECKING:
    from datamodules.captioning import Stills
    from datamodules.clips import SkippedClip


@dataclass(frozen=True)
class Caption:
    """What is said of a video."""

    path: Path
    file: str
    """The video's key in tables of captions."""
    caption: str
    """Empty if the model had nothing to say."""


class VideoCaptioner(L.LightningModule):
    """Runs a frozen video captioner; `callbacks.CaptionWriter` writes what it returns."""

    def __init__(self, captioner: CaptionerSpec) -> None:
        """Set up; the model is loaded once, when the job starts.

        Args:
            captioner: Model and question.
        """
        super().__init__()
        self.spec = captioner
        self.captioner: Captioner | None = None

    def configure_model(self) -> None:
        """Load the model."""
        if self.captioner is None:
            self.captioner = Captioner(self.spec)

    def predict_step(
        self, batch: "list[Stills | SkippedClip]", batch_idx: int
    ) -> "list[Caption | SkippedClip]":
        """Caption the videos of a batch; what could not be read is passed on."""
        return [
            self.describe(video) if hasattr(video, "frames") else video  # type: ignore[arg-type]
            for video in batch
        ]

    def describe(self, video: "Stills") -> Caption:
        """Caption one video."""
        assert self.captioner is not None
        text = self.captioner.describe(
            video.frames, seconds=video.seconds, duration=video.duration_seconds
        )
        return Caption(video.path, video.file, text)
