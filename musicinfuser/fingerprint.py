"""Telling one set of weights from another without reading all of it."""

import hashlib
from pathlib import Path

_SAMPLES = 64
_SAMPLE_BYTES = 4096
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".json", ".model", ".txt")


def fingerprint_folder(folder: str | Path) -> str:
    """A short hash of a model folder: names and sizes of its files and samples of their bytes.

    Every file up to 256 KiB is read whole; of larger ones 64 spans of 4 KiB, first and last
    included.

    Raises:
        FileNotFoundError: The folder does not exist or holds no model file.
    """
    folder = Path(folder)
    files = sorted(p for p in folder.iterdir() if p.suffix in _WEIGHT_SUFFIXES and p.is_file())
    if not files:
        raise FileNotFoundError(f"{folder} holds no model files.")
    digest = hashlib.blake2b(digest_size=8)
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name}:{size};".encode())
        with path.open("rb") as file:
            if size <= _SAMPLES * _SAMPLE_BYTES:
                digest.update(file.read())
                continue
            for i in range(_SAMPLES):
                file.seek(i * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()
