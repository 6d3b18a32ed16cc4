import json

import pytest

from musicinfuser.whole_files import write_json_lines, write_text, written_whole


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


def test_json_lines_keep_letters_and_line_breaks_apart(tmp_path):
    rows = [{"file": "踊り\n.mp4"}, {"file": "b", "count": 2}]
    write_json_lines(tmp_path / "rows.jsonl", rows)
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows
    assert "踊り" in lines[0]
