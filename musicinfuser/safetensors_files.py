"""Safetensors files that are written whole or not at all."""

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from musicinfuser.whole_files import written_whole


def save_tensors(
    tensors: dict[str, Tensor], path: str | Path, *, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors to ``path``."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with written_whole(path) as temporary:
        save_file(contiguous, temporary, metadata=metadata)
