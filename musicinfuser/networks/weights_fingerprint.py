"""Telling one network's weights from another's, whatever files hold them."""

import hashlib
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from musicinfuser.errors import UserError
from musicinfuser.fingerprint import weights_files
from musicinfuser.safetensors_files import read_tensors

_READ_WHOLE = 16_000_000
_SPANS, _SPAN_VALUES = 8, 64
UNUSED = {"masked_spec_embed"}
"""Drawn anew by transformers where a file lacks it; only its own pretraining uses it."""
_OLD_WEIGHT_NORM = {
    ".weight_g": ".parametrizations.weight.original0",
    ".weight_v": ".parametrizations.weight.original1",
}


def fingerprint_weights(tensors: Mapping[str, Tensor], *, prefix: str = "") -> str | None:
    """A short hash of a network's weights, whatever files, precision or head they come with.

    Names, shapes and values count, these rounded to bfloat16; so a network that was saved again,
    split or stored with fewer digits is the same one. Of networks of more than 16 million values up
    to 512 of each tensor are read: training changes all of them. None where there are no values
    (tensors on the meta device); ``prefix`` as in `bare_names`.
    """
    digest = hashlib.blake2b(digest_size=8)
    names = bare_names(tensors, prefix)
    is_small = sum(tensors[name].numel() for name in names.values()) <= _READ_WHOLE
    for name in sorted(names):
        tensor = tensors[names[name]].detach()
        if tensor.is_meta:
            return None
        digest.update(f"{name}{tuple(tensor.shape)};".encode())
        values = tensor.flatten()
        values = (values if is_small else _spans(values)).to("cpu")
        if values.is_floating_point():
            values = values.bfloat16().view(torch.int16)
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def bare_names(names: Iterable[str], prefix: str = "") -> dict[str, str]:
    """The names a network has in memory, each with the one it is stored under.

    Args:
        names: As stored: perhaps with a head, or with the names of torch's old weight norm.
        prefix: What names start with in files of a network with a head, ``wav2vec2.``; where any
            does, all others belong to the head.
    """
    stored = {name: name for name in names}
    if prefix and any(name.startswith(prefix) for name in stored):
        stored = {n.removeprefix(prefix): n for n in stored if n.startswith(prefix)}
    for old, new in _OLD_WEIGHT_NORM.items():
        stored = {n.removesuffix(old) + new if n.endswith(old) else n: s for n, s in stored.items()}
    return {bare: name for bare, name in stored.items() if bare not in UNUSED}


def mapped_weights(folder: str | Path) -> dict[str, Tensor]:
    """The tensors of a model folder of diffusers or transformers, memory-mapped.

    Raises:
        UserError: It holds no weights, or they cannot be read.
    """
    files = weights_files(Path(folder))
    if not files:
        raise UserError(f"{folder} holds no weights; get the part again.")
    tensors: dict[str, Tensor] = {}
    try:
        for path in files:
            if path.suffix == ".safetensors":
                tensors |= read_tensors(path)[0]
            else:
                tensors |= torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{folder} holds weights that cannot be read ({error}); get the part again."
        ) from error
    return tensors


def _spans(values: Tensor) -> Tensor:
    """All of ``(n,)``, or eight spans of 64, first and last included."""
    if len(values) <= _SPANS * _SPAN_VALUES:
        return values
    starts = torch.arange(_SPANS) * (len(values) - _SPAN_VALUES) // (_SPANS - 1)
    return torch.cat([values[i : i + _SPAN_VALUES] for i in starts.tolist()])
