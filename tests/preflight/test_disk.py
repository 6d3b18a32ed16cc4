from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from musicinfuser.clip_size import MOCHI
from musicinfuser.media.latents import clip_paths
from musicinfuser.networks.transformers_audio import TransformersAudio
from preflight.disk import (
    caption_bytes,
    check_checkpoints,
    clip_bytes,
    free_bytes,
    num_checkpoints,
)
from preflight.report import Report


def test_size_of_a_clip_at_full_size() -> None:
    """Mean and log variance of 12x13x60x106 in bf16, and 124 x 768 in fp32."""
    size = clip_bytes(
        73,
        480,
        848,
        fps=30.0,
        value_bytes=2,
        geometry=MOCHI,
        audio=TransformersAudio(),
    )
    assert size == pytest.approx(2 * 992_160 * 2 + 124 * 768 * 4, rel=0.01)


def test_size_of_a_clip_is_that_of_its_file(small_cache: Path, small_parts: Path) -> None:
    expected = clip_bytes(
        7,
        32,
        32,
        fps=30.0,
        value_bytes=4,
        geometry=MOCHI,
        audio=TransformersAudio(str(small_parts), "audio_encoder"),
    )
    for path in clip_paths(small_cache):
        assert expected - 8_192 < path.stat().st_size <= expected


def test_captions_never_take_more_than_is_said(small_cache: Path) -> None:
    stored = [p.stat().st_size for p in small_cache.glob("captions/*.safetensors")]
    assert stored
    at_most = caption_bytes(["x" * 300] * len(stored), width=64, value_bytes=4, max_tokens=256)
    assert sum(stored) <= at_most
    assert caption_bytes(["ab"], width=64, value_bytes=4, max_tokens=256) == 3 * 64 * 4 + 8_192


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"every_n_train_steps": 250, "save_top_k": -1, "save_last": True}, 17),
        ({"every_n_train_steps": 250, "save_top_k": -1}, 16),
        ({"every_n_train_steps": 250, "save_top_k": 1, "save_last": True}, 2),
        ({"save_top_k": 3, "monitor": "val/loss"}, 3),
        ({"every_n_train_steps": 250, "save_top_k": 0, "save_last": "link"}, 0),
    ],
)
def test_number_of_checkpoints(options: dict, expected: int) -> None:
    assert num_checkpoints(ModelCheckpoint(**options), 4000) == expected


def test_free_space_is_that_of_the_next_folder_that_is_there(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not" / "there") > 0


def lines(tmp_path: Path, report: Report) -> list[str]:
    callback = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=1, save_top_k=-1)
    return check_checkpoints(
        [object(), callback],
        num_trained=1_000_000,
        num_averages=1,
        max_steps=10,
        root=tmp_path,
        report=report,
    )


def test_checkpoints_need_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preflight.disk.free_bytes", lambda path: 150_000_000)
    report = Report()
    assert "checkpoints: 10 x 0.016 GB in" in lines(tmp_path, report)[0]
    assert report.problems == [
        f"10 checkpoints need 0.2 GB more in {tmp_path}, where 0.1 GB are free; make room, keep "
        "fewer, or name another disk."
    ]
    (tmp_path / "a.ckpt").write_bytes(bytes(20_000_000))
    report = Report()
    assert "0.020 GB there already" in lines(tmp_path, report)[0]
    assert not report.problems, "what is there need not be written again"


def test_no_checkpoints(tmp_path: Path) -> None:
    found = check_checkpoints(
        [], num_trained=1, num_averages=0, max_steps=1, root=tmp_path, report=Report()
    )
    assert found == ["checkpoints: none (no ModelCheckpoint among trainer.callbacks)"]
