"""Which clip sizes Mochi can take."""

PATCH = 2


def check_clip_size(
    num_frames: int, height: int, width: int, *, temporal: int = 6, spatial: int = 8
) -> None:
    """Refuse frame counts that are not 6k + 1 and sizes that cannot become patches.

    Args:
        num_frames: Frames of a clip.
        height: Pixels.
        width: Pixels.
        temporal: Frames per latent frame (Mochi's VAE: 6).
        spatial: Pixels per latent along a side (8); the transformer then takes 2x2 patches.

    Raises:
        ValueError: Names the offending number and the nearest ones that work.
    """
    if num_frames < 1 or num_frames % temporal != 1:
        lower = max((num_frames - 1) // temporal, 0) * temporal + 1
        raise ValueError(
            f"num_frames is {num_frames}; Mochi takes {temporal}k + 1 frames, e.g. {lower} or "
            f"{lower + temporal}."
        )
    unit = spatial * PATCH
    for name, value in (("height", height), ("width", width)):
        if value < unit or value % unit:
            nearest = max(round(value / unit), 1) * unit
            raise ValueError(f"{name} is {value} px; it must be a multiple of {unit}: {nearest}.")


def num_latent_frames(num_frames: int, *, temporal: int = 6) -> int:
    """Latent frames of a clip: 73 -> 13."""
    return (num_frames - 1) // temporal + 1


def latent_shape(
    num_frames: int, height: int, width: int, *, channels: int = 12
) -> tuple[int, int, int, int]:
    """``(C, T, H, W)`` of a clip's latents: 73x480x848 -> 12x13x60x106."""
    return channels, num_latent_frames(num_frames), height // 8, width // 8
