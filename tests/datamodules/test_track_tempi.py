from pathlib import Path

import pytest

from dance_eval.metrics.music_beats import tempo_of
from datamodules.generation_requests import RequestsSpec, make_requests
from datamodules.track_tempi import TempoSpec


def spec(tracks: list[Path], tmp_path: Path, **changes) -> RequestsSpec:
    settings = {
        "music": [str(track) for track in tracks],
        "prompts": ["p"],
        "track_offset_seconds": 3.0,
        "tempo": TempoSpec(folder=f"{tmp_path}/tempi"),
    }
    return RequestsSpec(**(settings | changes))


def requests(given: RequestsSpec) -> list:
    return make_requests(given, num_frames=7, height=32, width=32)


def test_each_tempo_from_the_same_moment(tmp_path: Path) -> None:
    (tmp_path / "song.mp3").touch()
    found = requests(spec([tmp_path / "song.mp3"], tmp_path))
    assert [(tempo_of(c.track), c.track_offset_seconds) for c in found] == [
        (("song", 0.75), 4.0), (("song", 1.0), 3.0), (("song", 1.25), 2.4)
    ]  # fmt: skip
    assert found[1].track == str(tmp_path / "song.mp3")
    assert not (tmp_path / "tempi").exists()


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "song.mp3").touch()
    tracks = [tmp_path / "a" / "song.mp3", tmp_path / "b" / "song.mp3"]
    with pytest.raises(ValueError, match="two tracks are called song"):
        requests(spec(tracks, tmp_path))
    with pytest.raises(ValueError, match="give data.generation.track_offset_seconds a number"):
        requests(spec(tracks[:1], tmp_path, track_offset_seconds=None))
    with pytest.raises(ValueError, match=r"factors is \[0.1\]; give numbers from 0.5 to 2"):
        TempoSpec(folder="x", factors=[0.1])
    with pytest.raises(ValueError, match="data.generation.music is empty"):
        requests(spec([], tmp_path))
