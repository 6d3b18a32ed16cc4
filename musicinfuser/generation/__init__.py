"""From music and a prompt to a clip: shared by predict, the sampling callback and pipelines."""

from musicinfuser.generation.clip import (
    OUTPUT_RATE_HZ,
    GeneratedClip,
    audio_by_windows,
    audio_offset_seconds,
    audio_seconds,
    cut_span,
    generate,
    read_track,
    write_clip,
)
from musicinfuser.generation.sampling import (
    WINDOW_FRAMES,
    WINDOW_OVERLAP_FRAMES,
    AudioConditioning,
    Conditions,
    LatentCheckpoint,
    LayerGuidance,
    SamplingSpec,
    WindowNoise,
    denoise,
    sample_latents,
)
