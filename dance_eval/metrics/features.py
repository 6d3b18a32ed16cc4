"""Features of frames, in which sets of clips are compared."""

from abc import ABC, abstractmethod

import torch

from dance_eval.metrics.clip import MetricPart, ScoredClip
from dance_eval.metrics.motion import GREY_WEIGHTS
from musicinfuser.errors import UserError
from musicinfuser.keyed_random import generator
from musicinfuser.number_names import exact_name
from musicinfuser.setting_checks import check_number


class FrameFeatures(MetricPart, ABC):
    """A named set of features of the frames of a clip.

    Attributes:
        name: Says which features these are, settings included; equal names mean equal features.
        ordered: Whether they change with the order of the frames; sets are then also compared by
            clips whose frames are shuffled.
    """

    name: str
    ordered: bool = False

    @abstractmethod
    def features(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames, uint8 RGB of shape (T, H, W, 3), to shape (T, D), or (1, D) for the clip."""

    def of_clip(self, clip: ScoredClip, *, order: torch.Tensor | None = None) -> torch.Tensor:
        """Features of a clip, (T, D) or (1, D); with an order of its frames, of those.

        A subclass may use more of a clip than its frames.
        """
        return self.features(clip.frames if order is None else clip.frames[order])


def shuffled_order(clip: ScoredClip) -> torch.Tensor:
    """A random order of a clip's frames, the same for all that ask."""
    stream = generator(clip.seed, clip.name, "shuffled frames")
    return torch.randperm(len(clip.frames), generator=stream)


def scrambled_frame(clip: ScoredClip) -> torch.Tensor:
    """The middle frame with its pixels in random order, (H, W, 3): noise of its colours.

    `UserError` without frames.
    """
    if not len(clip.frames):
        raise UserError(f"{clip.name}: has no frames.")
    middle = clip.frames[len(clip.frames) // 2]
    stream = generator(clip.seed, clip.name, "scrambled pixels")
    order = torch.randperm(middle.shape[0] * middle.shape[1], generator=stream)
    return middle.flatten(0, 1)[order].reshape(middle.shape)


def frame_features(
    clip: ScoredClip, features: FrameFeatures, *, shuffled: bool = False
) -> torch.Tensor:
    """Features of a clip, float64, (T, D) or (1, D), computed once; UserError without frames."""
    if not len(clip.frames):
        raise UserError(f"{clip.name}: has no frames.")
    order = shuffled_order(clip) if shuffled else None
    found = clip.remembered(
        ("features", features.name, shuffled), lambda: features.of_clip(clip, order=order)
    )
    return found.detach().cpu().double()


def clip_features(
    clip: ScoredClip, features: FrameFeatures, *, shuffled: bool = False
) -> torch.Tensor:
    """Features of a clip: the mean over its frames, float64, shape (D,); UserError without any."""
    return frame_features(clip, features, shuffled=shuffled).mean(dim=0)


def with_shuffled(clip: ScoredClip, features: FrameFeatures) -> torch.Tensor:
    """`clip_features`, and for ordered ones those of the shuffled clip behind them, shape (D',)."""
    kinds = (False, True) if features.ordered else (False,)
    return torch.cat([clip_features(clip, features, shuffled=kind) for kind in kinds])


class PixelStatistics(FrameFeatures):
    """Colours and motion on a coarse grid: features that need no weights.

    They tell backdrops, clothes and places of motion apart, and know nothing of what is shown; a
    distance in them is no measure of quality.

    Args:
        grid: Parts of the picture along each side.
        motion_weight: Motion is so many times as important as colour; the difference of
            neighbouring frames is about a tenth as large as that of two pictures.
    """

    def __init__(self, *, grid: int = 4, motion_weight: float = 10.0) -> None:
        check_number("grid", grid, at_least=1)
        check_number("motion_weight", motion_weight, at_least=0)
        self.grid = grid
        self.motion_weight = motion_weight
        self.name = f"pixel_statistics_{grid}x{grid}_motion{exact_name(motion_weight)}"

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        """Mean colour and mean motion of every part of the picture over the clip.

        Takes uint8 RGB, shape (T, H, W, 3), to float64 (1, 4 * grid^2): RGB in [0, 1] of the parts,
        row by row, then the mean absolute difference of neighbouring grey frames in [0, 1] times
        the weight.
        """
        colour = torch.zeros(self.grid, self.grid, 3, dtype=torch.float64)
        motion = torch.zeros(self.grid, self.grid, 1, dtype=torch.float64)
        weights = torch.tensor(GREY_WEIGHTS)
        previous = None
        for frame in frames:
            levels = frame.float() / 255
            colour += self._means(levels)
            grey = (levels @ weights)[..., None]
            if previous is not None:
                motion += self._means((grey - previous).abs())
            previous = grey
        colour /= max(len(frames), 1)
        motion *= self.motion_weight / max(len(frames) - 1, 1)
        return torch.cat([colour.flatten(), motion.flatten()])[None]

    def _means(self, picture: torch.Tensor) -> torch.Tensor:
        """Over the parts of (H, W, C), float64, shape (grid, grid, C)."""
        planes = picture.permute(2, 0, 1)[None]
        means = torch.nn.functional.adaptive_avg_pool2d(planes, self.grid)
        return means[0].permute(1, 2, 0).double()
