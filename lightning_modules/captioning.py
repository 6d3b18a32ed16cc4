"""VideoCaptioner: videos to captions, as a predict job."""

import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L

from datamodules.captioning import Stills
from datamodules.clips import SkippedClip
from musicinfuser.errors import UserError
from musicinfuser.networks.backbones import family_named
from musicinfuser.networks.captioner import Captioner, CaptionerSpec
from musicinfuser.networks.text_tokens import cut_note
from musicinfuser.pretrained_sources import MissingWeightsError, load_pretrained


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

    def __init__(
        self,
        captioner: CaptionerSpec,
        text_encoder: str | None = None,
        max_text_tokens: int | None = None,
        family: str = "mochi",
    ) -> None:
        """Set up; the model is loaded once, when the job starts.

        Args:
            captioner: Model and question.
            text_encoder: Hub id or folder of the base that will read the captions: its tokenizer
                finds those that are too long. If it is not on this machine, the encode job warns.
                Null is the family's (of several, the first), if there is one.
            max_text_tokens: What is read of a caption; null is what the family reads (Mochi: 256,
                Wan: 512).
            family: As ``model.backbone.family`` of the training.
        """
        super().__init__()
        self.spec = captioner
        kind = family_named(family)
        if text_encoder is None and not kind.published:
            raise UserError(
                f"model.family is {family}, of which no weights are published; name the folder of "
                "its text encoder in model.text_encoder."
            )
        self.text_encoder = text_encoder or next(iter(kind.published))
        self.max_text_tokens = max_text_tokens or kind.usual.text_tokens
        self._cleaned = kind.cleaned
        self._tokenizer: Any = None
        self.captioner: Captioner | None = None

    def configure_model(self) -> None:
        """Load the model."""
        from transformers import AutoTokenizer

        if self.captioner is None:
            self.captioner = Captioner(self.spec)
            with suppress(MissingWeightsError):
                self._tokenizer = load_pretrained(
                    AutoTokenizer, self.text_encoder, "tokenizer", local_files_only=True
                )

    def predict_step(
        self, batch: list[Stills | SkippedClip], batch_idx: int
    ) -> list[Caption | SkippedClip]:
        """Caption the videos of a batch; what could not be read is passed on."""
        return [self.describe(video) if isinstance(video, Stills) else video for video in batch]

    def describe(self, video: Stills) -> Caption:
        """Caption one video."""
        assert self.captioner is not None
        text = self.captioner.describe(
            video.frames, seconds=video.seconds, duration=video.duration_seconds
        )
        if self.captioner.was_cut_off:
            warnings.warn(
                f"{video.file}: the answer goes on after captioner.max_new_tokens "
                f"({self.spec.max_new_tokens}) and is cut there, after {text[-30:]!r}.",
                stacklevel=2,
            )
        if self._tokenizer is not None:
            cut = cut_note(self._cleaned(text), self._tokenizer, max_tokens=self.max_text_tokens)
            if cut is not None:
                warnings.warn(f"{video.file}: the caption {cut}", stacklevel=2)
        return Caption(video.path, video.file, text)
