import pytest

from musicinfuser.whole_files import write_text, written_whole


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
    with pytest.raises(RuntimeError), written_whole(tmp_path / "clip.mp4") as temporary:
        temporary.write_bytes(b"half")
        assert temporary.suffix == ".mp4"
        raise RuntimeError
    assert not list(tmp_path.iterdir())
