import weakref
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from musicinfuser.safetensors_files import (
    StoredTensor,
    WeightsFileError,
    read_header,
    save_tensors,
    stream_tensors,
)


def test_tensors_and_metadata_come_back(tmp_path):
    tensors = {
        "half": torch.randn(3, 4).bfloat16(),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "strided": torch.arange(10)[::2],
        "empty": torch.zeros(0, 5),
    }
    path = tmp_path / "new" / "folder" / "x.safetensors"
    save_tensors(tensors, path, metadata={"version": "2"})
    loaded = load_file(path)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
    with safe_open(str(path), "pt") as file:
        assert file.metadata() == {"version": "2"}
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors({"a": torch.ones(2)}, path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_tensors({"a": torch.ones(2)}, path, metadata={"version": 2})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_header_says_what_is_in_a_file(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(2, 3, dtype=torch.bfloat16), "b": torch.zeros(())}
    save_tensors(tensors, tmp_path / "x.safetensors", metadata={"by": "a test"})
    assert read_header(tmp_path / "x.safetensors") == {
        "a": StoredTensor("BF16", (2, 3)),
        "b": StoredTensor("F32", ()),
    }
    stored = StoredTensor("BF16", (2, 3))
    assert (stored.num_values, stored.num_bytes) == (6, 12)
    assert StoredTensor("F32", ()).num_bytes == 4 and StoredTensor("BOOL", (3,)).num_bytes == 3


@pytest.mark.parametrize(
    ("num_bytes", "message"),
    [
        (-1, r"not fully covered.*not copied or downloaded whole"),
        (40, "cannot be read as safetensors .*invalid header length.*downloaded whole"),
        (3, "cannot be read as safetensors .*header too small.*downloaded whole"),
        (0, "cannot be read as safetensors .*header too small.*downloaded whole"),
    ],
)
def test_a_file_that_is_broken_off(tmp_path: Path, num_bytes: int, message: str) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors({"a": torch.zeros(5)}, path)
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(WeightsFileError, match=message):
        read_header(path)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes((30).to_bytes(8, "little") + b"x" * 30)
    for wrong in (path, tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(WeightsFileError, match="cannot be read as safetensors"):
            read_header(wrong)


def test_streams_tensors_with_one_in_memory(tmp_path: Path) -> None:
    alive: list[weakref.ref] = []
    values = {
        "b": torch.arange(6).view(2, 3).bfloat16(),
        "a": torch.tensor(1.5),
        "c": torch.ones(3, dtype=torch.int64),
    }

    def maker(name: str):
        def make() -> torch.Tensor:
            assert all(ref() is None for ref in alive)
            tensor = values[name].clone()
            alive.append(weakref.ref(tensor))
            return tensor

        return make

    save_tensors(values, tmp_path / "plain.safetensors")
    header = read_header(tmp_path / "plain.safetensors")
    plan = {name: (header[name], maker(name)) for name in values}
    stream_tensors(plan, tmp_path / "streamed.safetensors", metadata={"format": "pt"})
    assert len(alive) == 3
    found = load_file(tmp_path / "streamed.safetensors")
    assert found.keys() == values.keys()
    for name, tensor in values.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
    plan["b"] = (header["b"], lambda: torch.ones(2, 2, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="b was announced as"):
        stream_tensors(plan, tmp_path / "wrong.safetensors")
    assert not (tmp_path / "wrong.safetensors").exists()


def test_who_may_read_new_files_may_read_these(tmp_path: Path) -> None:
    """The format's own writer keeps its files to the user."""
    (tmp_path / "plain").write_text("")
    save_tensors({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    modes = {name: (tmp_path / name).stat().st_mode for name in ("plain", "a.safetensors")}
    assert modes["a.safetensors"] == modes["plain"]
