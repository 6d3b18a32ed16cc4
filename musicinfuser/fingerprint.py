"""Telling one set of weights from another without reading all of it."""

import hashlib
import re
from pathlib import Path

WHOLE_BYTES = 256 * 2**20
_SAMPLES = 64
_SAMPLE_BYTES = 4096
# The weights that are loaded by default: no variants such as ``model.fp16.safetensors``.
_WEIGHTS = r"(diffusion_pytorch_model|model|pytorch_model)(-\d+-of-\d+)?"


def fingerprint_folder(folder: str | Path) -> str:
    """A short hash of a model folder: its config and its weights, wherever they were downloaded to.

    Names and sizes count, and bytes: files up to 256 KiB are read whole, of larger ones 64 spans
    of 4 KiB, first and last included. Files of no consequence for the weights do not count.

    Raises:
        FileNotFoundError: The folder does not exist or holds no model file.
    """
    folder = Path(folder)
    config = folder / "config.json"
    files = [*([config] if config.is_file() else []), *weights_files(folder)]
    if not files:
        raise FileNotFoundError(f"{folder} holds no model files.")
    digest = hashlib.blake2b(digest_size=8)
    for path in files:
        digest.update(f"{path.name}:{path.stat().st_size};".encode())
        _add_samples(path, digest)
    return digest.hexdigest()


def weights_files(folder: Path) -> list[Path]:
    """The files of the weights that are loaded by default; none where there are none."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    for suffix in ("safetensors", "bin"):
        if found := [n for n in names if re.fullmatch(rf"{_WEIGHTS}\.{suffix}", n)]:
            return [folder / name for name in found]
    return []


def digest_file(path: Path) -> str:
    """A short hash of a file: all of it up to 256 MiB, of larger ones size and 64 spans of 4 KiB.

    Raises:
        OSError: It cannot be read.
    """
    size = path.stat().st_size
    if size <= WHOLE_BYTES:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
    digest = hashlib.blake2b(f"{size};".encode(), digest_size=8)
    _add_samples(path, digest)
    return digest.hexdigest()


def _add_samples(path: Path, digest: hashlib.blake2b) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _SAMPLES * _SAMPLE_BYTES:
            digest.update(file.read())
            return
        for i in range(_SAMPLES):
            file.seek(i * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
