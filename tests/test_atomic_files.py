import errno
import json
import os
import pickle
import resource
from functools import partial

import pytest
import torch
from safetensors import SafetensorError

from musicinfuser.atomic_files import (
    atomic_file,
    atomic_folder,
    write_json_lines,
    write_text,
)
from musicinfuser.errors import UserError, WriteError, user_error, write_error
from musicinfuser.media.video_writing import write_video
from musicinfuser.safetensors_files import save_tensors


def test_files_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "table.md"
    write_text(path, "first")
    write_text(path, "second")
    assert path.read_text() == "second"
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "second"
    assert [file.name for file in path.parent.iterdir()] == ["table.md"]


def test_a_failure_leaves_no_trace(tmp_path):
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "clip.mp4") as temporary:
        temporary.write_bytes(b"half")
        assert temporary.suffix == ".mp4"
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_json_lines_keep_letters_and_line_breaks_apart(tmp_path):
    rows = [{"file": "踊り\n.mp4"}, {"file": "b", "count": 2}]
    write_json_lines(tmp_path / "rows.jsonl", rows)
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows
    assert "踊り" in lines[0]


def full(*_, code=errno.ENOSPC, **__):
    raise OSError(code, os.strerror(code))


WRITERS = {
    "text": lambda path: write_text(path, "text"),
    "rows": lambda path: write_json_lines(path, [{"a": 1}]),
    "tensors": lambda path: save_tensors({"a": torch.zeros(2)}, path),
    "video": lambda path: write_video(path, torch.zeros(2, 32, 32, 3).byte(), fps=30),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(tmp_path, monkeypatch, kind, code):
    path = tmp_path / "a.mp4"
    path.write_text("old")
    monkeypatch.setattr("os.replace", partial(full, code=code))
    with pytest.raises(WriteError) as caught:
        WRITERS[kind](path)
    reason = os.strerror(code)
    expected = f"{path}: cannot be written ({reason}); make room, then repeat the command."
    assert str(caught.value) == expected
    assert isinstance(caught.value, UserError) and caught.value.errno == code
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
    assert path.read_text() == "old"


def test_what_libraries_make_of_a_full_disk(tmp_path):
    path = tmp_path / "a"
    texts = "I/O error: No space left on device (os error 28)"
    for error in (SafetensorError(f"Error while serializing: {texts}"), RuntimeError("in writer")):
        error.__context__ = OSError(errno.ENOSPC, "full") if type(error) is RuntimeError else None
        assert "No space left on device); make room" in str(write_error(error, path))
        with pytest.raises(WriteError, match="make room"), atomic_file(path) as temporary:
            temporary.write_text("half")
            raise error
    with (
        pytest.raises(WriteError, match="Read-only file system.; name a folder"),
        atomic_folder(tmp_path / "folder") as temporary,
    ):
        (temporary / "a").touch()
        full(code=errno.EROFS)
    with (
        pytest.raises(WriteError, match=rf"{tmp_path}/folder: cannot"),
        atomic_folder(tmp_path / "folder") as temporary,
    ):
        with atomic_file(temporary / "part") as _:
            full()
    assert list(tmp_path.iterdir()) == []


def test_only_refusals_to_write_are_named_so(tmp_path):
    other = PermissionError(errno.EACCES, "Permission denied", "/elsewhere/read.txt")
    with pytest.raises(PermissionError), atomic_file(tmp_path / "a"):
        raise other
    own = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / ".b"))
    with pytest.raises(WriteError, match="Permission denied"), atomic_file(tmp_path / "a"):
        raise own
    assert write_error(ValueError("int"), tmp_path) is None


def test_a_full_disk_of_a_library_is_for_users_too():
    found = user_error(OSError(errno.ENOSPC, "No space left on device", "/logs/events"))
    assert str(found).startswith("/logs/events: cannot be written (No space left on device); make")
    assert user_error(OSError(errno.ENOENT, "none", "/logs/events")) is None
    assert user_error(ValueError("int")) is None


@pytest.mark.parametrize("kind", WRITERS)
def test_a_write_that_the_system_refuses_midway(tmp_path, kind):
    large = {
        "text": lambda path: write_text(path, "text" * 9_000),
        "rows": lambda path: write_json_lines(path, [{"a": 1}] * 9_000),
        "tensors": lambda path: save_tensors({"a": torch.zeros(9_000)}, path),
        "video": lambda path: write_video(path, torch.randint(255, (60, 64, 64, 3)).byte(), fps=30),
    }
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(WriteError) as caught:
            large[kind](tmp_path / "a.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(caught.value) == (
        f"{tmp_path}/a.mp4: cannot be written (File too large); make room, then repeat the command."
    )
    assert list(tmp_path.iterdir()) == []


def test_data_are_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    done, sync, replace = [], os.fsync, os.replace

    def watched_sync(descriptor):
        done.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    def watched_replace(source, target):
        done.append(str(target))
        replace(source, target)

    monkeypatch.setattr("os.fsync", watched_sync)
    monkeypatch.setattr("os.replace", watched_replace)
    path, folder = tmp_path / "a.txt", tmp_path / "folder"
    write_text(path, "text")
    assert done == [path.stat().st_ino, str(path), tmp_path.stat().st_ino]
    done.clear()
    with atomic_folder(folder) as temporary:
        (temporary / "part").mkdir()
        (temporary / "part" / "b.txt").write_text("text")
    inside = {p.stat().st_ino for p in (folder, folder / "part", folder / "part" / "b.txt")}
    assert set(done[:3]) == inside
    assert done[3:] == [str(folder), tmp_path.stat().st_ino]
