"""Whether a clip stays with the picture that it was made to begin with.

The picture is what the list of clips names in the column ``image``; where it names none, the clip's
own first frame if that is asked for. Of a picture of another shape the largest box of the clip's
aspect counts, from its middle, as where clips are made.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.nn.functional import normalize

from dance_eval.metrics.clip import ClipMetric, ScoredClip
from dance_eval.metrics.clip_folder import ClipEntry, content_digest
from dance_eval.metrics.features import shuffled_order
from dance_eval.metrics.image_encoders import ImageEncoder
from dance_eval.metrics.matching import strangers
from dance_eval.metrics.motion import require_frames
from musicinfuser.errors import UserError
from musicinfuser.media.video import probe_video, read_clip
from musicinfuser.setting_checks import check_choice

Picture = Literal["listed", "first_frame"]


def read_picture(path: Path, *, height: int, width: int) -> torch.Tensor:
    """The largest box of such an aspect from the middle of a picture, uint8 RGB (height, width, 3).

    `UserError` if it is no picture.
    """
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as a picture ({type(error).__name__}).") from error
    return _middle_box(picture, height=height, width=width)


def _middle_box(picture: Image.Image, *, height: int, width: int) -> torch.Tensor:
    scale = min(picture.width / width, picture.height / height)
    box = width * scale, height * scale
    left, top = (picture.width - box[0]) / 2, (picture.height - box[1]) / 2
    cut = picture.resize(
        (width, height), Image.Resampling.BICUBIC, box=(left, top, left + box[0], top + box[1])
    )
    return torch.from_numpy(np.asarray(cut).copy())


def first_frame(path: Path, *, height: int, width: int) -> torch.Tensor:
    """As `read_picture`, of the first frame of a video; `UserError` if it cannot be read."""
    info = probe_video(path)
    size: dict[str, Any] = {"height": info.height, "width": info.width, "crop": None}
    [frame] = read_clip(path, start_seconds=0.0, num_frames=1, **size)
    return _middle_box(Image.fromarray(frame.numpy()), height=height, width=width)


def first_picture(clip: ScoredClip, *, picture: Picture) -> torch.Tensor:
    """What a clip begins with, uint8 RGB of the clip's size, (H, W, 3); `UserError` without."""
    require_frames(clip.frames)
    if not len(clip.frames):
        raise UserError(f"{clip.name}: has no frames.")
    if picture == "first_frame":
        return clip.frames[0]
    if clip.image is None:
        raise UserError(
            f"{clip.name}: its list names no picture that it begins with; add the column image to "
            "clips.csv, or set picture: first_frame."
        )
    return read_picture(clip.image, height=clip.frames.shape[1], width=clip.frames.shape[2])


class FirstPictureFidelity(ClipMetric):
    """Likeness of all frames to the first picture, as an encoder sees it.

    With DINO it is the subject that counts, with CLIP the scene (as for VBench's consistencies).

    Values per clip, of which `compute` gives the means:
        score: Mean cosine of the frames with the picture, in [-1, 1].
        last_second: The same of the frames of the last second: it falls where the clip drifts.
        to_other: Mean cosine with the picture of the next clip that has another one: the level of
            a stranger. Missing where no clip has another one that can be read.

    Args:
        encoder: Such as `image_encoders.DinoEncoder`, `Dinov2Encoder` or `ClipEncoder`.
        picture: ``"listed"``: the one that the list names; ``"first_frame"``: the first frame,
            which then does not count itself.
    """

    value_names = ("score", "last_second", "to_other")
    optional_names = frozenset({"to_other"})

    def __init__(
        self,
        *,
        encoder: ImageEncoder,
        picture: Picture = "listed",
        name: str = "subject_fidelity",
    ) -> None:
        super().__init__(name=name, part=encoder)
        check_choice("picture", picture, get_args(Picture))
        self.encoder = encoder
        self.picture = picture
        self._digests: dict[Path, str | None] = {}
        self._others: dict[Path, ClipEntry] = {}

    def prepare(self, entries: Sequence[ClipEntry], *, seed: int) -> None:
        """Choose another clip's picture for every clip."""
        pictures = [
            (entry, path)
            for entry in entries
            if entry.problem is None and (path := self._picture_of(entry)) is not None
        ]
        self._digests = {entry.path: content_digest(path) for entry, path in pictures}
        self._others = strangers([(entry, self._digests[entry.path]) for entry, _ in pictures])

    def _picture_of(self, entry: ClipEntry) -> Path | None:
        """The file that holds what a clip begins with."""
        if self.picture == "first_frame":
            return entry.path
        return None if entry.image is None else entry.file_of(entry.image)

    def clip_key(self, entry: ClipEntry) -> Any:
        """The picture and the other one."""
        other = self._others.get(entry.path)
        return [
            self._digests.get(entry.path),
            None if other is None else self._digests[other.path],
        ]

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """The values; `UserError` if there is no picture or too few frames."""
        height, width = clip.frames.shape[1:3]
        pictures = [first_picture(clip, picture=self.picture)]
        frames = clip.frames[1:] if self.picture == "first_frame" else clip.frames
        if not len(frames):
            raise UserError(f"{clip.name}: has no frame beside its first one.")
        other = self._other_picture(clip, height=height, width=width)
        if other is not None:
            pictures.append(other)
        vectors = self.encoder.embed_images(torch.cat([torch.stack(pictures), frames]))
        unit = normalize(vectors.double(), dim=-1)
        cosines = unit[len(pictures) :] @ unit[: len(pictures)].T
        values = {
            "score": float(cosines[:, 0].mean()),
            "last_second": float(cosines[-max(round(clip.fps), 1) :, 0].mean()),
        }
        return values if other is None else values | {"to_other": float(cosines[:, 1].mean())}

    def _other_picture(self, clip: ScoredClip, *, height: int, width: int) -> torch.Tensor | None:
        other = None if clip.path is None else self._others.get(clip.path)
        path = None if other is None else self._picture_of(other)
        if path is None:
            return None
        # What is wrong with another clip is said where that one is scored.
        with suppress(UserError):
            if self.picture == "listed":
                return read_picture(path, height=height, width=width)
            return first_frame(path, height=height, width=width)
        return None


# sRGB to CIE 1931 XYZ under D65 (IEC 61966-2-1), and that white.
_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_WHITE = (0.950456, 1.0, 1.088754)


def lab_means(frames: torch.Tensor) -> torch.Tensor:
    """Mean CIE L*a*b* colour of frames: uint8 RGB, shape (T, H, W, 3), to float64 (T, 3)."""
    require_frames(frames)
    to_xyz = torch.tensor(_XYZ).T / torch.tensor(_WHITE)
    means = torch.zeros(len(frames), 3, dtype=torch.float64)
    for index, frame in enumerate(frames):
        levels = frame.float() / 255
        linear = torch.where(
            levels > 0.04045, ((levels + 0.055) / 1.055).clamp(min=0) ** 2.4, levels / 12.92
        )
        ratio = linear @ to_xyz
        root = torch.where(ratio > 0.008856, ratio ** (1 / 3), 7.787 * ratio + 16 / 116)
        x, y, z = root.double().mean(dim=(0, 1))
        means[index] = torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])
    return means


class ColourDrift(ClipMetric):
    """How far the colours of a clip leave those of its beginning.

    Distances are CIE76's delta E between mean colours of frames; 2 is just seen. They count light
    that changes and a camera that pans too.

    Values per clip, of which `compute` gives the means:
        score: Distance of the mean colour of the last second from that of the first picture.
        shuffled: The same with the frames shuffled; a first frame is then another one.
        per_second: Slope of a line through the distances of all frames, in delta E per second.
        per_second_shuffled: That slope's size with the frames shuffled.

    Args:
        picture: As in `FirstPictureFidelity`.
    """

    value_names = ("score", "shuffled", "per_second", "per_second_shuffled")

    def __init__(self, *, picture: Picture = "first_frame", name: str = "colour_drift") -> None:
        super().__init__(name=name)
        check_choice("picture", picture, get_args(Picture))
        self.picture = picture

    def clip_key(self, entry: ClipEntry) -> Any:
        """The picture, where it counts."""
        if self.picture == "first_frame" or entry.image is None:
            return None
        return content_digest(entry.file_of(entry.image))

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """The values; `UserError` if there is no picture or fewer than two frames."""
        if len(clip.frames) < 2:
            raise UserError(f"{clip.name}: has {len(clip.frames)} frames; 2 are needed.")
        first = lab_means(first_picture(clip, picture=self.picture)[None])[0]
        means = lab_means(clip.frames)
        order = shuffled_order(clip)
        other = means[order[0]] if self.picture == "first_frame" else first
        last = slice(-max(round(clip.fps), 1), None)
        away = (means - first).norm(dim=-1)
        return {
            "score": float((means[last].mean(dim=0) - first).norm()),
            "shuffled": float((means[order][last].mean(dim=0) - other).norm()),
            "per_second": _slope(away) * clip.fps,
            "per_second_shuffled": abs(_slope(away[order])) * clip.fps,
        }


def _slope(values: torch.Tensor) -> float:
    times = torch.arange(len(values), dtype=torch.float64)
    times -= times.mean()
    return float((times * values).sum() / times.square().sum())
