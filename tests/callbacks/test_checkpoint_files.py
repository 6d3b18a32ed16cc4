import errno
import os
import signal
from pathlib import Path

import pytest
import torch

from callbacks.checkpoint_files import (
    AtomicCheckpointIO,
    CheckpointError,
    checkpoints_in,
    newest_of,
    remove_unfinished,
)


def write(path: Path, step: int) -> Path:
    AtomicCheckpointIO().save_checkpoint({"global_step": step, "w": torch.ones(9_000)}, path)
    return path


def test_what_is_written_comes_back_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = write(tmp_path / "new" / "a.ckpt", 3)
    write(path, 4)
    loaded = AtomicCheckpointIO().load_checkpoint(path)
    assert loaded["global_step"] == 4
    assert torch.equal(loaded["w"], torch.ones(9_000))
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("where", ["write", "fsync"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch, where: str) -> None:
    path = write(tmp_path / "a.ckpt", 3)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if where == "fsync":
            patch.setattr(os, "fsync", full)
        else:
            patch.setattr(Path, "open", lambda self, mode: FullFile(self, "wb", full))
        expected = r"a\.ckpt could not be written \(No space left on device\); make room"
        with pytest.raises(CheckpointError, match=expected):
            write(path, 4)
    assert list(tmp_path.iterdir()) == [path]
    assert AtomicCheckpointIO().load_checkpoint(path)["global_step"] == 3


class FullFile:
    """A file on a disk that is full after the first bytes."""

    def __init__(self, path: Path, mode: str, full) -> None:
        self.file, self.full, self.size = open(path, mode), full, 0  # noqa: SIM115

    def __enter__(self) -> "FullFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data) -> int:
        self.size += len(data)
        if self.size > 10_000:
            self.full()
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()

    def fileno(self) -> int:
        return self.file.fileno()


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = write(tmp_path / "last.ckpt", 3)
    child = os.fork()
    if child == 0:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        write(path, 4)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    [unfinished] = set(tmp_path.iterdir()) - {path}
    assert unfinished.stat().st_size > 30_000
    assert newest_of(checkpoints_in(tmp_path)) == (path, {})
    assert AtomicCheckpointIO().load_checkpoint(path)["global_step"] == 3
    other = tmp_path / ".mine.ckpt"
    other.touch()
    remove_unfinished(tmp_path)
    assert set(tmp_path.iterdir()) == {path, other}


def test_the_highest_step_counts_not_name_or_time(tmp_path: Path) -> None:
    assert newest_of(checkpoints_in(tmp_path)) == (None, {})
    assert newest_of(checkpoints_in(tmp_path / "none")) == (None, {})
    newest = write(tmp_path / "a.ckpt", 10)
    write(tmp_path / "z.ckpt", 9)
    write(tmp_path / "last.ckpt", 9)
    assert newest_of(checkpoints_in(tmp_path)) == (newest, {})
    last = write(tmp_path / "last.ckpt", 10)
    assert newest_of(checkpoints_in(tmp_path)) == (last, {})


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign"])
def test_damaged_files_are_passed_over(tmp_path: Path, damage: str) -> None:
    good = write(tmp_path / "good.ckpt", 5)
    bad = write(tmp_path / "last.ckpt", 6)
    content = bytearray(bad.read_bytes())
    if damage == "foreign":
        torch.save({"weights": torch.ones(3)}, bad)
    else:
        content[len(content) // 2] ^= 1
        length = {"empty": 0, "cut": len(content) - 1, "flipped": len(content)}[damage]
        bad.write_bytes(content[:length])
    newest, faults = newest_of(checkpoints_in(tmp_path))
    assert newest == good
    assert faults.keys() == {bad}
    if damage in ("empty", "cut"):
        with pytest.raises(CheckpointError, match=r"last\.ckpt cannot be read as a checkpoint \("):
            AtomicCheckpointIO().load_checkpoint(bad)
    if damage == "flipped":
        assert "is damaged" in faults[bad]


def test_a_missing_file_stays_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "none.ckpt")
