"""From music and a prompt to a clip: shared by predict, the sampling callback and pipelines."""

from musicinfuser.generation.clip import GeneratedClip, generate
from musicinfuser.generation.latent_checkpoint import LatentCheckpoint
from musicinfuser.generation.sampling import Conditions, Heard, denoise, sample_latents
from musicinfuser.generation.settings import (
    WINDOW_FRAMES,
    WINDOW_OVERLAP_FRAMES,
    LayerGuidance,
    SamplingSpec,
    WindowNoise,
)
from musicinfuser.generation.track import (
    OUTPUT_RATE_HZ,
    cut_span,
    heard_by_windows,
    heard_seconds,
    read_track,
)

__all__ = [
    "OUTPUT_RATE_HZ",
    "WINDOW_FRAMES",
    "WINDOW_OVERLAP_FRAMES",
    "Conditions",
    "GeneratedClip",
    "Heard",
    "LatentCheckpoint",
    "LayerGuidance",
    "SamplingSpec",
    "WindowNoise",
    "cut_span",
    "denoise",
    "generate",
    "heard_by_windows",
    "heard_seconds",
    "read_track",
    "sample_latents",
]
