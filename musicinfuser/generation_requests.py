"""Generation requests: clips to generate, named by their track, prompt and seed."""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicinfuser.errors import UserError
from musicinfuser.setting_differences import without_defaults

# Lists the generated clips of a folder, one json object per line.
MANIFEST_NAME = "manifest.jsonl"
NO_AUDIO = "nothing"
"""In place of a file in ``heard``: the model without its audio layers."""
SILENCE = "silence"
"""In place of a file in ``heard``: the model with its audio layers, which get a silent sound."""
SHIFTED = "shifted audio"
"""What is added to the name of a system for clips that hear their track earlier or later."""

FIRST_PICTURE = "first picture"
"""Likewise for clips that begin with a given picture."""


@dataclass(frozen=True)
class GenerationRequest:
    """What to generate; whoever makes one for a backbone checks that it takes the size."""

    track: str
    """An audio file, or a video whose sound is used."""
    prompt: str
    seed: int
    num_frames: int
    """Of Mochi 6k + 1."""
    height: int
    width: int
    track_offset_seconds: float | None = 0.0
    """Where the clip starts in the track; None draws a start from the seed."""
    heard: str | None = None
    """What the model is conditioned on while the clip keeps its track: another audio file or
    video, the track itself from elsewhere, `SILENCE` or `NO_AUDIO`; None is the track."""
    heard_offset_seconds: float | None = None
    """Where in ``heard`` it starts; None is the offset in the track."""
    in_windows: bool = False
    """Whether it is sampled in overlapping windows where it is longer than one."""
    image: str | None = None
    """A picture that becomes the first frame, of a backbone that can begin with one: its largest
    box of the clip's aspect, from the middle, resized."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name, file, null in (
            ("track_offset_seconds", self.track, "a random start"),
            ("heard_offset_seconds", self.heard, "the offset in the track"),
        ):
            seconds = getattr(self, name)
            if seconds is not None and not 0 <= seconds < math.inf:
                raise UserError(
                    f"{name} is {seconds} for {file}; use 0 or more, or null for {null}."
                )
        if self.heard_offset_seconds is not None and self.heard in (None, SILENCE, NO_AUDIO):
            raise UserError(
                f"heard_offset_seconds is {self.heard_offset_seconds}, but `heard` names no file "
                f"in place of {self.track}; name one, or leave the offset out."
            )

    @property
    def track_name(self) -> str:
        """The track without folder and suffix."""
        return Path(self.track).stem

    @property
    def heard_file(self) -> str | None:
        """The audio in place of the track, if there is one."""
        return None if self.heard in (SILENCE, NO_AUDIO) else self.heard

    @property
    def control(self) -> str:
        """What sets the clip apart from the same system's clips with their own track."""
        names = {None: "", NO_AUDIO: "no audio", SILENCE: "silent audio"}
        heard = names.get(self.heard, SHIFTED if self.heard == self.track else "mismatched audio")
        return ", ".join(filter(None, (heard, self.image and FIRST_PICTURE)))

    def stored(self) -> dict[str, Any]:
        """What decides the clip, as older files have it: without an image that is not given."""
        return without_defaults(self, "image")

    def file_stem(self) -> str:
        """A readable file name, unique among requests that differ."""
        identity = (
            f"{self.track}|{self.prompt}|{self.seed}|{self.num_frames}|{self.height}x{self.width}|"
            f"{self.track_offset_seconds}"
        )
        hears = ""
        if self.heard is not None:
            identity += f"|{self.heard}|{self.heard_offset_seconds}"
            hears = f"_hears-{slug(Path(self.heard).stem, max_length=20, max_bytes=40)}"
        if self.in_windows:
            identity += "|in windows"
        if self.image is not None:
            identity += f"|begins with {self.image}"
            hears += f"_from-{slug(Path(self.image).stem, max_length=20, max_bytes=40)}"
        digest = hashlib.blake2b(identity.encode(), digest_size=3).hexdigest()
        return f"{slug(self.track_name)}_{slug(self.prompt)}_seed{self.seed}{hears}_{digest}"


def slug(text: str, *, max_length: int = 40, max_bytes: int = 80) -> str:
    """Letters and digits, few of them: file names end at 255 bytes."""
    short = re.sub(r"[^\w]+", "-", text).strip("-")[:max_length]
    return short.encode()[:max_bytes].decode(errors="ignore").rstrip("-")


@dataclass(frozen=True)
class LayerRequest:
    """One clip of the measurement of layer adaptability (section 4.1)."""

    layer: int | None
    """The block that is skipped for guidance, from 0; None for the reference without it."""
    request: GenerationRequest

    def is_made(self, output_dir: str | Path) -> bool:
        """Whether the clip is there; its description is written after it, and both whole."""
        description = layer_folder(output_dir, self.layer) / f"{self.request.file_stem()}.json"
        return description.is_file() and description.with_suffix(".mp4").is_file()


def system_name(layer: int | None) -> str:
    """Name in metrics.json of the clips with guidance by a layer."""
    return "no layer skipped" if layer is None else f"layer {layer}"


def layer_folder(output_dir: str | Path, layer: int | None) -> Path:
    """Folder of the clips with guidance by a layer."""
    name = "no_layer_skipped" if layer is None else f"layer_{layer:02d}"
    return Path(output_dir, "clips", name)


def rank_layers(scores: Sequence[float]) -> list[int]:
    """Block indices, the highest score first, ties to the lower index."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))
