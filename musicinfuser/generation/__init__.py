"""From music and a prompt to a clip: shared by predict, the sampling callback and pipelines."""

from musicinfuser.generation.clip import GeneratedClip, generate
from musicinfuser.generation.latent_checkpoint import LatentCheckpoint
from musicinfuser.generation.sampling import AudioConditioning, Conditions, denoise, sample_latents
from musicinfuser.generation.settings import (
    WINDOW_FRAMES,
    WINDOW_OVERLAP_FRAMES,
    LayerGuidance,
    SamplingSpec,
    WindowNoise,
)
from musicinfuser.generation.track import (
    OUTPUT_RATE_HZ,
    conditioning_seconds,
    cut_span,
    features_by_windows,
    read_track,
)

__all__ = [
    "OUTPUT_RATE_HZ",
    "WINDOW_FRAMES",
    "WINDOW_OVERLAP_FRAMES",
    "AudioConditioning",
    "Conditions",
    "GeneratedClip",
    "LatentCheckpoint",
    "LayerGuidance",
    "SamplingSpec",
    "WindowNoise",
    "conditioning_seconds",
    "cut_span",
    "denoise",
    "features_by_windows",
    "generate",
    "read_track",
    "sample_latents",
]
