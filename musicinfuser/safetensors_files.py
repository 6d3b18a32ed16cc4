"""Safetensors files: written whole or not at all, and described without reading their weights."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from musicinfuser.atomic_files import atomic_file
from musicinfuser.errors import UserError


class WeightsFileError(UserError):
    """A file of weights is missing, broken off, or no safetensors file."""


@dataclass(frozen=True)
class StoredTensor:
    """What a header says of a tensor."""

    dtype: str
    """As the format writes it: ``BF16``, ``F32``, ..."""
    shape: tuple[int, ...]

    @property
    def num_values(self) -> int:
        """Product of the shape."""
        return prod(self.shape)

    @property
    def value_bytes(self) -> int:
        """Of one value, which the type's name says in bits."""
        bits = re.search(r"\d+", self.dtype)
        return int(bits[0]) // 8 if bits else 1

    @property
    def num_bytes(self) -> int:
        """Of all values."""
        return self.value_bytes * self.num_values


def save_tensors(
    tensors: dict[str, Tensor], path: str | Path, *, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors to ``path``."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with atomic_file(path) as temporary:
        save_file(contiguous, temporary, metadata=metadata)


def stream_tensors(
    tensors: Mapping[str, tuple[StoredTensor, Callable[[], Tensor]]],
    path: str | Path,
    *,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write tensors that are made one after the other, with one in memory at a time.

    Args:
        tensors: By name what the header says of each, and what makes it.
        path: The file; written whole or not at all.
        metadata: For the header.

    Raises:
        ValueError: A tensor is not what was announced.
    """
    # Wide types first, as the format's own writer does: every tensor is then aligned.
    plan = {name: stored for name, (stored, _) in tensors.items()}
    order = sorted(plan, key=lambda n: (-plan[n].value_bytes, n))
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name in order:
        first, end = end, end + plan[name].num_bytes
        about = {"dtype": plan[name].dtype, "shape": list(plan[name].shape)}
        header[name] = about | {"data_offsets": [first, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            stored, make = tensors[name]
            tensor = make().contiguous()
            content = tensor.reshape(-1).view(torch.uint8).numpy()
            if tensor.shape != stored.shape or content.nbytes != stored.num_bytes:
                raise ValueError(f"{name} was announced as {stored}, but is {tuple(tensor.shape)}.")
            file.write(content.data)
            del tensor, content  # before the next one is made


def opened(path: str | Path) -> Any:
    """A file whose tensors are read when they are asked for: `safetensors.safe_open`, for ``with``.

    Raises:
        WeightsFileError: No such file, not of this format, or not as long as its header says.
    """
    try:
        return safe_open(str(path), "pt")
    except (OSError, SafetensorError) as error:
        raise WeightsFileError(
            f"{path} cannot be read as safetensors ({error}): it is something else, or was not "
            "copied or downloaded whole; get it again."
        ) from error


def read_header(path: str | Path) -> dict[str, StoredTensor]:
    """Names, types and shapes in a file; of the file only the header is read; as `opened`."""
    with opened(path) as file:
        parts = {name: file.get_slice(name) for name in file.keys()}
        return {n: StoredTensor(p.get_dtype(), tuple(p.get_shape())) for n, p in parts.items()}


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file; errors as `opened`."""
    with opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
