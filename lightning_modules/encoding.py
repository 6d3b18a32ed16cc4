"""ClipEncoder: raw clips to latents and audio features, as a predict job."""

from dataclasses import dataclass
from typing import Any

import lightning.pytorch as L
from torch import Tensor

from datamodules.clips import ClipSpec, RawClip, SkippedClip
from musicinfuser.media.latents import CacheError, EncodingRecipe
from musicinfuser.networks.encoders import Encoders, EncodersSpec


@dataclass(frozen=True, eq=False)
class EncodedClip:
    """What is stored of a clip."""

    spec: ClipSpec
    latent_mean: Tensor
    """``(C, T, H, W)`` in VAE units, on the CPU."""
    latent_logvar: Tensor
    """``(C, T, H, W)``."""
    audio: Tensor
    """``(S, audio width)`` fp32."""


class ClipEncoder(L.LightningModule):
    """Runs the frozen encoders; `callbacks.CacheWriter` writes what it returns."""

    def __init__(self, encoders: EncodersSpec) -> None:
        """Set up; each encoder is loaded once, when first used.

        Args:
            encoders: VAE, T5 and wav2vec 2.0.
        """
        super().__init__()
        self.encoders = Encoders(encoders)

    def on_predict_start(self) -> None:
        """Move what every clip needs to the device, once."""
        self.encoders.keep_on(self.device)

    def predict_step(
        self, batch: list[RawClip | SkippedClip], batch_idx: int
    ) -> "list[EncodedClip | SkippedClip]":
        """Encode the clips of a batch; what could not be read is passed on."""
        return [self.encode(clip) if isinstance(clip, RawClip) else clip for clip in batch]

    def encode(self, clip: RawClip) -> EncodedClip:
        """Encode one clip on this module's device."""
        mean, logvar = self.encoders.encode_video(clip.frames[None], device=self.device)
        audio = self.encoders.encode_audio(clip.waveform[None], device=self.device)
        return EncodedClip(
            spec=clip.spec,
            latent_mean=mean[0].cpu(),
            latent_logvar=logvar[0].cpu(),
            audio=audio[0].cpu(),
        )

    def recipe(self, **cut: Any) -> EncodingRecipe:
        """How clips encoded by this module are made; ``cut`` is how the data module cuts them."""
        encoders, parts = self.encoders, self.encoders.fingerprints()
        return EncodingRecipe(
            **cut,
            dtype=encoders.spec.dtype,
            max_text_tokens=encoders.spec.max_text_tokens,
            latents_mean=tuple(encoders.latents_mean.tolist()),
            latents_std=tuple(encoders.latents_std.tolist()),
            vae=parts["vae"],
            text_encoder=parts["text_encoder"],
            audio_encoder=parts["audio_encoder"],
        )


def check_encoders(cache_dir: str, recipe: EncodingRecipe, encoders: Encoders) -> None:
    """Refuse a cache that other encoders made than those that samples are generated with.

    Raises:
        CacheError: Names every encoder and setting that differs.
        MissingWeightsError: An encoder's folder does not exist.
    """
    expected = encoders.fingerprints() | {
        "dtype": encoders.spec.dtype,
        "max_text_tokens": encoders.spec.max_text_tokens,
    }
    different = [
        f"{name}: {getattr(recipe, name)} in the cache, {now} now"
        for name, now in expected.items()
        if getattr(recipe, name) != now
    ]
    if different:
        raise CacheError(
            f"{cache_dir} was encoded with other encoders ({'; '.join(different)}); encode again "
            "into another folder, or give model.encoders the parts that made it."
        )
