import json
import unicodedata
from collections import Counter

import pytest

from datamodules.aist import AIST_TEMPLATES, aist_caption, dancers_text, draw_template
from datamodules.aist_names import parse_name
from datamodules.captions import (
    find_caption,
    find_caption_tables,
    read_caption_table,
    read_captions,
)
from datamodules.folders import file_key


def test_dancers_are_named_one_by_one():
    assert dancers_text(["female"]) == "a professional female dancer"
    assert (
        dancers_text(["female", "male"])
        == "a professional female dancer and a professional male dancer"
    )
    assert dancers_text(["male", "female", "male"]) == (
        "a professional male dancer, a professional female dancer and a professional male dancer"
    )


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (
            0,
            "a professional male dancer dancing Break in a basic dance setting in a studio with a"
            " white backdrop, captured from a front view",
        ),
        (
            1,
            "a front view video of a professional male dancer performing Break choreography against"
            " a white background in a basic dance scene",
        ),
        (
            2,
            "a professional male dancer executing Break movements in a minimalist studio space in a"
            " basic dance setting, shot from a front view",
        ),
        (
            3,
            "a Break dance performance by a professional male dancer in a pristine white studio,"
            " front view, basic dance",
        ),
    ],
)
def test_the_four_sentences_of_table_8(index, expected):
    name = parse_name("gBR_sBM_c01_d04_mBR0_ch01.mp4")
    assert aist_caption(name, template_index=index) == expected


def test_a_group_is_named_dancer_by_dancer():
    name = parse_name("gLO_sGR_c10_d13_d14_d15_mLO0_ch07.mp4")
    assert aist_caption(name, template_index=0) == (
        "a professional female dancer, a professional male dancer and a professional female dancer"
        " dancing Lock in a group dance setting in a studio with a white backdrop, captured from a"
        " moving front view"
    )


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("sSH_c01_v0.mp4", "a group of professional dancers dancing in a showcase setting in"),
        (
            "sBT_c01_v5.mp4",
            "a professional male dancer and a professional male dancer dancing in a battle setting",
        ),
        ("sBT_c01_v9.mp4", "a group of professional dancers dancing in a battle setting in"),
    ],
)
def test_names_without_a_genre_have_a_sentence_too(text, start):
    assert aist_caption(parse_name(text), template_index=2).startswith(start)


def test_templates_are_drawn_evenly_and_by_key():
    ids = [f"clip{number}" for number in range(400)]
    draws = [draw_template(clip_id, seed=7) for clip_id in ids]
    assert draws == [draw_template(clip_id, seed=7) for clip_id in ids]
    assert draws != [draw_template(clip_id, seed=8) for clip_id in ids]
    counts = Counter(draws)
    assert sorted(counts) == list(range(len(AIST_TEMPLATES)))
    assert min(counts.values()) > 70  # 100 expected, standard deviation 8.7


def test_file_key_joins_spellings_of_one_name():
    decomposed = unicodedata.normalize("NFD", "Brücke/été.mp4")
    assert decomposed != "Brücke/été.mp4"
    assert file_key(decomposed) == file_key("./Brücke\\été.mp4") == "Brücke/été.mp4"


def test_reads_jsonl(tmp_path):
    rows = [
        {"file": "a b.mp4", "caption": " one\u2028line "},
        {"file": "sub/é.mp4", "caption": "two", "extra": 1},
        {"file": "c.mp4", "caption": " "},
        {"file": "a b.mp4", "caption": "one\u2028line"},
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path = tmp_path / "captions.jsonl"
    path.write_text("\n\n".join(lines) + "\n", "utf-8")
    assert read_caption_table(path) == {"a b.mp4": "one\u2028line", "sub/é.mp4": "two"}


def test_reads_csv_with_byte_order_mark_and_line_breaks(tmp_path):
    path = tmp_path / "captions.csv"
    path.write_text(
        'file,caption\r\na.mp4,"one, and\nmore"\r\n日本.mp4,two\r\n', "utf-8-sig", newline=""
    )
    assert read_caption_table(path) == {"a.mp4": "one, and\nmore", "日本.mp4": "two"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", '{"file": "a.mp4"}', "line 1: each entry needs"),
        ("t.jsonl", '\n["a.mp4", "x"]', "line 2: must be one JSON object"),
        ("t.jsonl", "{file", "line 1: not JSON"),
        ("t.csv", "file,text\na.mp4,x\n", "line 1: names the columns file, text; there must be"),
        ("t.csv", "file,caption\na.mp4\n", "line 2: has 1 values for 2 columns"),
        ("t.csv", "file,caption\n,x\n", "line 2: each entry needs"),
        ("t.csv", "file,caption\na.mp4,x\n./a.mp4,y\n", "line 3: './a.mp4' already has another"),
        ("t.txt", "a", "must end in .jsonl or .csv"),
    ],
)
def test_a_faulty_table_is_refused_with_its_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content, "utf-8")
    with pytest.raises(ValueError, match=message):
        read_caption_table(path)


def test_a_missing_or_non_utf8_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match="none.csv cannot be read"):
        read_caption_table(tmp_path / "none.csv")
    (tmp_path / "t.csv").write_bytes("file,caption\na.mp4,été\n".encode("latin-1"))
    with pytest.raises(ValueError, match="cannot be read as UTF-8"):
        read_caption_table(tmp_path / "t.csv")


def row(file, caption):
    return json.dumps({"file": file, "caption": caption}) + "\n"


def test_finds_one_table_and_refuses_two(tmp_path):
    assert find_caption_tables(tmp_path, "auto") == []
    (tmp_path / "captions.csv").touch()
    assert find_caption_tables(tmp_path, "auto") == [tmp_path / "captions.csv"]
    (tmp_path / "captions.jsonl").touch()
    with pytest.raises(ValueError, match="both"):
        find_caption_tables(tmp_path, "auto")


def test_a_folder_of_tables_is_read_as_one(tmp_path):
    folder = tmp_path / "captions"
    folder.mkdir()
    assert find_caption_tables(tmp_path, "auto") == []
    with pytest.raises(ValueError, match="captions holds no table of captions"):
        find_caption_tables(tmp_path, folder)
    (folder / "captions_rank1_0000.jsonl").write_text(row("b.mp4", "two"))
    (folder / "captions_rank0_0000.jsonl").write_text(row("a.mp4", "one"))
    (folder / "skipped_rank0.jsonl").write_text('{"file": "c.mp4", "reason": "broken"}\n')
    (tmp_path / "captions.csv").write_text("file,caption\na.mp4,by hand\n")
    names = [path.name for path in find_caption_tables(tmp_path, "auto")]
    assert names == ["captions.csv", "captions_rank0_0000.jsonl", "captions_rank1_0000.jsonl"]
    assert read_captions(tmp_path, "auto") == {"a.mp4": "by hand", "b.mp4": "two"}
    assert read_captions(tmp_path, str(folder)) == {"a.mp4": "one", "b.mp4": "two"}
    several = [str(folder), "auto", str(tmp_path / "captions.csv")]
    assert read_captions(tmp_path, several) == {"a.mp4": "one", "b.mp4": "two"}


def test_a_text_counts_more_than_the_tables(tmp_path):
    table = {"sub/é.mp4": "from the table"}
    video = tmp_path / "sub" / unicodedata.normalize("NFD", "é.mp4")
    assert find_caption(video, tmp_path, table) == "from the table"
    assert find_caption(tmp_path / "other.mp4", tmp_path, table) == ""
    video.parent.mkdir()
    video.with_suffix(".txt").write_text(" from beside \n")
    assert find_caption(video, tmp_path, table) == "from beside"


def test_text_beside_a_video(tmp_path):
    (tmp_path / "my dance.v2.txt").write_text("\ufeff a dancer \n", "utf-8")
    assert find_caption(tmp_path / "my dance.v2.mp4", tmp_path, {}) == "a dancer"
    assert find_caption(tmp_path / "other.mp4", tmp_path, {}) == ""
