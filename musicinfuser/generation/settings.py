"""How clips are sampled."""

from dataclasses import dataclass
from typing import Literal, get_args

from musicinfuser.clip_size import FRAMES_PER_LATENT, num_latent_frames
from musicinfuser.diffusion.sampler import LINEAR_THRESHOLD
from musicinfuser.diffusion.windows import Windows
from musicinfuser.errors import UserError

WindowNoise = Literal["repeated", "independent"]
# Windows as long as the authors' training clips.
WINDOW_FRAMES, WINDOW_OVERLAP_FRAMES = 73, 36


@dataclass(frozen=True)
class SamplingSpec:
    """How latents are sampled."""

    num_steps: int
    """Euler steps (authors' code: 64)."""
    guidance_scale: float
    """Text guidance (section 5.1: 6.0)."""
    music_guidance_scale: float = 1.0
    """Guidance away from the same prompt without music (ours); 1 is none, and costs nothing."""
    negative_prompt: str = ""
    """Prompt of the unconditional branch; empty means zero text tokens."""
    linear_threshold: float = LINEAR_THRESHOLD
    """Noise removed in the linear half of the schedule (0.025)."""
    fps: float = 30.0
    """Frame rate of the model's videos."""
    window_frames: int = WINDOW_FRAMES
    """Of clips in windows: frames of a window, 6k + 1; best as many as the model was trained on."""
    window_overlap_frames: int = WINDOW_OVERLAP_FRAMES
    """Of clips in windows: frames that neighbours share at least, 6k; more is smoother and takes
    more windows."""
    window_noise: WindowNoise = "repeated"
    """Of clips in windows: ``repeated``: all windows start from the noise of the first, so that
    the dancer changes less (after FreeNoise, arXiv 2310.15169); ``independent``: as in one pass."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.num_steps < 1:
            raise UserError(f"sampling.num_steps is {self.num_steps}; it must be at least 1.")
        if self.music_guidance_scale < 0:
            raise UserError(
                f"sampling.music_guidance_scale is {self.music_guidance_scale}; use 0 or more."
            )
        if self.guidance_scale < 0:
            raise UserError(f"sampling.guidance_scale is {self.guidance_scale}; use 0 or more.")
        if self.window_frames < 7 or self.window_frames % FRAMES_PER_LATENT != 1:
            raise UserError(
                f"sampling.window_frames is {self.window_frames}; use 6k + 1 from 7 on, e.g. 73."
            )
        if self.window_noise not in get_args(WindowNoise):
            raise UserError(
                f"sampling.window_noise is {self.window_noise!r}; use repeated or independent."
            )
        overlap, most = self.window_overlap_frames, self.window_frames - 1
        if not 0 < overlap < self.window_frames or overlap % FRAMES_PER_LATENT:
            raise UserError(
                f"sampling.window_overlap_frames is {overlap}; windows of {self.window_frames} "
                f"frames can share 6k frames, {FRAMES_PER_LATENT} to {most}."
            )

    def windows(self, num_frames: int) -> Windows | None:
        """Windows over a clip's latent frames; None where one pass holds it."""
        if num_frames <= self.window_frames:
            return None
        return Windows(
            num_latent_frames(num_frames),
            length=num_latent_frames(self.window_frames),
            overlap=self.window_overlap_frames // FRAMES_PER_LATENT,
            repeats_noise=self.window_noise == "repeated",
        )


@dataclass(frozen=True)
class LayerGuidance:
    """Guidance away from the same model without one block (section 4.1, eq. 4)."""

    layer: int
    """The block that is an identity for video and text, counted from 0."""
    scale: float
    """s in `layer_guidance`; 0 is none, and costs nothing."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.scale < 0:
            raise UserError(f"the scale of layer guidance is {self.scale}; use 0 or more.")
