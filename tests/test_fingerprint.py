import os
import shutil

import pytest

from musicinfuser.fingerprint import fingerprint_folder

KIB = 1024


@pytest.fixture
def folder(tmp_path):
    """A small config and weights of 1 MiB, of which only spans are read."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"width": 3}')
    (folder / "model.safetensors").write_bytes(bytes(i % 251 for i in range(1024)) * KIB)
    return folder


def change_byte(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_depends_on_contents_alone(folder, tmp_path):
    first = fingerprint_folder(folder)
    assert len(first) == 16 and int(first, 16) >= 0
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(folder, copy)
    os.utime(copy / "config.json", (1, 1))
    (copy / "README.md").write_text("not a model file")
    (copy / "sub").mkdir()
    (copy / "sub" / "config.json").write_text("{}")
    assert fingerprint_folder(copy) == first
    assert fingerprint_folder(str(folder)) == first


@pytest.mark.parametrize("position", [0, 5, -1])
def test_every_byte_of_a_small_file_counts(folder, position):
    first = fingerprint_folder(folder)
    change_byte(folder / "config.json", position)
    assert fingerprint_folder(folder) != first


@pytest.mark.parametrize("position", [0, 4095, -4096, -1])
def test_both_ends_of_a_large_file_count(folder, position):
    first = fingerprint_folder(folder)
    change_byte(folder / "model.safetensors", position)
    assert fingerprint_folder(folder) != first


def test_spans_spread_over_a_large_file(folder):
    """64 spans of 4 KiB in 1 MiB are a quarter of it, evenly: no 16 KiB goes unseen."""
    first = fingerprint_folder(folder)
    path = folder / "model.safetensors"
    original = path.read_bytes()
    for start in range(0, KIB * KIB, 128 * KIB):
        path.write_bytes(original[:start] + bytes(17 * KIB) + original[start + 17 * KIB :])
        assert path.stat().st_size == KIB * KIB
        assert fingerprint_folder(folder) != first, start
    path.write_bytes(original)
    assert fingerprint_folder(folder) == first


def test_names_and_sizes_count(folder):
    first = fingerprint_folder(folder)
    weights = folder / "model.safetensors"
    weights.rename(folder / "model-00001-of-00001.safetensors")
    renamed = fingerprint_folder(folder)
    (folder / "model-00002-of-00002.safetensors").write_text("")
    assert len({first, renamed, fingerprint_folder(folder)}) == 3


def test_what_is_not_loaded_does_not_count(folder):
    first = fingerprint_folder(folder)
    for name in ("model.fp16.safetensors", "pytorch_model.bin", "vocab.json", "notes.txt"):
        (folder / name).write_text("something else")
    assert fingerprint_folder(folder) == first
    (folder / "model.safetensors").unlink()
    by_bin = fingerprint_folder(folder)
    change_byte(folder / "pytorch_model.bin", 0)
    assert len({first, by_bin, fingerprint_folder(folder)}) == 3


def test_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        fingerprint_folder(tmp_path / "missing")
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(FileNotFoundError, match="holds no model files"):
        fingerprint_folder(tmp_path)
