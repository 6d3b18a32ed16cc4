import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from callbacks import CacheWriter
from datamodules import EncodingDataModule
from datamodules.clips import ClipSpec, SkippedClip
from lightning_modules import ClipEncoder
from lightning_modules.encoding import EncodedClip
from musicinfuser.media.latents import (
    caption_path,
    clip_path,
    read_caption,
    read_clip,
    read_clip_header,
)
from musicinfuser.media.masks import mask_path, write_mask
from musicinfuser.networks.encoders import EncodersSpec
from tests.conftest import encode_arguments, write_moving_square
from tests.media.conftest import sine, write_media
from train import main

ALLOW_UPSCALING = (
    "--data.init_args.sources=[{{class_path: datamodules.YouTubeDataset, init_args: {{root: "
    "{}/youtube, allow_upscaling: true}}}}]"
)
SPEC = ClipSpec(
    source="youtube",
    clip_stem="clip",
    clip_id="clip.seg1",
    path=Path("/videos/踊る.mp4"),
    start_seconds=1.25,
    num_frames=7,
    height=32,
    width=32,
    crop="centre",
    caption="踊る人",
    base_caption="a dance video",
    music=None,
    split="train",
    attributes={"file": "踊る.mp4", "audio_padded_seconds": "0.040"},
)


def encoded(spec: ClipSpec = SPEC, value: float = 1.0) -> EncodedClip:
    return EncodedClip(
        spec=spec,
        latent_mean=torch.full((12, 2, 4, 4), value),
        latent_logvar=torch.full((12, 2, 4, 4), -value),
        audio=torch.full((14, 96), value),
    )


def dataset(*skipped: SkippedClip, num_not_selected: dict[str, int] | None = None) -> Any:
    return SimpleNamespace(
        source="aist",
        notes=[],
        skipped=skipped,
        num_not_selected=Counter(num_not_selected),
        num_shots_left_out=Counter(),
    )


@pytest.fixture
def world(small_parts: Path, tmp_path: Path) -> SimpleNamespace:
    """A trainer's two parts, and how a batch is handed to the writer."""
    module = ClipEncoder(
        EncodersSpec(str(small_parts), str(small_parts), "audio_encoder", dtype="float32")
    )
    data = EncodingDataModule(
        str(tmp_path / "cache"), [SimpleNamespace], num_frames=7, height=32, width=32
    )
    data.num_found, data.num_of_unknown_videos, data.outdated = 0, 0, []
    module.recipe = module.recipe_of(data.settings)
    strategy = SimpleNamespace(root_device=torch.device("cpu"), barrier=lambda: None)
    trainer = SimpleNamespace(
        datamodule=data, is_global_zero=True, global_rank=0, strategy=strategy
    )
    writer = CacheWriter()

    def write(*results) -> None:
        writer.write_on_batch_end(trainer, module, list(results), None, None, 0, 0)

    return SimpleNamespace(
        write=write, writer=writer, trainer=trainer, module=module, cache=tmp_path / "cache"
    )


def test_writes_clip_and_header(world: SimpleNamespace) -> None:
    world.write(encoded())
    path = clip_path(world.cache, "youtube", "clip.seg1")
    found = read_clip_header(path)
    assert found.recipe == world.module.recipe.of_shape(7, 32, 32)
    assert (found.source, found.clip_id, found.music, found.split) == (
        "youtube", "clip.seg1", None, "train",
    )  # fmt: skip
    assert (found.caption, found.base_caption) == ("踊る人", "a dance video")
    assert found.attributes == {
        "file": "/videos/踊る.mp4",
        "audio_padded_seconds": "0.040",
        "start_seconds": "1.250000",
        "crop": "centre",
    }
    assert {n: (t.unique().item(), t.shape) for n, t in read_clip(path).items()} == {
        "latent_mean": (1.0, (12, 2, 4, 4)),
        "latent_logvar": (-1.0, (12, 2, 4, 4)),
        "audio": (1.0, (14, 96)),
    }
    assert len(list(world.cache.rglob("*.*"))) == 1


def test_a_clip_that_is_encoded_anew_loses_a_mask_of_what_it_was(world: SimpleNamespace) -> None:
    path = mask_path(world.cache, "youtube", "clip.seg1")
    for settings, is_kept in ((None, False), (SimpleNamespace(file_of=lambda video: video), True)):
        write_mask(path, torch.ones(2, 4, 4), {})
        world.trainer.datamodule.masks = settings
        world.write(encoded())
        assert path.is_file() == is_kept


def test_captions_are_written_once(world: SimpleNamespace) -> None:
    module, cpu = world.module, torch.device("cpu")
    world.write(*module.predict_step(["踊る人", "a man"], 0))
    (expected,) = module.encoders.encode_captions(["踊る人"], device=cpu)
    assert torch.equal(read_caption(world.cache, "踊る人"), expected)
    before = caption_path(world.cache, "a man").stat().st_mtime_ns
    world.write(*module.predict_step(["a man"], 0))
    assert caption_path(world.cache, "a man").stat().st_mtime_ns == before


def test_lists_what_was_skipped(world: SimpleNamespace, capsys) -> None:
    world.trainer.datamodule.datasets = [
        dataset(SkippedClip("aist", Path("/a/é.mp4"), "no sound: none"))
    ]
    world.write(SkippedClip("youtube", Path("/b.mp4"), "too quiet: -60", "b.seg0"), encoded())
    world.writer.teardown(world.trainer, world.module, "predict")
    listed = world.cache / "skipped_rank0.jsonl"
    assert [json.loads(line) for line in listed.read_text().splitlines()] == [
        {"source": "aist", "file": "/a/é.mp4", "reason": "no sound: none"},
        {"source": "youtube", "file": "/b.mp4", "reason": "too quiet: -60", "clip_id": "b.seg0"},
    ]
    assert "é" in listed.read_text()
    printed = capsys.readouterr().out
    assert "encoded 1 clips" in printed and str(listed) in printed
    assert "skipped /a/é.mp4: no sound: none" in printed
    assert "skipped b.seg0: too quiet: -60" in printed
    report = world.cache / "report"
    assert (report / "counts.md").read_text() in printed and str(report) in printed
    assert "| youtube | clip     | too quiet |     1 |" in printed
    assert "踊る人" in (report / "index.html").read_text()
    # The lists of thousands of files are not for a terminal.
    world.write(*(SkippedClip("youtube", Path(f"/{k}.mp4"), "no sound: none") for k in range(30)))
    world.writer.teardown(world.trainer, world.module, "predict")
    printed = capsys.readouterr().out
    assert printed.count("no sound: none") == 19 and f"32 skipped in all: {listed}" in printed


def test_what_was_left_out_by_choice_is_counted_and_a_page_can_be_left_out(
    world: SimpleNamespace, capsys
) -> None:
    world.trainer.datamodule.datasets = [dataset(num_not_selected={"camera c02": 1234})]
    world.writer.pictures_per_group = 0
    world.writer.teardown(world.trainer, world.module, "predict")
    assert json.loads((world.cache / "skipped_rank0.jsonl").read_text()) == {
        "source": "aist", "kind": "not selected", "reason": "camera c02", "count": 1234,
    }  # fmt: skip
    assert "| aist   | not selected | camera c02 |  1234 |" in capsys.readouterr().out
    assert [path.name for path in (world.cache / "report").iterdir()] == ["counts.md"]


def test_only_rank_zero_lists_files_that_no_clip_was_cut_from(world: SimpleNamespace) -> None:
    skipped = SkippedClip("aist", Path("/a.mp4"), "no sound: none")
    world.trainer.datamodule.datasets = [dataset(skipped)]
    world.trainer.is_global_zero, world.trainer.global_rank = False, 3
    world.writer.teardown(world.trainer, world.module, "predict")
    assert (world.cache / "skipped_rank3.jsonl").read_text() == ""


def test_sound_that_ends_early_is_noted(small_parts: Path, tmp_path: Path, capsys) -> None:
    write_moving_square(tmp_path / "aist" / "gBR_sBM_c01_d04_mBR1_ch03.mp4", number=0)
    write_moving_square(tmp_path / "youtube" / "whole.mp4", number=1)
    moments = [k / 30 for k in range(36)]
    # The start drawn for this name is 0.43 s, and a clip has 0.3 s of sound.
    write_media(tmp_path / "youtube" / "f.mp4", times=moments, audio=sine(440, 0.6))
    cache = tmp_path / "cache"
    main([*encode_arguments(small_parts, tmp_path, cache), ALLOW_UPSCALING.format(tmp_path)])
    headers = [read_clip_header(p) for p in (cache / "clips" / "youtube").iterdir()]
    found = {Path(h.attributes["file"]).name: h.attributes for h in headers}
    assert float(found["f.mp4"]["start_seconds"]) == pytest.approx(0.43, abs=0.01)
    # AAC fills its last packet, 21 ms, with silence.
    padded_seconds = float(found["f.mp4"]["audio_padded_seconds"])
    assert padded_seconds == pytest.approx(0.43 + 0.3 - 0.6, abs=0.03)
    assert "audio_padded_seconds" not in found["whole.mp4"]
    assert "1 of the encoded clips outlast their sound" in capsys.readouterr().out
