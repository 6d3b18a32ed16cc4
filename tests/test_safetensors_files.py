import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from musicinfuser.safetensors_files import save_tensors


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
