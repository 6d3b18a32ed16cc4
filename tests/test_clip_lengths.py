"""Clips of two lengths, from mp4 to training steps of one length each, resumed to the bit."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from musicinfuser.media.latents import read_clip, read_headers
from tests.conftest import cli_arguments, encode_arguments, write_moving_square
from tests.media.conftest import sine, write_media
from tests.training_record import record
from train import main

BUCKETS = "--data.init_args.buckets=[[32,64],[31,32,64]]"
AIST = ("gBR_sBM_c01_d04_mBR1_ch03", "gHO_sBM_c10_d20_mHO1_ch05")
HELD_OUT = ("gBR_sBM_c01_d04_mBR0_ch02", "gPO_sBM_c01_d10_mPO1_ch02")
WILD_SECONDS = {"youtube/short": 1.0, "youtube/shorter": 0.9, "youtube/long": 2.0}


@pytest.fixture(scope="module")
def media_of_lengths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lengths") / "media"
    for i, name in enumerate((AIST[1], *HELD_OUT)):
        write_moving_square(root / "aist" / f"{name}.mp4", number=i)
    (root / "youtube").mkdir()
    for name, seconds in {f"aist/{AIST[0]}": 2.0, **WILD_SECONDS}.items():
        times = [k / 30 for k in range(round(30 * seconds))]
        path = root / f"{name}.mp4"
        write_media(path, times=times, width=128, height=72, audio=sine(300, seconds))
    return root


@pytest.fixture(scope="module")
def cache_of_lengths(media_of_lengths: Path, small_parts: Path) -> Path:
    cache = media_of_lengths.parent / "cache"
    main([*encode_arguments(small_parts, media_of_lengths, cache), BUCKETS])
    return cache


def test_clips_are_encoded_at_their_length(
    cache_of_lengths: Path, media_of_lengths: Path, small_parts: Path, capsys
) -> None:
    found = {Path(h.attributes["file"]).stem: h for h in read_headers(cache_of_lengths)}
    frames = {name: header.recipe.num_frames for name, header in found.items()}
    short = dict.fromkeys((AIST[1], *HELD_OUT, "short", "shorter"), 7)
    assert frames == short | {AIST[0]: 31, "long": 31}
    for name, header in found.items():
        tensors = read_clip(header.path)
        # The first latent frame is one frame, each other one six; 50 features of sound a second.
        assert tensors["latent_mean"].shape == (12, {7: 2, 31: 6}[frames[name]], 4, 8)
        assert len(tensors["audio"]) == {7: 14, 31: 54}[frames[name]]
    main([*encode_arguments(small_parts, media_of_lengths, cache_of_lengths), BUCKETS])
    assert f"encoded 0 clips, {len(found)} were there already." in capsys.readouterr().out
    again = encode_arguments(small_parts, media_of_lengths, cache_of_lengths)
    (problem,) = main(["check", *again[1:], "--data.init_args.buckets=[[32,64]]"]).report.problems
    assert "was made otherwise (num_frames: 31, not 7; " in problem


def test_training_takes_one_length_at_a_time_and_resumes_to_the_bit(
    run_cli: Callable, cache_of_lengths: Path, tmp_path: Path
) -> None:
    until = partial(record, run_cli, BUCKETS, cache=cache_of_lengths)
    whole = until(root=tmp_path / "whole", num_steps=8)
    until(root=tmp_path / "parted", num_steps=3)
    assert until(root=tmp_path / "parted", num_steps=8) == whole
    frames = {h.clip_id: h.recipe.num_frames for h in read_headers(cache_of_lengths)}
    steps = [{frames[clip] for clip in line["clips"]} for line in whole]
    assert all(len(step) == 1 for step in steps)
    assert set().union(*steps) == {7, 31}
    assert len({line["loss"] for line in whole}) == 8
    from_aist = sum(clip in AIST for line in whole for clip in line["clips"])
    # Two lengths, two sources: within half a step and one sample of 1:1.
    assert abs(from_aist - 8) <= 2


def test_validation_and_check_know_the_lengths(
    run_cli: Callable, cache_of_lengths: Path, small_parts: Path, tmp_path: Path
) -> None:
    run_cli("fit", BUCKETS, cache=cache_of_lengths)
    cli = run_cli("validate", BUCKETS, "--trainer.limit_val_batches=1.0", cache=cache_of_lengths)
    assert cli.trainer.callback_metrics["val/loss"].item() > 0

    def check(buckets: str):
        given = cli_arguments(
            "check", f"--data.init_args.buckets={buckets}", parts=small_parts,
            cache=cache_of_lengths, root=tmp_path / "checked",
        )  # fmt: skip
        return main(given).report

    report = check("[[32,64],[31,32,64]]")
    assert report.problems == []
    text = dict(report.sections)["cache"]
    assert "made of 31x32x64, 7x32x64 at 30 fps" in text
    assert "of the optimizer steps: 41.7% 31x32x64, 58.3% 7x32x64" in text
    wild = next(line for line in text.splitlines() if "| youtube" in line)
    assert [cell.strip() for cell in wild.split("|")][-3:-1] == ["2", "1"]
    memory = [
        dict(check(f"[[32,64],[31,32,64]{more}]").sections)["memory (an estimate)"]
        for more in ("", ",[7,48,48]", ",[607,32,64]")
    ]
    assert memory[0] == memory[1] != memory[2], "the shape of the most tokens counts"
    (problem,) = check("[[32,64]]").problems
    assert "[frames, height, width]: [[7, 32, 64], [31, 32, 64]] in the cache, " in problem
    (problem,) = check("[[32,64],[30,32,64]]").problems
    assert "data.buckets, 30x32x64: num_frames is 30; Mochi takes 6k + 1 frames" in problem
