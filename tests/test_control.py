"""The control configs and the benchmark: which requests they make, and that each runs."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import av
import pytest
import torch
import yaml

from lightning_modules.cli import MusicInfuserCLI
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.media.audio import read_audio
from musicinfuser.media.video_writing import write_video
from musicinfuser.version import VERSION
from tests.conftest import ROOT, cli_arguments
from tests.test_predict import HELD_OUT, UNTRAINED, decode, rows, write_tone
from train import main

CONFIGS = ROOT / "configs"
# Frames of the real configs would take minutes here.
FRAMES = "--data.init_args.generation.num_frames=7"
# What differs between the requests of a config, and how many there are.
MADE = {
    "longer": (set(), 1),
    "tempo": ({"track", "track_offset_seconds"}, 3),
    "lag": ({"heard", "heard_offset_seconds"}, 5),
    "silence": ({"track", "heard"}, 6),
    "seeds": ({"seed"}, 8),
    "tracks": ({"track"}, 10),
    "group": ({"prompt"}, 3),
    "difficulty": ({"prompt"}, 3),
    "subjects": ({"prompt"}, 3),
}


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracks")
    for i, code in enumerate(HELD_OUT):
        write_tone(folder / f"{code}.wav", frequency_hz=300 + 50 * i, seconds=1.5)
    return folder


def arguments(name: str, parts: Path, root: Path, *more: str) -> list[str]:
    """base.yaml, the config, and the small parts in place of Mochi."""
    given = cli_arguments("predict", UNTRAINED, *more, parts=parts, cache=None, root=root)
    return [*given[:3], f"--config={CONFIGS}/{name}.yaml", *given[3:]]


def requests_of(*given: str) -> list[GenerationRequest]:
    datamodule = MusicInfuserCLI(list(given[1:]), run=False).datamodule
    datamodule.setup("predict")
    return datamodule.requests


@pytest.mark.parametrize("name", MADE)
def test_each_control_changes_one_thing(name, small_parts: Path, tmp_path: Path, tracks) -> None:
    music = f"--data.init_args.generation.music=[{tracks}/mBR0.wav]"
    if name == "silence":
        music = f"--data.init_args.generation.music=[{tracks}/mBR0.wav,{tracks}/mHO5.wav]"
    if name == "tracks":
        music = f"--data.init_args.generation.music_dir={tracks}"
    later = "--data.init_args.generation.track_offset_seconds=0.5"
    requests = requests_of(*arguments(f"control/{name}", small_parts, tmp_path, music, later))
    values = [asdict(request) for request in requests]
    differing = {key for key in values[0] if len({value[key] for value in values}) > 1}
    assert (differing, len(requests)) == MADE[name]
    # One of them, shortened, goes all the way.
    if name == "tempo":
        main(arguments(f"control/{name}", small_parts, tmp_path, FRAMES, music))
        folder = tmp_path / "control" / name
        lines = (folder / "manifest.jsonl").read_text().splitlines()
        sounds = [read_audio(folder / json.loads(line)["file"], rate_hz=16_000) for line in lines]
        pitches = [torch.fft.rfft(s[:3200]).abs().argmax().item() * 5 for s in sounds]
        assert sorted(pitches) == pytest.approx([225, 300, 375], abs=8)


def test_a_whole_song_ends_with_the_music(small_parts: Path, tmp_path: Path) -> None:
    song = write_tone(tmp_path / "song.wav", seconds=1.2, frequency_hz=500)
    music = f"--data.init_args.generation.music=[{song}]"
    # Windows of 3 latent frames in place of 13: several of them.
    shorter = [
        f"--model.init_args.sampling.{setting}"
        for setting in ("window_frames=13", "window_overlap_frames=6")
    ]
    main(arguments("control/whole_song", small_parts, tmp_path, music, *shorter))
    folder = tmp_path / "control" / "whole_song"
    [row] = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    assert [row[name] for name in ("num_frames", "in_windows", "window_frames")] == [31, True, 13]
    assert (row["window_overlap_frames"], row["padded_seconds"]) == (6, 0.0)
    assert decode(folder / row["file"]).shape == (31, 32, 32, 3)
    sound = read_audio(folder / row["file"], rate_hz=16_000)
    assert len(sound) / 16_000 == pytest.approx(31 / 30, abs=0.05)
    assert torch.fft.rfft(sound[-8000:]).abs().argmax().item() * 2 == pytest.approx(500, abs=8)


def test_longer_is_nine_seconds_and_fits_mochi() -> None:
    for path in [CONFIGS / "benchmark.yaml", *(CONFIGS / "control").glob("*.yaml")]:
        spec = yaml.safe_load(path.read_text())["data"]["init_args"]["generation"]
        if path.stem == "whole_song":
            continue
        assert spec["num_frames"] % 6 == 1, path
        assert spec["num_frames"] == (271 if path.stem == "longer" else 145)


def benchmark(parts: Path, root: Path, tracks: Path, *more: str) -> list[dict]:
    music = f"--data.init_args.generation.music_dir={tracks}"
    main(arguments("benchmark", parts, root, FRAMES, music, *more))
    lines = (root / "benchmark" / "manifest.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_benchmark_has_the_papers_requests(small_parts: Path, tmp_path: Path, tracks) -> None:
    music = f"--data.init_args.generation.music_dir={tracks}"
    requests = requests_of(*arguments("benchmark", small_parts, tmp_path, music))
    prompts = yaml.safe_load((ROOT / "assets" / "table9_prompts.yaml").read_text())["prompts"]
    assert len(requests) == len({c.file_stem() for c in requests}) == 100
    assert {(Path(c.track).stem, c.prompt) for c in requests} == {
        (code, prompt) for code in HELD_OUT for prompt in prompts
    }
    assert len(prompts) == len(set(prompts)) == 10 and all("dancer" in p for p in prompts)


def test_the_benchmark_goes_on_where_it_was_cut_off(
    small_parts: Path, tmp_path: Path, tracks: Path, caplog
) -> None:
    less = "--data.init_args.generation.prompts=[a dance]"
    found = benchmark(small_parts, tmp_path, tracks, less)
    assert len(found) == 10
    assert all(r.keys() >= {"track", "track_offset_seconds", "system", "sha256"} for r in found)
    folder = tmp_path / "benchmark"
    paths = [folder / row["file"] for row in found]
    times = {path: path.stat().st_mtime_ns for path in paths}
    # Cut off: one clip is gone, one is broken, one has no description, and no manifest.
    (folder / "manifest.jsonl").unlink()
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:-9])
    paths[2].with_suffix(".json").unlink()
    assert benchmark(small_parts, tmp_path, tracks, less) == found
    assert "7 of 10 clips are finished" in caplog.text
    changed = [path for path in paths if path.stat().st_mtime_ns != times[path]]
    assert changed == paths[:3]
    # Nothing is left to make; a manifest that is missing is written all the same.
    (folder / "manifest.jsonl").unlink()
    assert benchmark(small_parts, tmp_path, tracks, less) == found
    # Another guidance is another benchmark.
    other = "--model.init_args.sampling.guidance_scale=2"
    music = f"--data.init_args.generation.music_dir={tracks}"
    given = arguments("benchmark", small_parts, tmp_path, FRAMES, music, less)
    assert (len(requests_of(*given)), len(requests_of(*given, other))) == (0, 10)


FORMATS = {
    "mp3": "libmp3lame", "wav": "pcm_s16le", "flac": "flac", "ogg": "libopus", "m4a": "aac",
    "mp4": "aac",
}  # fmt: skip


def write_song(path: Path, *, codec: str) -> Path:
    """A second of 300 Hz, then a second of 900 Hz, in stereo at 44.1 kHz."""
    time = torch.arange(88_200) / 44_100
    tone = 0.4 * torch.sin(2 * torch.pi * torch.where(time < 1, 300.0, 900.0) * time)
    if path.suffix == ".mp4":
        frames = torch.zeros(60, 32, 32, 3, dtype=torch.uint8)
        write_video(path, frames, fps=30.0, audio=tone, audio_rate_hz=44_100)
        return path
    with av.open(str(path), "w") as container:
        rate_hz = 48_000 if codec == "libopus" else 44_100
        stream = container.add_stream(codec, rate=rate_hz, layout="stereo")
        samples = torch.stack([tone, tone]).numpy()
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 44_100, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_any_audio_that_exists(run_cli: Callable, tmp_path: Path) -> None:
    songs = [write_song(tmp_path / f"{k}-song.{k}", codec=codec) for k, codec in FORMATS.items()]
    generation = {
        "music": [str(song) for song in songs],
        "prompts": ["踊る dancer"],
        "seeds": [7],
        "num_frames": 13,
        "track_offset_seconds": 1.25,
    }
    run_cli("predict", UNTRAINED, f"--data.init_args.generation={json.dumps(generation)}")
    found = rows(tmp_path)
    assert [Path(r["track"]) for r in found] == sorted(songs)
    for row in found:
        path = tmp_path / "videos" / row["file"]
        with av.open(str(path)) as container:
            [audio] = container.streams.audio
            assert (audio.codec_context.name, audio.rate) == ("aac", 44_100)
            assert float(audio.duration * audio.time_base) == pytest.approx(13 / 30, abs=0.03)
            comment = json.loads(container.metadata["comment"])
            assert comment.items() >= {
                "prompt": "踊る dancer", "seed": 7, "track": row["track"], "version": VERSION,
                "track_offset_seconds": 1.25,
            }.items()  # fmt: skip
            assert (
                "踊る dancer (seed 7, MusicInfuser on Lightning"
                in (container.metadata["description"])
            )
        assert len(decode(path)) == 13
        sound = read_audio(path, rate_hz=16_000)
        heard_hz = torch.fft.rfft(sound[:6400]).abs().argmax().item() * 2.5
        assert heard_hz == pytest.approx(900, abs=5), row["track"]
