"""Whatever a folder holds, jobs end, name what they leave out with the reason, and do the rest."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import evaluate
from datamodules import YouTubeDataset
from datamodules.clips import RawClip, SkippedClip
from musicinfuser.media.audio import read_audio, write_wav
from musicinfuser.media.errors import MediaError, printable
from musicinfuser.media.latents import read_headers
from musicinfuser.media.video import probe_video
from tests.conftest import encode_arguments
from tests.datamodules.conftest import cut
from tests.hostile_media import mutilated, write, write_awkward, write_broken
from tests.ranks import run_alone
from tests.scored_dances import known_beats, write_dance
from tests.short_clip import read
from train import main

NUM_MUTILATED = 24


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """A call that waits for ever fails, as would one that takes hours."""

    def give_up(*_: object) -> None:
        raise TimeoutError("no end after ten minutes")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(600)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def source(root: Path, **settings: object) -> str:
    given = "".join(f", {name}: {value}" for name, value in settings.items())
    return (
        "--data.init_args.sources=[{class_path: datamodules.YouTubeDataset, "
        f"init_args: {{root: {root}, allow_upscaling: false{given}}}}}]"
    )


def test_the_encode_job_among_hostile_files(
    small_parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    media, cache = tmp_path / "media", tmp_path / "cache"
    media.mkdir()
    awkward, broken = write_awkward(media), write_broken(media)
    mutilated_names = set()
    for name, data in mutilated((media / "plain.mp4").read_bytes(), NUM_MUTILATED):
        (media / f"{name}.mp4").write_bytes(data)
        mutilated_names.add(f"{name}.mp4")
    main([*encode_arguments(small_parts, media, cache), source(media)])

    def relative(file: str) -> str:
        return file.removeprefix(f"{media}/")

    headers = read_headers(cache)
    encoded = {relative(header.attributes["file"]) for header in headers}
    rows = [json.loads(line) for line in (cache / "skipped_rank0.jsonl").read_text().splitlines()]
    skipped = {relative(row["file"]): row["reason"] for row in rows}
    assert encoded - mutilated_names == {printable(name) for name in awkward}
    assert skipped.keys() - mutilated_names == broken.keys()
    for name, reason in broken.items():
        assert reason in skipped[name]
    # Of what is damaged some is still whole enough; nothing of it gets lost.
    assert mutilated_names <= encoded | skipped.keys()
    assert mutilated_names & encoded and mutilated_names & skipped.keys()
    assert all(len(reason.splitlines()) == 1 for reason in skipped.values())
    printed = capsys.readouterr().out.splitlines()
    assert f"encoded {len(headers)} clips, 0 were there already." in printed
    assert f"skipped {rows[0]['file']}: {rows[0]['reason']}" in printed
    assert f"{len(rows)} skipped in all: {cache}/skipped_rank0.jsonl" in printed
    written = {path.name for path in cache.rglob("*") if path.is_file()}
    assert not [name for name in written if name.startswith(".")], "nothing is half-written"
    assert [h.attributes for h in headers if "audio_padded_seconds" in h.attributes] == [
        h.attributes for h in headers if "sound ends first" in h.attributes["file"]
    ]


def test_the_exit_code_and_the_list(small_parts: Path, tmp_path: Path) -> None:
    media, cache = tmp_path / "media", tmp_path / "cache"
    media.mkdir()
    write(media / "plain.mp4")
    os.mkfifo(media / "pipe.mp4")
    odd_name = media / os.fsdecode(b"latin-\xe9\n.mp4")
    odd_name.write_bytes(b"no video")
    arguments = [*encode_arguments(small_parts, media, cache), source(media)]
    done = run_alone(tmp_path, arguments, cwd=tmp_path)
    assert done.exit_code == 0, done.errors
    assert "encoded 1 clips" in done.output
    pipe = f"{media}/pipe.mp4"
    assert f"skipped {pipe}: cannot be read: is no regular file." in (done.output.splitlines())
    assert r"latin-\udce9\n.mp4: cannot be read" in done.output


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".flv"])
@pytest.mark.parametrize("count", [52, pytest.param(400, marks=pytest.mark.slow, id="many")])
def test_readers_give_a_result_or_one_sentence(tmp_path: Path, suffix: str, count: int) -> None:
    whole = write(tmp_path / f"whole{suffix}").read_bytes()
    path = tmp_path / f"victim{suffix}"
    results = {"read": 0, "refused": 0}
    for name, data in mutilated(whole, count):
        path.write_bytes(data)
        try:
            info = probe_video(path)
            assert 0 < info.duration_seconds <= 24 * 3600 and info.width > 0, name
            clip = read(path, start=0.2, num_frames=7, height=32, width=32)
            assert clip.shape == (7, 32, 32, 3), name
            heard = read_audio(path, start_seconds=0.2, duration_seconds=0.3)
            assert heard.isfinite().all() and len(heard) <= 4800, name
            assert read_audio(path).isfinite().all(), name
            results["read"] += 1
        except MediaError as error:
            assert str(error).startswith(f"{path}: ") and str(error).endswith("."), name
            assert len(str(error).splitlines()) == 1, name
            results["refused"] += 1
    assert min(results.values()) > count / 10, results


def test_the_time_limit_comes_from_the_config(small_parts: Path, tmp_path: Path) -> None:
    write(tmp_path / "plain.mp4")
    arguments = [*encode_arguments(small_parts, tmp_path, tmp_path / "cache"), source(tmp_path)]
    with pytest.raises(
        ValueError, match=r"plain\.mp4, .* \(cannot be read: was not read within 1e-09 s; a larger"
    ):
        main([*arguments, "--data.init_args.time_limit_seconds=1e-9"])
    with pytest.raises(ValueError, match="time_limit_seconds is 0.0; it must be above 0"):
        main([*arguments, "--data.init_args.time_limit_seconds=0"])


def test_a_clip_that_takes_too_long_is_skipped(tmp_path: Path) -> None:
    write(tmp_path / "plain.mp4")
    dataset = cut(YouTubeDataset, tmp_path, num_frames=7, height=32, width=32)
    assert isinstance(dataset[0], RawClip)
    dataset.settings = replace(dataset.settings, time_limit_seconds=1e-9)
    clip = dataset[0]
    assert isinstance(clip, SkippedClip)
    assert clip.reason.startswith("cannot be read: was not read within 1e-09 s")


def test_predict_names_broken_songs_before_weights_are_read(
    run_cli: Callable, tmp_path: Path
) -> None:
    songs = {name: tmp_path / f"{name}.wav" for name in ("good", "empty", "text", "short")}
    write_wav(songs["good"], torch.zeros(16_000), rate_hz=16_000)
    songs["empty"].touch()
    songs["text"].write_text("no music\n" * 100)
    songs["short"].write_bytes(songs["good"].read_bytes()[:44])
    tracks = ", ".join(map(str, songs.values()))
    with pytest.raises(
        MediaError, match=r"3 of 4 sounds cannot be used; the first: .*empty\.wav: cannot be read"
    ):
        run_cli(
            "predict",
            "--ckpt_path=null",
            "--model.init_args.backbone.pretrained=/no/such/weights/are/read",
            f"--data.init_args.generation.music=[{tracks}]",
            "--data.init_args.generation.prompts=[a dance]",
        )
    assert not (tmp_path / "videos").exists()


def test_scoring_among_broken_videos(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    broken = write_broken(folder)
    write_dance(folder / "good.mp4")
    known_beats(folder / "good.json", [0.2 + 0.5 * k for k in range(5)])
    whole = (folder / "good.mp4").read_bytes()
    damaged = dict(mutilated(whole, 8))
    for name, data in damaged.items():
        (folder / f"{name}.mp4").write_bytes(data)
        known_beats(folder / f"{name}.json", [0.2 + 0.5 * k for k in range(5)])
    output = tmp_path / "metrics.json"
    evaluate.main(["score", str(folder), f"--output={output}", "--music_beats=truth"])
    clips = {clip["file"]: clip for clip in json.loads(output.read_text())["clips"]}
    assert "beat_alignment" in clips["good.mp4"]["values"]
    for name in broken.keys() - {"nan.mkv"}:
        assert clips[name]["failures"], name
    for name in ("pipe.mp4", "device.mp4"):
        assert clips[name]["failures"]["beat_alignment"].endswith("(no regular file).")
    assert all(c["values"] or c["failures"] for c in clips.values())
    assert f"of {len(broken) + len(damaged)} clips failed" in capsys.readouterr().out
