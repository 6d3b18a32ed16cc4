import json

import pytest

from musicinfuser.label_files import (
    LabelError,
    csv_rows,
    read_csv,
    read_json,
    read_json_lines,
    read_lines,
    read_text,
    read_yaml,
)


def refused(read, path, content: bytes | str) -> LabelError:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(LabelError) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


def captions(path):
    return read_csv(path, required=("file", "caption"), optional=("seed",))


def test_a_csv_file_as_spreadsheets_and_people_write_it(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(
        "\ufefffile, caption\r\n"
        'a.mp4,"one, and\r\nmore ""said"""\r\n'
        "\r\n,\r\n"
        'b.mp4, "two, too"\r\n'
        'c.mp4 ,a 6" step\u2028on\r\n'.encode()
    )
    assert captions(path) == [
        (2, {"file": "a.mp4", "caption": 'one, and\r\nmore "said"'}),
        (6, {"file": "b.mp4", "caption": "two, too"}),
        (7, {"file": "c.mp4", "caption": 'a 6" step\u2028on'}),
    ]
    assert [line for line, _ in csv_rows(path)] == [1, 2, 6, 7]


@pytest.mark.parametrize(
    ("rows", "line", "reason"),
    [
        ("a.mp4,one, two", 2, "has 3 values for 2 columns; put quotes around a text with commas"),
        ("a.mp4,one\nb.mp4", 3, "has 1 values for 2 columns"),
        ('a.mp4,one\nb.mp4,"two\nc.mp4,three\nd.mp4,four', 3, "opened here is never closed"),
        ('a.mp4,"one\nb.mp4,two"\n', 2, "a text goes on over the rows below"),
        ('a.mp4,"one\nb.mp4,"two"\n', 2, "text follows a closing quote"),
        (f'a.mp4,one\nb.mp4,"{"x" * 200_000}"', 3, "a value is too long"),
        ("a.mp4,one\nb.mp4,\0", 3, "holds zero bytes"),
    ],
)
def test_a_faulty_row_is_named(tmp_path, rows, line, reason):
    error = refused(captions, tmp_path / "t.csv", f"file,caption\n{rows}\n")
    assert error.line == line and reason in error.reason
    assert f"t.csv, line {line}: " in str(error)


@pytest.mark.parametrize(
    "text",
    [
        'caption,file\n"one,a.mp4\ntwo",b.mp4\nthree,c.mp4\n',
        'seed,file,caption\n1,a.mp4,"one\n2,b.mp4,two"\n',
        'file,caption\na.mp4,"one\nb.mov,two"\nc.MOV,three\n',
    ],
)
def test_rows_within_a_text_are_found_in_any_column(tmp_path, text):
    error = refused(captions, tmp_path / "t.csv", text)
    assert error.line == 2 and "a text goes on over the rows below" in error.reason


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ("", "names the columns (none); there must be file, caption, there may be seed, each once"),
        ("file,captoin", "each once; 'captoin' may be 'caption'."),
        ("file,caption,sead", "'sead' may be 'seed'"),
        ("file,caption,file", "columns file, caption, file;"),
        ("file,caption,", "each once"),
        ("file;caption", "put commas between them"),
        ("file\tcaption", "put commas between them"),
    ],
)
def test_columns_are_those_that_are_known(tmp_path, columns, reason):
    error = refused(captions, tmp_path / "t.csv", columns + "\n")
    assert error.line == 1 and reason in error.reason


def test_other_columns_may_be_there_where_that_is_said(tmp_path):
    (tmp_path / "t.csv").write_text("name,file\n1,a.mp4\n")
    row = {"name": "1", "file": "a.mp4"}
    assert read_csv(tmp_path / "t.csv", required=("file",), others=True) == [(2, row)]


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ("one\nété\n".encode("latin-1"), 2, "near 'one\\nété\\n'; if it is Latin-1"),
        ("one".encode("utf-16"), None, "it is UTF-16; save it as UTF-8"),
        ("one".encode("utf-16-be"), 1, "holds zero bytes, as UTF-16 does"),
        ("one".encode("utf-32"), None, "it is UTF-32"),
    ],
)
def test_other_encodings_are_named(tmp_path, content, line, reason):
    for read in (read_text, read_lines, captions, read_json, read_json_lines, read_yaml):
        error = refused(read, tmp_path / "text", content)
        assert error.line == line and reason in error.reason


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(LabelError, match=r"none cannot be read \(No such file or directory\)\."):
        read_text(tmp_path / "none")
    with pytest.raises(LabelError, match=r"cannot be read \(Is a directory\)\."):
        read_text(tmp_path)


def test_lines_and_marks(tmp_path):
    (tmp_path / "t").write_bytes(b"\xef\xbb\xbfa \r\n\r\n\xef\xbb\xbf b\n")
    assert read_lines(tmp_path / "t") == [(1, "a"), (3, "b")]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("{", "not JSON (Expecting property name"),
        ('{"a": NaN}', "not JSON (NaN is no number)"),
        ('{"a": -Infinity}', "is no number"),
        ('{"a": 1e999}', "not JSON (1e999 is no number)"),
        ('{"a": ' + "1" * 5000 + "}", "not JSON (Exceeds the limit"),
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
        (r'{"a": "\ud83d"}', "half of a surrogate pair"),
        (r'{"\udc00": 1}', "half of a surrogate pair"),
        ('{"a": ' + "[" * 200_000, "brackets are too deep"),
        ("[1]", "one JSON object, {...}."),
        ("null", "one JSON object, {...}."),
    ],
)
def test_json_that_is_none_is_named(tmp_path, value, reason):
    error = refused(read_json_lines, tmp_path / "t.jsonl", f'{{"a": 0}}\n\n{value}\n')
    assert error.line == 3 and reason in error.reason
    whole = refused(read_json, tmp_path / "t.json", value)
    assert reason in whole.reason and whole.line in (None, 1)


def test_json_keeps_all_texts(tmp_path):
    rows = [{"a": "one\u2028line\x85"}, {"a": "\U0001f57a", "b": 1.5}]
    (tmp_path / "t").write_text("\r\n".join(json.dumps(row) for row in rows), newline="")
    assert read_json_lines(tmp_path / "t") == [(1, rows[0]), (2, rows[1])]
    (tmp_path / "t").write_text("\ufeff" + json.dumps(rows[1], ensure_ascii=False), "utf-8")
    assert read_json(tmp_path / "t") == rows[1]


@pytest.mark.parametrize(
    ("text", "line"), [("a: 1\nb: [1\n", 3), ("a: 1\n\tb: 2", 2), ("[" * 20_000, None)]
)
def test_yaml_that_is_none_is_named(tmp_path, text, line):
    error = refused(read_yaml, tmp_path / "t.yaml", text)
    assert error.line == line and error.reason.startswith("cannot be read as YAML (")
