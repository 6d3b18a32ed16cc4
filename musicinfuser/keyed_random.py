"""Random streams named by what they are for, so that no draw depends on rank, order or history."""

import hashlib
from collections.abc import Iterable, Sequence

import torch


def key(seed: int, index: int | str, purpose: str) -> int:
    """Hash (seed, index, purpose) to a 63-bit generator seed."""
    digest = hashlib.blake2b(f"{seed}/{index}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(
    seed: int, index: int | str, purpose: str, *, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A fresh generator whose stream is a pure function of its key.

    Args:
        seed: The run's seed.
        index: Global sample index (counted over steps, accumulation and ranks), optimizer step,
            or a stable name. Never a rank.
        purpose: What the draw is for, e.g. ``"sigma"``.
        device: Where the stream is drawn. Streams differ between CPU and CUDA.
    """
    return torch.Generator(device).manual_seed(key(seed, index, purpose))


def uniform(seed: int, indices: Iterable[int], purpose: str) -> torch.Tensor:
    """Numbers from 0 to 1, ``(len(indices),)`` on the CPU, each from its own stream."""
    streams = (generator(seed, index, purpose) for index in indices)
    return torch.stack([torch.rand((), generator=s) for s in streams])


def normal(
    seed: int,
    indices: Iterable[int],
    purpose: str,
    shape: Sequence[int],
    *,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Gaussian noise ``(len(indices), *shape)``, each row from its own stream."""
    streams = (generator(seed, index, purpose, device=device) for index in indices)
    return torch.stack([torch.randn(*shape, generator=s, device=device) for s in streams])
