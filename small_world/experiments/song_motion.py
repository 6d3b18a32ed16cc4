"""What is measured of a song in windows: motion at the seams, and the beat in both halves."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from dance_eval.metrics.beat_alignment import beat_alignment
from dance_eval.metrics.motion import GREY_WEIGHTS, kinematic_beats
from musicinfuser.diffusion.windows import Windows

# A seam is as wide as the middle of an overlap, where neither window decides.
SEAM_FRAMES = 12
FPS = 30.0
# A pixel has a colour if its channels differ by more.
VIVID = 60
PERCENTILES = (2.5, 25.0, 50.0, 75.0, 97.5)


@dataclass(frozen=True)
class Song:
    """A video's curves and the beats of its music."""

    curves: dict[str, Tensor]
    """By name, one value per frame or step from frame to frame, ``(T,)`` or ``(T - 1,)``."""
    motion: Tensor
    """``(T - 1,)``: the curve whose rests are the motion's beats."""
    beats_seconds: Tensor
    """On the clip's clock."""
    looks: Tensor
    """``(T, 3)``, see `look`."""


def seam_frames(windows: Windows) -> list[float]:
    """The middle of each overlap of neighbouring windows, in frames."""
    # Latent frame k is shown from frame 6k - 5 to 6k.
    return [
        6 * (after + before + windows.length - 1) / 2 - 2.5
        for before, after in zip(windows.starts, windows.starts[1:], strict=False)
    ]


def detail(frames: Tensor) -> Tensor:
    """Mean difference of neighbouring grey pixels, ``(T,)``: falls where two pictures are mixed."""
    grey = frames.float() @ torch.tensor(GREY_WEIGHTS)
    return grey.diff(dim=1).abs().mean(dim=(1, 2)) + grey.diff(dim=2).abs().mean(dim=(1, 2))


def look(frames: Tensor) -> Tensor:
    """Mean colour of the pixels that have one, RGB in [0, 255], ``(T, 3)``: skin and clothes."""
    pixels = frames.float()
    is_vivid = (pixels.amax(dim=-1) - pixels.amin(dim=-1) > VIVID).float()
    weighed = (pixels * is_vivid[..., None]).sum(dim=(1, 2))
    return weighed / is_vivid.sum(dim=(1, 2)).clamp(min=1)[:, None]


def look_changes(looks: Tensor, num_frames: int) -> tuple[float, float]:
    """How far colours move, from the first window to the last and within the first.

    Args:
        looks: ``(T, 3)``.
        num_frames: Of a window.

    Returns:
        Distances of mean colours in RGB.
    """
    first, last, half = looks[:num_frames], looks[-num_frames:], num_frames // 2
    far = first.mean(dim=0) - last.mean(dim=0)
    near = first[:half].mean(dim=0) - first[half:].mean(dim=0)
    return float(far.norm()), float(near.norm())


@dataclass(frozen=True)
class Seams:
    """One curve of one video.

    Attributes:
        ratio: Mean at the seams over the mean elsewhere.
        ranks: For each seam the share of places elsewhere whose mean is smaller.
    """

    ratio: float
    ranks: list[float]


def at_seams(curve: Tensor, seams: Sequence[float]) -> Seams:
    """Compare stretches around seams with all that lie as far from seams as can be.

    Args:
        curve: ``(N,)``, 0 or more.
        seams: In frames.
    """
    means = curve.double().unfold(0, SEAM_FRAMES, 1).mean(dim=1)
    centres = torch.arange(len(means)) + SEAM_FRAMES / 2
    distances = (centres[:, None] - torch.tensor(seams)).abs().amin(dim=1)
    elsewhere = means[distances >= SEAM_FRAMES]
    own = torch.stack([means[(centres - seam).abs().argmin()] for seam in seams])
    ranks = (elsewhere < own[:, None]).double().mean(dim=1)
    return Seams(float(own.mean() / elsewhere.mean()), ranks.tolist())


def outside_share(ranks: Sequence[float]) -> float:
    """The share of seams beyond the middle 95 % of what is found elsewhere in their video."""
    return sum(not 0.025 <= rank <= 0.975 for rank in ranks) / len(ranks)


def halves(song: Song, *, sigma_seconds: float = 0.05) -> tuple[float, float]:
    """Beat alignment over motion beats (AIST++) of the first and the second half."""
    middle = (len(song.motion) + 1) / 2 / FPS
    moving = kinematic_beats(song.motion, fps=FPS)
    scores = [
        # Beats just beyond the middle are near to motion on either side of it.
        float(beat_alignment(part, song.beats_seconds, sigma_seconds=sigma_seconds))
        for part in (moving[moving < middle], moving[moving >= middle])
    ]
    return scores[0], scores[1]


def percentiles_of(values: Sequence[float]) -> dict[str, float]:
    """The distribution in five numbers."""
    shares = torch.tensor(PERCENTILES, dtype=torch.float64) / 100
    found = torch.tensor(values, dtype=torch.float64).quantile(shares).tolist()
    return {f"{p:g} %": value for p, value in zip(PERCENTILES, found, strict=True)}


def per_video(songs: Sequence[Song], windows: Windows) -> list[dict]:
    """What is kept of each video."""
    seams = seam_frames(windows)
    return [
        {
            "halves": halves(song),
            "look changes": look_changes(song.looks, 6 * windows.length - 5),
            "seams": {name: asdict(at_seams(c, seams)) for name, c in song.curves.items()},
        }
        for song in songs
    ]
