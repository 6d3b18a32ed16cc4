"""ClipEncoder: captions and raw clips to features and latents, as a predict job."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as L
from torch import Tensor

from datamodules.clips import ClipSpec, CutSettings, RawClip, SkippedClip
from datamodules.masks import ClipMask
from musicinfuser.errors import UserError
from musicinfuser.media.latents import CacheError, EncodingRecipe
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.setting_differences import differences


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


@dataclass(frozen=True, eq=False)
class EncodedCaption:
    """What is stored of a caption."""

    text: str
    features: Tensor
    """``(num_tokens, width)`` on the CPU, in T5's type."""


class ClipEncoder(L.LightningModule):
    """Runs the frozen encoders; `callbacks.CacheWriter` writes what it returns.

    Attributes:
        recipe: How clips are made, apart from each one's shape; known after `setup`.
    """

    recipe: EncodingRecipe

    def __init__(self, encoders: EncodersSpec) -> None:
        """Set up; each encoder is loaded once, when first used.

        Args:
            encoders: VAE, T5 and the audio encoder.
        """
        super().__init__()
        self.encoders = Encoders(encoders)

    def setup(self, stage: str) -> None:
        """Check the cache against the encoders, and leave out what is there.

        Raises:
            CacheError: The cache holds clips made another way.
            UserError: The clips are for another family of backbones.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        mine = self.encoders.geometry
        if (clips := getattr(data, "geometry", mine)) != mine:
            raise UserError(
                f"model.encoders.family is {self.encoders.spec.family}, but data.family has clips "
                f"of {clips.title}; give both the same."
            )
        self.recipe = self.recipe_of(data.settings)
        audio = self.encoders.audio
        data.leave_out_encoded(
            self.recipe, audio_rate_hz=audio.rate_hz, audio_context_seconds=audio.context_seconds,
            more_captions=self.encoders.family.texts_beside_captions(),
        )  # fmt: skip

    def predict_step(
        self, batch: list[str | RawClip | ClipMask | SkippedClip], batch_idx: int
    ) -> list[EncodedCaption | EncodedClip | ClipMask | SkippedClip]:
        """Encode the captions and clips of a batch; masks and what cannot be read are passed on."""
        encode: dict[type, Callable[[Any], Any]] = {
            str: self.encode_caption,
            RawClip: self.encode,
            ClipMask: lambda mask: mask,
            SkippedClip: lambda skipped: skipped,
        }
        return [encode[type(item)](item) for item in batch]

    def encode_caption(self, text: str) -> EncodedCaption:
        """Encode one caption; T5 stays on this module's device until a clip comes."""
        self.encoders.text_encoder.to(self.device)
        (features,) = self.encoders.iterate_captions([text], device=self.device)
        return EncodedCaption(text, features)

    def encode(self, clip: RawClip) -> EncodedClip:
        """Encode one clip on this module's device."""
        if "text_encoder" in vars(self.encoders):
            del self.encoders.text_encoder  # captions come before clips, and T5 is large
        self.encoders.keep_on(self.device)
        mean, logvar = self.encoders.encode_video(clip.frames[None], device=self.device)
        audio = self.encoders.encode_audio(clip.waveform[None], *clip.own_sound, device=self.device)
        return EncodedClip(clip.spec, mean[0].cpu(), logvar[0].cpu(), audio[0].cpu())

    def recipe_of(self, settings: CutSettings) -> EncodingRecipe:
        """How clips that are cut so and encoded by this module are made."""
        encoders, parts = self.encoders, self.encoders.fingerprints()
        return EncodingRecipe(
            num_frames=settings.num_frames,
            height=settings.height,
            width=settings.width,
            fps=settings.fps,
            audio_channel=settings.audio_channel,
            decoding=settings.decoding,
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
    stored = {name: getattr(recipe, name) for name in expected}
    if different := differences(expected, stored, where="cache"):
        raise CacheError(
            f"{cache_dir} was encoded with other encoders ({'; '.join(different)}); encode again "
            "into another folder, or give model.encoders the parts that made it."
        )
