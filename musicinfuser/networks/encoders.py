"""The frozen encoders: VAE, T5, and that of the audio (section 5.1: wav2vec 2.0)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from musicinfuser.clip_size import check_clip_size, geometry_of
from musicinfuser.fingerprint import fingerprint_folder
from musicinfuser.latent_space import denormalise
from musicinfuser.networks.audio_encoder import AudioEncoder, AudioPart
from musicinfuser.networks.backbone import DTYPES
from musicinfuser.networks.backbones import family_named
from musicinfuser.networks.backbones.mochi import MOCHI_HUB_ID
from musicinfuser.networks.combined_audio import audio_encoder_of, chosen_parts
from musicinfuser.networks.text_tokens import MAX_TEXT_TOKENS, warn_of_cut
from musicinfuser.networks.transformers_audio import WAV2VEC_HUB_ID
from musicinfuser.networks.vae_memory import TILE_SIZES
from musicinfuser.pretrained_sources import (
    find_local,
    load_pretrained,
    looks_local,
    missing_folder,
    part_config,
)
from musicinfuser.setting_checks import check_number


@dataclass(frozen=True)
class EncodersSpec:
    """Where the frozen encoders come from."""

    mochi: str = MOCHI_HUB_ID
    """Hub id or folder of the base, Mochi or another, with ``vae``, ``text_encoder`` and
    ``tokenizer`` in it."""
    audio: str = WAV2VEC_HUB_ID
    """Hub id or folder of a wav2vec 2.0, or of another encoder of transformers that takes
    waveforms, such as HuBERT or WavLM."""
    audio_subfolder: str | None = None
    """Folder of the encoder inside ``audio``."""
    audio_features: str | list[str | AudioPart] = "encoder"
    """``encoder``: a hidden state of ``audio``; ``log_mel``, ours: a spectrogram of 80 bands;
    ``rhythm``: 35 channels by librosa; or the class path of an `AudioEncoder` of your own. A list
    concatenates several, each a name or a group with a ``source`` and ``layer`` of its own.
    ``audio_width`` must be the width of all together."""
    audio_layer: int | Literal["all", "beats"] | None = None
    """Hidden state of ``audio``; null: the last (authors), 0: what enters the first layer. ``all``
    keeps every one; the audio projector learns how much of each to take."""
    audio_context_seconds: float = 0.0
    """Ours: sound before and after a clip that is encoded with it, as far as its file has some.
    What a beat is may not be decided within 2.5 s. 0: the clip's own sound only (authors)."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of VAE and T5. wav2vec 2.0 always runs in fp32: its features change with precision; so
    does the VAE of Wan."""
    max_text_tokens: int = MAX_TEXT_TOKENS
    """T5 tokens after which captions are cut, with a word (Mochi: 256, Wan: 512)."""
    vae_tiling: bool | None = None
    """Encode and decode in tiles: slower, with less memory, with faint seams. By default clips are
    encoded whole, and decoded in tiles only where the GPU's free memory is too small: of 256 px,
    or smaller ones if it must be (192 px for 145 frames on 24 GB)."""
    family: str = "mochi"
    """As ``model.backbone.family``: which VAE and T5 these are."""

    def __post_init__(self) -> None:
        """Check that there are such features, and layers where one is asked for."""
        family_named(self.family)
        chosen_parts(asdict(self))
        name = "encoders.max_text_tokens"
        check_number(name, self.max_text_tokens, at_least=1)
        family_named(self.family).check_text_tokens(self.max_text_tokens, name)
        check_number("encoders.audio_context_seconds", self.audio_context_seconds, at_least=0)


class Encoders:
    """Loads each encoder when first used and keeps it on the CPU between uses."""

    def __init__(self, spec: EncodersSpec) -> None:
        self.spec = spec
        self.family = family_named(spec.family)
        self.geometry = geometry_of(spec.family)
        self._captions: dict[str, Tensor] = {}

    @cached_property
    def vae(self) -> Any:
        """The family's VAE, frozen.

        Raises:
            UserError: Its latents have another number of channels than the family's.
        """
        kind, source = self.family.vae, self.spec.mochi
        hint = "give model.encoders the folder of that base"
        if config := part_config(source, "vae"):
            self.family.check_vae(config, f"the VAE of {source}", hint)
        dtype = kind.dtype or DTYPES[self.spec.dtype]
        vae = load_pretrained(kind.model_class, source, "vae", dtype=dtype)
        self.family.check_vae(vae.config, f"the VAE of {source}", hint)
        return vae.eval().requires_grad_(False)

    @cached_property
    def text_encoder(self) -> Any:
        """T5, frozen.

        Raises:
            UserError: It is of another kind than the family's.
        """
        kind, dtype = self.family.text_encoder_class, DTYPES[self.spec.dtype]
        if config := part_config(self.spec.mochi, "text_encoder"):
            what, hint = f"the text encoder of {self.spec.mochi}", "give model.encoders the folder"
            self.family.check_text_encoder(config, what, f"{hint} of that base")
        part = load_pretrained(kind, self.spec.mochi, "text_encoder", dtype=dtype)
        return part.eval().requires_grad_(False)

    @cached_property
    def audio(self) -> AudioEncoder:
        """What turns sound into features; its weights are read when it is first used."""
        return audio_encoder_of(asdict(self.spec))

    @cached_property
    def latents_mean(self) -> Tensor:
        """``(C,)`` mean of the VAE's latents, fp32 on the CPU."""
        return self.family.vae.statistics(self.vae.config)[0]

    @cached_property
    def latents_std(self) -> Tensor:
        """``(C,)`` spread of the VAE's latents, its scaling factor included."""
        return self.family.vae.statistics(self.vae.config)[1]

    @torch.no_grad()
    def encode_video(self, frames: Tensor, *, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latents.

        Args:
            frames: ``(B, T, H, W, 3)`` uint8; of Mochi T = 6k + 1, H and W multiples of 16.
            device: Where to compute.

        Returns:
            Two ``(B, C, t, h, w)`` as `latent_shape` says, in VAE units, on ``device``.
        """
        self.check_size(*frames.shape[1:4])
        with _on(self.vae, device) as vae:
            self.family.vae.use_tiles(vae, TILE_SIZES[0] if self.spec.vae_tiling else None)
            pixels = frames.to(device).permute(0, 4, 1, 2, 3).to(vae.dtype) / 127.5 - 1
            with torch.autocast(device.type, enabled=False):
                distribution = vae.encode(pixels).latent_dist
        return distribution.mean, distribution.logvar

    @torch.no_grad()
    def encode_picture(self, picture: Tensor, *, device: torch.device) -> Tensor:
        """Latents of a picture as the first of a clip's, by `Vae.first_latents`.

        Args:
            picture: ``(H, W, 3)`` uint8, as `media.pictures` gives it.
            device: Where to compute.

        Returns:
            ``(1, C, 1, h, w)`` normalised, fp32, on ``device``.
        """
        self.check_size(1, *picture.shape[:2])
        with _on(self.vae, device) as vae:
            self.family.vae.use_tiles(vae, TILE_SIZES[0] if self.spec.vae_tiling else None)
            return self.family.vae.first_latents(vae, picture[None].to(device))

    @torch.no_grad()
    def decode_video(self, latents: Tensor) -> Tensor:
        """Pixels of normalised latents.

        Args:
            latents: ``(B, C, T, H, W)``, as sampled.

        Returns:
            ``(B, num_frames, height, width, 3)`` uint8 on the CPU: of Mochi 6 (T - 1) + 1 frames of
            8 H x 8 W.
        """
        with _on(self.vae, latents.device) as vae:
            self.family.vae.use_tiles(vae, self._tile_size(latents.shape, latents.device))
            return self._frames(latents)

    def decode_pieces(self, latents: Tensor, *, device: torch.device) -> Iterator[Tensor]:
        """Pixels of long latents, a second or so at a time; memory does not grow with the length.

        Args:
            latents: ``(B, C, T, H, W)``, as sampled, anywhere.
            device: Where to compute; the VAE stays there until the last piece is taken.

        Yields:
            ``(B, num_frames, height, width, 3)`` uint8 on the CPU; together what `decode_video`
            gives.
        """
        kind, (batch, channels, num_frames, *area) = self.family.vae, latents.shape
        piece = min(num_frames, kind.piece_latents)
        with _on(self.vae, device) as vae:
            kind.use_tiles(vae, self._tile_size((batch, channels, piece, *area), device))
            yield from kind.decode_pieces(lambda z: self._frames(z.to(device)), vae, latents)

    def _frames(self, latents: Tensor) -> Tensor:
        """uint8 ``(B, T, H, W, 3)`` on the CPU of normalised latents where the VAE is."""
        mean, std = self.latents_mean.to(latents), self.latents_std.to(latents)
        scaled = denormalise(latents.float(), mean.float(), std.float()).to(self.vae.dtype)
        # Outside autocast: the VAE's own type decides.
        with torch.autocast(latents.device.type, enabled=False):
            pixels = self.vae.decode(scaled, return_dict=False)[0].float()
        pixels = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return pixels.permute(0, 2, 3, 4, 1).cpu()

    @torch.no_grad()
    def encode_captions(self, captions: list[str], *, device: torch.device) -> list[Tensor]:
        """T5 features of each caption, cut to its valid tokens.

        Args:
            captions: Texts; an empty one gives zero tokens (authors' code zeroes empty prompts), or
                where the family reads it, its own.
            device: Where to compute.

        Returns:
            One ``(num_tokens, width)`` tensor per caption, on the CPU, in the encoder's type.
        """
        is_read = {c: bool(c) or self.family.reads_empty_text for c in captions}
        missing = [c for c in is_read if is_read[c] and c not in self._captions]
        if missing:
            features = self.iterate_captions(missing, device=device)
            self._captions |= zip(missing, features, strict=True)
        if self._captions:
            empty = next(iter(self._captions.values()))[:0]
        else:
            width, dtype = self.text_encoder.config.d_model, self.text_encoder.dtype
            empty = torch.zeros(0, width, dtype=dtype)
        return [self._captions[c] if is_read[c] else empty for c in captions]

    def take_captions(self, features: Mapping[str, Tensor]) -> None:
        """Take features ``(num_tokens, width)`` made before, so that T5 stays unloaded."""
        self._captions |= features

    @torch.no_grad()
    def iterate_captions(
        self, captions: Iterable[str], *, device: torch.device
    ) -> Iterator[Tensor]:
        """Features of many captions, one at a time; T5 stays on ``device`` meanwhile.

        Args:
            captions: Texts; empty ones only where the family reads them.
            device: Where to compute.

        Yields:
            ``(num_tokens, width)`` on the CPU; nothing is kept.
        """
        with _on(self.text_encoder, device) as text_encoder:
            for caption in map(self.family.cleaned, captions):
                tokens = self._tokenizer(
                    caption,
                    max_length=self.spec.max_text_tokens,
                    truncation=True,
                    return_tensors="pt",
                ).to(device)
                if tokens.input_ids.shape[1] == self.spec.max_text_tokens:
                    warn_of_cut(caption, self._tokenizer, max_tokens=self.spec.max_text_tokens)
                with torch.autocast(device.type, enabled=False):
                    features = text_encoder(tokens.input_ids, tokens.attention_mask)[0]
                yield features[0].cpu()

    def keep_on(self, device: torch.device) -> None:
        """Keep VAE and audio encoder on a device, for jobs that use them for every clip."""
        self.vae.to(device)
        if self.audio.module is not None:
            self.audio.module.to(device)

    @torch.no_grad()
    def encode_audio(
        self,
        waveforms: Tensor,
        first: int = 0,
        num_samples: int | None = None,
        *,
        device: torch.device,
    ) -> Tensor:
        """Features ``(B, S, width)`` fp32 on ``device``; 2.5 s give 124 of wav2vec 2.0's.

        Args:
            waveforms: ``(B, num)`` at ``audio.rate_hz`` in [-1, 1].
            first: Sample at which the part begins whose features these are.
            num_samples: Length of that part; None: to the end.
            device: Where to compute.
        """
        num_samples = waveforms.shape[1] - first if num_samples is None else num_samples
        with _on(self.audio.module, device):
            return self.audio.encode_span(waveforms, first, num_samples, device=device)

    def fingerprints(self) -> dict[str, str]:
        """What each encoder is: a hash of its files where they are local, else its source.

        Raises:
            MissingWeightsError: A folder does not exist.
        """
        found = {}
        for name in ("vae", "text_encoder"):
            folder = find_local(self.spec.mochi, name)
            if folder is None and looks_local(self.spec.mochi):
                raise missing_folder(name, self.spec.mochi, name)
            found[name] = fingerprint_folder(folder) if folder else self.spec.mochi
        return {**found, "audio_encoder": self.audio.fingerprint()}

    def check_size(self, num_frames: int, height: int, width: int) -> None:
        """Refuse clips the VAE cannot take (see `check_clip_size`)."""
        check_clip_size(num_frames, height, width, geometry=self.geometry)

    def _tile_size(self, shape: Sequence[int], device: torch.device) -> int | None:
        if self.spec.vae_tiling is not None or device.type != "cuda":
            return TILE_SIZES[0] if self.spec.vae_tiling else None
        torch.cuda.empty_cache()
        free_bytes, _ = torch.cuda.mem_get_info(device)
        return self.family.vae.tile_size(shape, free_bytes)

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return load_pretrained(AutoTokenizer, self.spec.mochi, "tokenizer")


@contextmanager
def _on(module: Any, device: torch.device) -> Iterator[Any]:
    """The module on ``device`` for a while, then where it was; None has nothing to move."""
    if module is None:
        yield None
        return
    home = next(module.parameters()).device
    module.to(device)
    try:
        yield module
    finally:
        module.to(home)
