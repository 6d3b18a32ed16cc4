"""``train.py check`` of the encoding job finds what would go wrong, and writes nothing."""

import shutil
from pathlib import Path

from musicinfuser.media.latents import clip_paths
from preflight import Report
from tests.audio_encoders import write_audio_encoder
from tests.conftest import encode_arguments
from train import main


def encoding(small_parts: Path, media: Path, cache: Path, *arguments: str) -> Report:
    given = encode_arguments(small_parts, media, cache)
    return main(["check", *given[1:], *arguments]).report


def test_encoding(small_parts: Path, media: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    report = encoding(small_parts, media, tmp_path / "new" / "cache")
    assert report.problems == []
    text = dict(report.sections)
    assert list(text) == ["weights", "sources", "cache so far", "disk", "memory (an estimate)"]
    assert text["weights"].count("as expected") == 3
    aist = next(line for line in text["sources"].splitlines() if "| aist" in line)
    assert [request.strip() for request in aist.split("|")][4:7] == ["8", "5", "3"]
    assert "11 x " in text["disk"]
    assert set(tmp_path.rglob("*")) == before, "nothing is written"


def test_encoding_goes_on_from_what_is_there(
    small_parts: Path, media: Path, small_cache: Path, tmp_path: Path
) -> None:
    cache = Path(shutil.copytree(small_cache, tmp_path / "cache"))
    clip_paths(cache)[0].unlink()
    report = encoding(small_parts, media, cache)
    assert report.problems == []
    assert "1 x " in dict(report.sections)["disk"]
    report = encoding(small_parts, media, cache, "--data.init_args.audio_channel=first")
    assert any("was made otherwise (audio_channel: mean, not first)" in p for p in report.problems)


def test_encoding_with_everything_wrong(small_parts: Path, tmp_path: Path) -> None:
    report = encoding(
        small_parts,
        tmp_path / "media",
        tmp_path / "cache",
        f"--model.init_args.encoders.audio={tmp_path}/none",
    )
    folders = ("media/aist", "media/youtube")
    for folder in folders:
        assert sum(f"{folder} is not a folder" in p for p in report.problems) == 1
    assert sum("none/audio_encoder does not exist" in p for p in report.problems) == 1


def test_encoding_with_other_audio_features(small_parts: Path, media: Path, tmp_path: Path) -> None:
    """Neither the files nor the width of wav2vec 2.0 are asked for where nothing reads them."""
    encoder = write_audio_encoder(tmp_path / "encoder" / "audio_encoder", "wavlm")
    for change in (f"audio={encoder.parent}", "audio_features=log_mel"):
        option = f"--model.init_args.encoders.{change}"
        nowhere = "--model.init_args.encoders.audio=/no/such/folder"
        more = (nowhere,) if "log_mel" in change else ()
        report = encoding(small_parts, media, tmp_path / "new" / "cache", *more, option)
        assert report.problems == []
        assert "11 x " in dict(report.sections)["disk"]
