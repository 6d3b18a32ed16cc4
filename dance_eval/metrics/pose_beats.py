"""Beats of a dance from its joints, as published work defines them, side by side.

Papers that print a "beat alignment" compute different numbers: they smooth differently, take other
minima, place them at other ends of a frame, and average over the beats of the dance or over those
of the music. `DEFINITIONS` holds what each does, with its source. Values of two definitions do not
compare; those of one do, beside its chance level.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from dance_eval.metrics.beat_alignment import beat_alignment
from dance_eval.metrics.beat_coverage import beat_coverage
from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.joint_track import JointTrack, joint_speed
from dance_eval.metrics.motion import DEFAULT_SMOOTHING_SECONDS, gaussian_smoothed, local_minima
from dance_eval.metrics.rhythm import RhythmMetric
from dance_eval.metrics.skeletons import torso_lengths
from musicinfuser.joint_files import Joints
from musicinfuser.setting_checks import check_choice

Averaging = Literal["kinematic", "music", "coverage"]


@dataclass(frozen=True)
class BeatDefinition:
    """One way to find the beats of a dance and to score them. Frames of sources are at 60 fps."""

    source: str
    """Where it is defined, and what of it is ours."""
    averaging: Averaging
    """Mean over beats of the dance, or of the music, or share of the music's that are met."""
    smoothing_seconds: float
    """Gaussian over the mean speed of the joints."""
    reach_seconds: float | None
    """A minimum is the least sample so far to both sides; None: lower than both neighbours."""
    at: float
    """Where between frames i and i + 1 the speed between them is said to lie, from 0 to 1."""
    from_rest: bool = False
    """Whether a speed of 0 is put before the first frame, so that no beat lies within reach."""
    interpolated: bool = False
    """Whether minima lie between samples; else at them."""
    over_torso: bool = False
    """Whether speeds are in torso lengths, which follow a camera that zooms."""
    width_seconds: float = 0.05
    """Standard deviation of the kernel of an alignment, or the tolerance of a coverage."""


_SINGDANCE = (
    "SingDance (arXiv 2608.16220): strict minima of smoothed speed, normalised by size, of joints "
    "in pictures. The width of its smoothing is not known here (ours is taken), nor its size (the "
    "torso is taken)."
)
DEFINITIONS: dict[str, BeatDefinition] = {
    "aist++": BeatDefinition(
        source="AIST++ (Li et al. 2021), code of its authors: google-research/mint, "
        "tools/calculate_beat_scores.py: the least of 10 frames to both sides, kernel of 3 frames.",
        averaging="kinematic",
        smoothing_seconds=0.0,
        reach_seconds=10 / 60,
        at=1.0,
        from_rest=True,
    ),
    "bailando": BeatDefinition(
        source="Bailando (Siyao et al. 2022), code of its authors: lisiyao21/Bailando, "
        "utils/beat_align_score.py: Gaussian of 5 frames, kernel of 3 frames. EDGE takes it too.",
        averaging="music",
        smoothing_seconds=5 / 60,
        reach_seconds=None,
        at=0.0,
    ),
    "x_dancer": BeatDefinition(
        source="X-Dancer (arXiv 2502.17414): mean over the beats of the music, joints in pictures. "
        "Its smoothing and kernel are not known here; Bailando's are taken.",
        averaging="music",
        smoothing_seconds=5 / 60,
        reach_seconds=None,
        at=0.0,
        over_torso=True,
    ),
    "singdance": BeatDefinition(
        source=f"BeatAlign of {_SINGDANCE}",
        averaging="kinematic",
        smoothing_seconds=DEFAULT_SMOOTHING_SECONDS,
        reach_seconds=None,
        at=0.5,
        over_torso=True,
    ),
    "mbcr": BeatDefinition(
        source=f"MBCR of {_SINGDANCE}",
        averaging="coverage",
        smoothing_seconds=DEFAULT_SMOOTHING_SECONDS,
        reach_seconds=None,
        at=0.5,
        over_torso=True,
        width_seconds=0.1,
    ),
    "ours": BeatDefinition(
        source="This project: rests between frames, as in dance_eval/configs/metrics.yaml.",
        averaging="kinematic",
        smoothing_seconds=DEFAULT_SMOOTHING_SECONDS,
        reach_seconds=None,
        at=0.5,
        interpolated=True,
    ),
}


def speed_curve(joints: Joints, definition: BeatDefinition, *, fps: float) -> torch.Tensor:
    """Smoothed mean speed of joints in which a definition looks for minima, float64.

    Takes places of shape (P, T, J, D) to (T - 1,), or (T,) with the rest before the first frame.
    `UserError` if a torso is needed and the joints have none.
    """
    if definition.over_torso:
        torso = torso_lengths(joints)
        # A dancer who bends has a shorter torso in the picture; only what is slow is the camera.
        sizes = torch.stack([gaussian_smoothed(row, sigma_samples=0.5 * fps) for row in torso])
        steps = joints.places.double().diff(dim=1).norm(dim=-1).mean(dim=2)
        curve = (steps / ((sizes[:, 1:] + sizes[:, :-1]) / 2)).mean(dim=0)
    else:
        curve = joint_speed(joints.places)
    curve = gaussian_smoothed(curve, sigma_samples=definition.smoothing_seconds * fps)
    return (
        torch.cat([torch.zeros(1, dtype=torch.float64), curve]) if definition.from_rest else curve
    )


def pose_beats(joints: Joints, definition: BeatDefinition, *, fps: float) -> torch.Tensor:
    """Beats of a dance by a definition, in seconds from the first frame, ascending, float64.

    Takes joints that are seen throughout; `UserError` as `speed_curve`.
    """
    curve = speed_curve(joints, definition, fps=fps)
    if definition.interpolated:
        found = local_minima(curve, minima="interpolated")
    else:
        reach = definition.reach_seconds
        found = _least_within(curve, reach=1 if reach is None else max(round(reach * fps), 1))
    return (found - float(definition.from_rest) + definition.at) / fps


def _least_within(curve: torch.Tensor, *, reach: int) -> torch.Tensor:
    """Positions of samples below all others so far away, the two ends excepted, float64.

    Near an end there are fewer others.
    """
    if len(curve) < 3:
        return torch.zeros(0, dtype=torch.float64)
    inner = curve[1:-1]
    is_least = torch.ones(len(inner), dtype=torch.bool)
    places = torch.arange(1, len(curve) - 1)
    for step in range(1, reach + 1):
        before, after = (places - step).clamp(min=0), (places + step).clamp(max=len(curve) - 1)
        is_least &= (inner < curve[before]) & (inner < curve[after])
    return places[is_least].double()


class PoseBeats(RhythmMetric):
    """Beat alignment or coverage of joints by one of `DEFINITIONS`, with the clip's chance level.

    Where people are not seen in every frame, the longest stretch in which they are is scored, with
    the beats of the music that fall into it.

    Values per clip beside those of `RhythmMetric`:
        share_scored: Share of the clip's frames in that stretch.

    Args:
        definition: A name in `DEFINITIONS`.
        joints: Where the joints lie and whose count.
        num_shifts: Circular shifts per clip for the chance level.
    """

    value_names = (*RhythmMetric.value_names, "share_scored")

    def __init__(
        self,
        *,
        definition: str,
        joints: JointTrack | None = None,
        num_shifts: int = 1000,
        name: str = "pose_beats",
    ) -> None:
        check_choice("definition", definition, DEFINITIONS)
        self.joints = joints or JointTrack()
        super().__init__(name=name, num_shifts=num_shifts, motion=self.joints)
        self.definition = DEFINITIONS[definition]

    def score_moments(
        self, motion_seconds: torch.Tensor, music_seconds: torch.Tensor, *, fps: float
    ) -> torch.Tensor:
        """Alignment or coverage, as the definition has it."""
        width, kind = self.definition.width_seconds, self.definition.averaging
        if kind == "coverage":
            return beat_coverage(motion_seconds, music_seconds, tolerance_seconds=width)
        return beat_alignment(motion_seconds, music_seconds, sigma_seconds=width, average_over=kind)

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """The values; `UserError` if there are no joints, or too few frames with them."""
        stretch = self.joints.stretch_of(clip)
        start, length = stretch.first_frame / clip.fps, stretch.num_frames / clip.fps
        motion = pose_beats(stretch.joints, self.definition, fps=clip.fps)
        music = clip.music_beats() - start
        music = music[(music >= 0) & (music < length)]
        found = self.values_of(motion, music, clip=clip, duration_seconds=length)
        return found | {"share_scored": stretch.num_frames / len(clip.frames)}

    def fingerprints(self) -> dict[str, str]:
        """What the definition says, so that values are scored again where it changes."""
        return {"definition": str(self.definition)}


def definition_rows() -> list[dict[str, Any]]:
    """What tells the definitions apart, one row each, for a table."""
    return [
        {
            "definition": name,
            "mean over": {"kinematic": "dance", "music": "music", "coverage": "music (share)"}[
                d.averaging
            ],
            "smoothing (ms)": round(1000 * d.smoothing_seconds),
            "minimum": "neighbours" if d.reach_seconds is None else f"{d.reach_seconds:.3f} s",
            "between frames": "yes" if d.interpolated else "no",
            "placed": {0.0: "first frame", 0.5: "middle", 1.0: "second frame"}[d.at],
            "speed in": "torsos" if d.over_torso else "as given",
            "kernel (ms)": round(1000 * d.width_seconds),
        }
        for name, d in DEFINITIONS.items()
    ]
