"""What the VAEs of families of backbones do unlike each other."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from musicinfuser.networks.class_of import ClassOf
from musicinfuser.networks.vae_memory import (
    PIECE_LATENT_FRAMES,
    decode_pieces,
    tile_size_for,
    use_tiles,
)

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan

Decode = Callable[[Tensor], Tensor]
"""What gives frames of latents ``(B, C, t, h, w)`` by ``vae.decode``."""


class Vae(ABC):
    """What is particular about the VAEs of one class of diffusers; each is given where used."""

    model_class: ClassVar[ClassOf]
    dtype: ClassVar[torch.dtype | None] = None
    """The type it has to be held in; None: any, as ``encoders.dtype``."""
    channels_key: ClassVar[str]
    """Entry of its config with the number of latent channels."""
    piece_latents: ClassVar[int]
    """Latent frames that are decoded at a time, those that are remembered included."""
    encoded_frames: ClassVar[float] = float("inf")
    """Frames that are encoded at a time."""
    trained_on_means: ClassVar[bool] = False
    """Whether its backbone was trained on the means of latents, not on draws around them."""

    @classmethod
    def statistics(cls, config: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Mean and spread ``(C,)`` of its latents, fp32 on the CPU."""
        mean, std = (
            torch.tensor(config[key], dtype=torch.float32)
            for key in ("latents_mean", "latents_std")
        )
        return mean, std / config.get("scaling_factor", 1.0)

    @classmethod
    @abstractmethod
    def first_channels(cls, config: Mapping[str, Any]) -> int:
        """Channels of its encoder at full resolution."""

    @classmethod
    def tile_size(cls, shape: Sequence[int], free_bytes: float) -> int | None:
        """Side in pixels of tiles to decode latents ``(B, C, T, h, w)`` in; None: decode whole."""
        return None

    @classmethod
    def use_tiles(cls, vae: Any, size: int | None) -> None:
        """Have it work in tiles of a side in pixels, or on whole clips."""
        use_tiles(vae, size)

    @classmethod
    def first_latents(cls, vae: Any, pictures: Tensor) -> Tensor:
        """Latents of pictures as the first of clips, ``(B, C, 1, h, w)`` normalised, fp32.

        The first latent frame of a video is that of its first picture alone: the VAEs of families
        that begin with one are causal.

        Args:
            vae: Where ``pictures`` are.
            pictures: ``(B, H, W, 3)`` uint8.
        """
        pixels = pictures.permute(0, 3, 1, 2)[:, :, None].to(vae.dtype) / 127.5 - 1
        with torch.autocast(pixels.device.type, enabled=False):
            latents = vae.encode(pixels).latent_dist.mean.float()
        mean, std = (
            t.to(latents.device).reshape(1, -1, 1, 1, 1) for t in cls.statistics(vae.config)
        )
        # Times the reciprocal, as in diffusers' pipeline: a quotient may have another last bit.
        return (latents - mean) * (1 / std)

    @classmethod
    @abstractmethod
    def decode_pieces(cls, decode: Decode, vae: Any, latents: Tensor) -> Iterator[Tensor]:
        """Frames of latents ``(B, C, T, h, w)``, a piece at a time; together what is decoded whole.

        Between pieces the VAE may not be used.
        """


class MochiVae(Vae):
    """Decodes a second at a time, and in tiles where that is too much."""

    model_class = ClassOf("diffusers", "AutoencoderKLMochi")
    channels_key = "latent_channels"
    piece_latents = PIECE_LATENT_FRAMES + 1

    @classmethod
    def first_channels(cls, config: Mapping[str, Any]) -> int:
        """64 of the published one."""
        return config["encoder_block_out_channels"][0]

    @classmethod
    def tile_size(cls, shape: Sequence[int], free_bytes: float) -> int | None:
        """By the memory of its decoder."""
        return tile_size_for(shape, free_bytes)

    @classmethod
    def decode_pieces(cls, decode: Decode, vae: Any, latents: Tensor) -> Iterator[Tensor]:
        """As `vae_memory.decode_pieces`."""
        return decode_pieces(decode, vae, latents)


class WanVae(Vae):
    """Decodes a latent frame at a time anyway; its norms want fp32, as WanPipeline's examples do.

    Wan's own code takes the mean of the posterior (``vae2_1.py``, ``encode``).
    """

    model_class = ClassOf("diffusers", "AutoencoderKLWan")
    dtype = torch.float32
    channels_key = "z_dim"
    piece_latents = 1
    encoded_frames = 4
    trained_on_means = True

    @classmethod
    def first_channels(cls, config: Mapping[str, Any]) -> int:
        """96 of the published one; of patches, with Wan 2.2, which have a quarter of the places."""
        return config["base_dim"] // (config.get("patch_size") or 1) ** 2

    @classmethod
    def decode_pieces(cls, decode: Decode, vae: Any, latents: Tensor) -> Iterator[Tensor]:
        """A latent frame at a time; with tiles, whose edges are blended, all at once."""
        if vae.use_tiling:
            yield decode(latents)
            return
        vae.clear_cache()
        # Of slices, which diffusers decodes one by one, each remembers its own.
        memories = [list(vae._feat_map) for _ in range(len(latents) if vae.use_slicing else 1)]
        for i in range(latents.shape[2]):
            with _going_on(vae, memories, is_first=i == 0), torch.no_grad():
                frames = decode(latents[:, :, i : i + 1])
            yield frames
        vae.clear_cache()


@contextmanager
def _going_on(
    vae: "AutoencoderKLWan", memories: Sequence[list[Any]], *, is_first: bool
) -> Iterator[None]:
    """Within, ``vae.decode`` takes one latent frame and remembers those that it got before.

    ``memories`` are those of the clips that it decodes together, one after the other.
    """
    from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
    from diffusers.models.autoencoders.vae import DecoderOutput

    left = iter(memories)

    def decode(z: Tensor, return_dict: bool = True) -> DecoderOutput:
        pixels = vae.decoder(
            vae.post_quant_conv(z), feat_cache=next(left), feat_idx=[0], first_chunk=is_first
        )
        if vae.config.patch_size is not None:
            pixels = unpatchify(pixels, patch_size=vae.config.patch_size)
        return DecoderOutput(sample=pixels.clamp(-1.0, 1.0))

    vae._decode = decode
    try:
        yield
    finally:
        del vae._decode
