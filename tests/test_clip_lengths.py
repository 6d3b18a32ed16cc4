"""Clips of two lengths, from mp4 to training steps of one length each, resumed to the bit.

By one process, and by two that share each step out.
"""

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from musicinfuser.media.latents import read_clip, read_headers
from tests import test_ddp as ddp
from tests.conftest import cli_arguments, encode_arguments, write_moving_square
from tests.media.conftest import sine, write_media
from tests.ranks import run_ranks
from tests.test_resume import assert_equal
from tests.training_record import record
from train import main

BUCKETS = "--data.init_args.buckets=[[32,64],[31,32,64]]"
AIST = ("gBR_sBM_c01_d04_mBR1_ch03", "gHO_sBM_c10_d20_mHO1_ch05")
HELD_OUT = ("gBR_sBM_c01_d04_mBR0_ch02", "gPO_sBM_c01_d10_mPO1_ch02")
LONG_HELD_OUT = ("gHO_sBM_c01_d20_mHO5_ch02", "gLH_sBM_c01_d16_mLH4_ch02")
TWO = (*ddp.TWO, "--data.init_args.batch_size=1")
NUM_STEPS, BATCHES_PER_STEP, KILL_AT = 4, 2, 3
WILD_SECONDS = {"youtube/short": 1.0, "youtube/shorter": 0.9, "youtube/long": 2.0}


@pytest.fixture(scope="module")
def media_of_lengths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lengths") / "media"
    for i, name in enumerate((AIST[1], *HELD_OUT)):
        write_moving_square(root / "aist" / f"{name}.mp4", number=i)
    (root / "youtube").mkdir()
    long = {f"aist/{name}": 2.0 for name in (AIST[0], *LONG_HELD_OUT)}
    for name, seconds in (long | WILD_SECONDS).items():
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
    assert frames == short | dict.fromkeys((AIST[0], *LONG_HELD_OUT, "long"), 31)
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


@pytest.fixture(scope="module")
def one_and_two(
    cache_of_lengths: Path, small_parts: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A run of one process, and one of two at the same global batch."""
    folder = tmp_path_factory.mktemp("ranks")
    one, two = folder / "one", folder / "two"
    main([*in_steps(one, small_parts, cache_of_lengths), "--data.init_args.batch_size=2"])
    ddp.finish(run_ranks(folder, in_steps(two, small_parts, cache_of_lengths, *TWO)))
    return one, two


def in_steps(root: Path, parts: Path, cache: Path, *options: str) -> list[str]:
    accumulation = f"--trainer.accumulate_grad_batches={BATCHES_PER_STEP}"
    given = (*options, *ddp.DROPOUTS, BUCKETS, accumulation)
    return ddp.arguments(root, parts, cache, *given, steps=NUM_STEPS)


def test_two_processes_step_at_one_length_with_the_samples_of_one(
    one_and_two: tuple[Path, Path], cache_of_lengths: Path
) -> None:
    frames = {h.clip_id: h.recipe.num_frames for h in read_headers(cache_of_lengths)}
    one, two = one_and_two
    lines = list(zip(ddp.record(one, 0), *(ddp.record(two, rank) for rank in (0, 1)), strict=True))
    assert len(lines) == NUM_STEPS * BATCHES_PER_STEP
    lengths = []
    for batch, (whole, *parts) in enumerate(lines):
        assert whole["samples"] == [2 * batch, 2 * batch + 1]
        assert [part["samples"] for part in parts] == [[i] for i in whole["samples"]]
        for name in ("clips", "text_lengths"):
            assert [part[name] for part in parts] == [[seen] for seen in whole[name]]
        assert all((part["lr"], part["beta"]) == (whole["lr"], whole["beta"]) for part in parts)
        losses = [float.fromhex(line["loss"]) for line in (whole, *parts)]
        assert losses[0] == pytest.approx((losses[1] + losses[2]) / 2, rel=1e-4)
        lengths.append({frames[clip] for clip in whole["clips"]})
    steps = [
        set().union(*lengths[i : i + BATCHES_PER_STEP])
        for i in range(0, len(lengths), BATCHES_PER_STEP)
    ]
    assert all(len(step) == 1 for step in steps)
    assert set().union(*steps) == {7, 31}
    num_aist = sum(clip in AIST for whole, *_ in lines for clip in whole["clips"])
    # Of 16 samples half, within half a step and one sample (`datamodules.mixing.Mixture`).
    assert abs(num_aist - 8) <= 3


def test_two_processes_end_with_the_weights_of_one(one_and_two: tuple[Path, Path]) -> None:
    one, two = one_and_two
    trained = [(two / f"record.{rank}.trained").read_text() for rank in (0, 1)]
    assert trained[0] == trained[1]
    states = [ddp.checkpoint(root)["state_dict"] for root in one_and_two]
    for name, weight in states[0].items():
        assert torch.allclose(weight, states[1][name], rtol=0, atol=1e-4), name
    assert states[0]["model.zica.0.to_out.weight"].abs().max() > 1e-3
    # The processes validate on clips of other lengths at the same time.
    values = [ddp.logged(root) for root in one_and_two]
    validated = [key for key in values[0] if key[0].startswith("val/")]
    assert {name for name, _ in validated} >= {"val/loss", "val/loss_other_music", "val/music_gap"}
    for key in validated:
        assert values[0][key] == pytest.approx(values[1][key], rel=1e-3, abs=2e-5), key


def test_two_processes_of_which_one_is_killed_go_on_to_the_bit(
    one_and_two: tuple[Path, Path], cache_of_lengths: Path, small_parts: Path, tmp_path: Path
) -> None:
    whole, parted = one_and_two[1], tmp_path / "parted"
    run = in_steps(parted, small_parts, cache_of_lengths, *TWO)
    fault = f"folder: {tmp_path}, rank: 1, how: kill, step: {KILL_AT}"
    killer = f"{{class_path: tests.rank_record.OneRankFails, init_args: {{{fault}}}}}"
    ended = run_ranks(tmp_path, [*run, f"--trainer.callbacks+={killer}"])
    assert [process.exit_code for process in ended] == [1, -signal.SIGKILL]
    ddp.finish(run_ranks(tmp_path, run))
    for rank in (0, 1):
        seen, again = ddp.record(whole, rank), ddp.record(parted, rank)
        # What was made after the last checkpoint is made again, and is the same both times.
        assert [line for i, line in enumerate(again) if line not in again[:i]] == seen
        assert (parted / f"record.{rank}.trained").read_text() == (
            whole / f"record.{rank}.trained"
        ).read_text()
    states = [ddp.checkpoint(root) for root in (whole, parted)]
    for group in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_equal(*(state[group] for state in states))
    assert_equal(*(state["callbacks"]["AdapterEMA"]["average"] for state in states))
