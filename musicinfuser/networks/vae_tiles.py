"""How large the tiles are that Mochi's VAE works in."""

import math
from collections.abc import Sequence

from diffusers import AutoencoderKLMochi

# Mochi's decoder in bf16, untiled, by simulation: 52 GiB for the 12x13x60x106 latents of a clip.
DECODE_BYTES_PER_LATENT = 52 * 2**30 // (12 * 13 * 60 * 106)
# Sides of tiles in pixels, the largest first (diffusers': 256); a quarter overlaps the next.
TILE_SIZES = (256, 192, 128)
# Free memory that a tile wants, over the estimate: workspaces of convolutions, fragmentation.
TILE_ROOM = 1.25


def tile_size_for(shape: Sequence[int], free_bytes: float) -> int | None:
    """Side in pixels of the tiles that latents are decoded in; None for decoding them whole.

    Args:
        shape: ``(B, C, T, H, W)``.
        free_bytes: Of the device, the VAE's weights on it.
    """
    per_place = DECODE_BYTES_PER_LATENT * math.prod(shape[:3])
    if free_bytes >= per_place * math.prod(shape[3:]):
        return None
    for size in TILE_SIZES:
        if free_bytes >= TILE_ROOM * per_place * math.prod(min(n, size // 8) for n in shape[3:]):
            return size
    return TILE_SIZES[-1]


def use_tiles(vae: AutoencoderKLMochi, size: int | None) -> None:
    """Have a VAE work in tiles of a side in pixels, or on whole clips."""
    vae.use_tiling = size is not None
    if size is not None:
        vae.enable_tiling(size, size, size * 3 // 4, size * 3 // 4)
