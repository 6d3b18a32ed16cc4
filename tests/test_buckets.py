"""Landscape, portrait and square videos, from mp4 to training steps of one size each."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from musicinfuser.media.latents import clip_paths, read_clip, read_headers
from tests.conftest import cli_arguments, encode_arguments, write_moving_square
from tests.media.conftest import rotate_mp4, sine, write_media
from tests.training_record import record
from train import main

BUCKETS = "--data.init_args.buckets=[[32,64],[64,32],[48,48]]"
AIST = ("gBR_sBM_c01_d04_mBR1_ch03", "gHO_sBM_c10_d20_mHO1_ch05", "gBR_sBM_c01_d04_mBR0_ch02")
TALL_HELD_OUT = "gPO_sBM_c01_d10_mPO1_ch02"
WILD = {"phone": (128, 72), "portrait": (72, 128), "square": (64, 64), "landscape": (128, 72)}


@pytest.fixture(scope="module")
def mixed_media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mixed") / "media"
    for i, name in enumerate(AIST):
        write_moving_square(root / "aist" / f"{name}.mp4", number=i)
    (root / "youtube").mkdir()
    files = {f"youtube/{name}": size for name, size in WILD.items()}
    for file, (width, height) in (files | {f"aist/{TALL_HELD_OUT}": (72, 128)}).items():
        path = write_media(
            root / f"{file}.mp4",
            times=[k / 30 for k in range(36)],
            width=width,
            height=height,
            audio=sine(300, 1.2),
        )
        if "phone" in file:
            rotate_mp4(path, 90, width, height)
    return root


@pytest.fixture(scope="module")
def mixed_cache(mixed_media: Path, small_parts: Path) -> Path:
    cache = mixed_media.parent / "cache"
    main([*encode_arguments(small_parts, mixed_media, cache), BUCKETS])
    return cache


def test_each_clip_is_encoded_at_its_own_size(mixed_cache: Path) -> None:
    found = {Path(h.attributes["file"]).stem: h for h in read_headers(mixed_cache)}
    wide = dict.fromkeys((*AIST, "landscape"), (7, 32, 64))
    tall = dict.fromkeys(("phone", "portrait", TALL_HELD_OUT), (7, 64, 32))
    buckets = {name: header.shape for name, header in found.items()}
    assert buckets == wide | tall | {"square": (7, 48, 48)}
    for header in found.values():
        height, width = header.size
        assert read_clip(header.path)["latent_mean"].shape == (12, 2, height // 8, width // 8)


def test_encoding_again_finds_everything_and_other_buckets_are_noticed(
    mixed_cache: Path, mixed_media: Path, small_parts: Path, capsys
) -> None:
    again = encode_arguments(small_parts, mixed_media, mixed_cache)
    main([*again, BUCKETS])
    printed = capsys.readouterr().out
    assert "encoded 0 clips, 8 were there already." in printed
    rows = [line.split() for line in printed.splitlines() if line.startswith("| youtube")]
    counts = {name: row[-2] for row in rows for name in row if name[0].isdigit() and "x" in name}
    assert counts == {"32x64": "1", "48x48": "1", "64x32": "2"}
    report = main(["check", *again[1:], "--data.init_args.buckets=[[32,64],[48,48]]"]).report
    (problem,) = report.problems
    assert "was made otherwise (height: 64, not 48; width: 32, not 48)" in problem
    wild = next(s for s in dict(report.sections)["sources"].splitlines() if "| youtube" in s)
    assert [request.strip() for request in wild.split("|")][-3:-1] == ["1", "3"]


def test_training_mixes_sizes_and_resumes_to_the_bit(
    run_cli: Callable, mixed_cache: Path, tmp_path: Path
) -> None:
    until = partial(
        record, run_cli, BUCKETS, "--trainer.accumulate_grad_batches=2", cache=mixed_cache
    )
    whole = until(root=tmp_path / "whole", num_steps=6)
    until(root=tmp_path / "parted", num_steps=3)
    assert until(root=tmp_path / "parted", num_steps=6) == whole
    bucket = {h.clip_id: h.size for h in read_headers(mixed_cache)}
    steps = [
        {bucket[clip] for line in whole[i : i + 2] for clip in line["clips"]}
        for i in range(0, 12, 2)
    ]
    assert all(len(step) == 1 for step in steps)
    assert set().union(*steps) == {(32, 64), (64, 32), (48, 48)}
    assert len({line["loss"] for line in whole}) == 12
    # Half of the 24 samples, as near as whole steps allow: four fifths of the 16 wide ones.
    assert sum(clip in AIST for line in whole for clip in line["clips"]) == 13


def test_validation_takes_one_size_at_a_time(
    run_cli: Callable, mixed_cache: Path, tmp_path: Path
) -> None:
    run_cli("fit", BUCKETS, cache=mixed_cache)
    losses = [
        run_cli(
            "validate",
            BUCKETS,
            "--trainer.limit_val_batches=1.0",
            f"--data.init_args.validation_batch_size={size}",
            cache=mixed_cache,
        )
        .trainer.callback_metrics["val/loss"]
        .item()
        for size in (1, 4)
    ]
    assert 0 < losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_check_knows_the_sizes(mixed_cache: Path, small_parts: Path, tmp_path: Path) -> None:
    def check(*arguments: str):
        given = cli_arguments(
            "check", *arguments, parts=small_parts, cache=mixed_cache, root=tmp_path
        )
        return main(given).report

    report = check(BUCKETS)
    assert report.problems == []
    text = dict(report.sections)["cache"]
    assert "7 frames of 32x64, 48x48, 64x32 at 30 fps" in text
    assert "of the optimizer steps: 62.5% 32x64, 12.5% 48x48, 25.0% 64x32" in text
    wild = next(line for line in text.splitlines() if "| youtube" in line)
    assert [request.strip() for request in wild.split("|")][-4:-1] == ["1", "2", "1"]

    memory = {}
    for buckets in ("[[32,64],[64,32],[48,48]]", "[[32,64],[64,32],[48,48],[256,256]]"):
        sections = dict(check(f"--data.init_args.buckets={buckets}").sections)
        memory[buckets] = sections["memory (an estimate)"]
    assert len(set(memory.values())) == 2, "the largest size counts"

    (problem,) = check("--data.init_args.buckets=[[32,64],[64,32]]").problems
    assert problem.count("[height, width]: [[32, 64], [48, 48], [64, 32]] in the cache, ") == 1
    assert "[[32, 64], [64, 32]] in the config" in problem
    assert len(clip_paths(mixed_cache)) == 8
