"""Safetensors files: written whole or not at all, and described without reading their weights."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from musicinfuser.atomic_files import atomic_file
from musicinfuser.errors import UserError

# The format's own limit.
MAX_HEADER_BYTES = 100_000_000


class WeightsFileError(UserError):
    """A file of weights is missing, broken off, or no safetensors file."""


@dataclass(frozen=True)
class StoredTensor:
    """What a header says of a tensor."""

    dtype: str
    """As the format writes it: ``BF16``, ``F32``, ..."""
    shape: tuple[int, ...]
    num_bytes: int

    @property
    def num_values(self) -> int:
        """Product of the shape."""
        return prod(self.shape)


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
    order = sorted(plan, key=lambda n: (-(plan[n].num_bytes // max(plan[n].num_values, 1)), n))
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


def read_header(path: str | Path) -> dict[str, StoredTensor]:
    """Names, types and shapes in a file; of the file only the header is read.

    Raises:
        WeightsFileError: No such file, not of this format, or shorter than its header says.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER_BYTES, max(size - 8, 0)):
                raise ValueError("its header is broken off")
            header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors, end = {}, 0
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            tensors[name] = StoredTensor(entry["dtype"], tuple(entry["shape"]), last - first)
            end = max(end, last)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsFileError(
            f"{path} cannot be read as safetensors ({error}); get it again."
        ) from error
    if size != 8 + length + end:
        raise WeightsFileError(
            f"{path} has {size} bytes, but its header says {8 + length + end}; it was not copied "
            "or downloaded whole, so get it again."
        )
    return tensors


def weights_files(folder: str | Path, stem: str) -> list[Path]:
    """The files that hold a model: those its index names, or the one called ``stem``.

    Args:
        folder: Folder of the model.
        stem: ``diffusion_pytorch_model`` (diffusers) or ``model`` (transformers).

    Raises:
        WeightsFileError: There is neither, or the index cannot be read.
    """
    folder = Path(folder)
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsFileError(
                f"{index} is not an index of weights ({error}); get it again."
            ) from error
        return [folder / name for name in names]
    if single.is_file():
        return [single]
    raise WeightsFileError(f"{folder} holds no weights: neither {single.name} nor {index.name}.")
