import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from callbacks import CaptionWriter
from datamodules.captions import read_captions
from datamodules.clips import SkippedClip
from lightning_modules.captioning import Caption


@pytest.fixture
def trainer(tmp_path: Path) -> SimpleNamespace:
    data = SimpleNamespace(tables=tmp_path / "captions", videos=[1, 2, 3], missing={1, 2})
    return SimpleNamespace(datamodule=data, global_rank=3)


def write(writer: CaptionWriter, trainer: SimpleNamespace, *results: object) -> None:
    writer.write_on_batch_end(trainer, None, list(results), None, None, 0, 0)


def test_tables_of_limited_length_each_whole_after_every_caption(
    trainer: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callbacks.prediction_writers.ROWS_PER_TABLE", 2)
    writer = CaptionWriter()
    for number in range(5):
        name = f"踊り {number}.mp4"
        write(writer, trainer, Caption(tmp_path / name, name, f"dancer\u2028{number}"))
        assert len(read_captions(tmp_path, "auto")) == number + 1
    tables = sorted(path.name for path in (tmp_path / "captions").iterdir())
    assert tables == [f"captions_rank3_{number:04}.jsonl" for number in range(3)]
    # The next run goes on after them.
    write(CaptionWriter(), trainer, Caption(tmp_path / "x.mp4", "x.mp4", "another"))
    assert (tmp_path / "captions" / "captions_rank3_0003.jsonl").is_file()
    assert read_captions(tmp_path, "auto")["踊り 4.mp4"] == "dancer\u20284"


def test_a_caption_is_that_of_the_video_that_was_seen(
    trainer: SimpleNamespace, tmp_path: Path
) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"one")
    write(CaptionWriter(), trainer, Caption(video, "a.mp4", "a man"))
    os.utime(video, (1, 1))
    assert read_captions(tmp_path, "auto") == {"a.mp4": "a man"}
    video.write_bytes(b"two")
    assert read_captions(tmp_path, "auto") == {}
    write(CaptionWriter(), trainer, Caption(video, "a.mp4", "a woman"))
    assert read_captions(tmp_path, "auto") == {"a.mp4": "a woman"}
    video.unlink()
    (table,) = (tmp_path / "captions").glob("*_0000.jsonl")
    assert read_captions(tmp_path, str(table)) == {"a.mp4": "a man"}, "there is no other video"


def test_videos_without_a_caption_are_listed(
    trainer: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    writer = CaptionWriter()
    write(writer, trainer, Caption(Path("/v/dull.mp4"), "dull.mp4", ""))
    write(writer, trainer, SkippedClip("youtube", Path("/v/b\n.mp4"), "cannot be read: no reason"))
    writer.teardown(trainer, None, "predict")
    listed = (tmp_path / "captions" / "skipped_rank3.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in listed] == [
        {"file": "/v/dull.mp4", "reason": "no caption: the model had nothing to say"},
        {"file": r"/v/b\n.mp4", "reason": "cannot be read: no reason"},
    ]
    printed = capsys.readouterr().out
    assert "captioned 0 videos, 1 had a caption already." in printed
    assert "skipped: no caption: 1" in printed
    assert r"  /v/b\n.mp4: cannot be read: no reason" in printed
