"""Clips asked for in seconds."""

import logging
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from datamodules.finished_clips import FinishedSpec, unfinished
from datamodules.generation_requests import (
    RequestsSpec,
    make_requests,
    require_sounds,
)
from datamodules.request_lists import frames_of
from datamodules.track_tempi import TempoSpec
from musicinfuser.clip_size import frames_within
from musicinfuser.generation import SamplingSpec, read_track
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.media.audio import write_wav
from musicinfuser.media.errors import MediaError
from musicinfuser.media.generated import ManifestEntry, write_generated
from tests.test_predict import write_tone


def requests(**options) -> list[GenerationRequest]:
    spec = RequestsSpec(**({"prompts": ["p"]} | options))
    return make_requests(spec, num_frames=7, height=32, width=48)


@pytest.mark.parametrize(
    ("seconds", "frames"),
    [(60, 1795), (61 / 30, 61), (73 / 30, 73), (2.4, 67), (0.05, 1), (0, 1), (-1, 1)],
)
def test_frames_last_no_longer_than_asked(seconds, frames):
    assert frames_within(seconds, fps=30.0) == frames


def test_seconds_end_with_the_track_and_are_requests_in_windows(tmp_path: Path, caplog) -> None:
    long = str(write_tone(tmp_path / "long.wav", seconds=5.0))
    short = str(write_tone(tmp_path / "short.wav", seconds=1.0))
    with caplog.at_level(logging.INFO):
        found = requests(music=[long, short], num_seconds=3.0)
    assert [(c.track, c.num_frames, c.in_windows) for c in found] == [
        (long, 85, True), (short, 25, True)
    ]  # fmt: skip
    assert "short.wav ends before 3 s are over; its clip lasts 0.83 s." in caplog.text
    assert "long.wav" not in caplog.text
    # All there is, from the start of the clip on, whatever is left.
    found = requests(music=[long, short], num_seconds=math.inf, track_offset_seconds=0.25)
    assert [c.num_frames for c in found] == [139, 19]
    # The longest that hear no silence.
    for request, seconds in zip(found, (5.0, 1.0), strict=True):
        windows = SamplingSpec(1, 1.0).windows(request.num_frames)
        _, _, _, padded = read_track(request, fps=30.0, windows=windows)
        longer = replace(request, num_frames=request.num_frames + 6)
        assert padded == 0 and longer.num_frames / 30 + 0.25 + 1 / 15 > seconds
    # A start that is drawn later has room.
    [request] = requests(music=long, num_seconds=3.0, track_offset_seconds=None)
    assert (request.num_frames, request.track_offset_seconds) == (85, None)


def test_lists_of_requests_take_seconds_where_they_name_no_frames(tmp_path: Path) -> None:
    write_tone(tmp_path / "a.wav", seconds=4.0)
    lines = ["a.wav,p,0,,", "a.wav,p,1,13,", "a.wav,p,2,,3"]
    text = "\n".join(["track,prompt,seed,num_frames,track_offset_seconds", *lines])
    (tmp_path / "requests.csv").write_text(text)
    found = requests(prompts=[], requests=f"{tmp_path}/requests.csv", num_seconds=2.5)
    assert [(c.num_frames, c.in_windows) for c in found] == [(73, True), (13, False), (25, True)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_frames": 73}, "num_seconds is 9, but data.generation.num_frames is given too"),
        ({"tempo": TempoSpec("t", [1.0])}, "num_seconds is 9, but data.generation.tempo is given"),
        (
            {"num_seconds": 0.0},
            "num_seconds is 0.0; it must be above 0, or .inf for all",
        ),
        ({"num_seconds": math.nan}, "num_seconds is nan; it must be above 0"),
    ],
)
def test_a_length_is_given_once(tmp_path: Path, change, message) -> None:
    track = str(write_tone(tmp_path / "a.wav"))
    with pytest.raises(ValueError, match=message):
        requests(**({"music": track, "num_seconds": 9.0} | change))


def test_a_track_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.mp3").write_bytes(b"no music")
    with pytest.raises(MediaError, match=r"bad\.mp3"):
        requests(music=f"{tmp_path}/bad.mp3", num_seconds=9.0)


def test_what_is_finished_is_told_apart_from_clips_of_one_pass(tmp_path: Path) -> None:
    request = GenerationRequest("a.wav", "p", 0, 7, 32, 48)
    entry = ManifestEntry(
        file="a.mp4", system="ours", track="a.wav", track_offset_seconds=0.0, prompt="p", seed=0,
        num_frames=7, fps=30.0, height=32, width=48, num_steps=2, guidance_scale=6.0,
        padded_seconds=0.0,
    )  # fmt: skip
    frames, sound = torch.zeros(7, 32, 48, 3, dtype=torch.uint8), torch.zeros(10_290)
    path = write_generated(tmp_path, entry, frames=frames, waveform=sound, audio_rate_hz=44_100)
    song, spec = replace(request, in_windows=True), FinishedSpec(str(tmp_path))
    assert unfinished([request, song], spec) == [song]
    assert unfinished([replace(request, track_offset_seconds=None)], spec) == []
    assert unfinished([request], replace(spec, matching={"num_steps": 3})) == [request]
    assert unfinished([request], replace(spec, matching={"num_steps": 2})) == []
    same = {"shift": None, "solver": "euler", "negative_prompt": ""}
    assert unfinished([request], replace(spec, matching=same)) == []
    for other in ({"shift": 2.0}, {"solver": "unipc"}, {"negative_prompt": "blurred"}):
        assert unfinished([request], replace(spec, matching=same | other)) == [request]
    clip = path.read_bytes()
    path.write_bytes(b"another")
    assert unfinished([request], spec) == [request]
    path.write_bytes(clip)
    # A description from before there were windows.
    text = path.with_suffix(".json").read_text().replace('"in_windows": false,', "")
    assert "in_windows" not in text
    path.with_suffix(".json").write_text(text)
    assert unfinished([request, song], spec) == [song]
    song_entry = replace(entry, in_windows=True, window_frames=73, window_overlap_frames=36)
    write_generated(tmp_path, song_entry, frames=frames, waveform=sound, audio_rate_hz=44_100)
    assert unfinished([request, song], spec) == [request]
    assert asdict(song_entry)["in_windows"] and song.file_stem() != request.file_stem()


def test_a_start_beyond_the_end_is_found_before_any_clip_is_made(tmp_path: Path) -> None:
    long, short = tmp_path / "long.wav", tmp_path / "short.wav"
    for path, seconds in ((long, 3), (short, 1)):
        write_wav(path, torch.rand(seconds * 16_000) - 0.5, rate_hz=16_000)
    size = {"num_frames": 7, "height": 32, "width": 32}

    def request(track: Path, start: float | None, **changes) -> GenerationRequest:
        return GenerationRequest(str(track), "a", 0, **size, track_offset_seconds=start, **changes)

    require_sounds([request(long, 2.5), request(short, 0.5), request(short, None)])
    said = "short.wav lasts 1.00 s, but the clip is to start at 2.00 s; choose an earlier start"
    for asked in (
        [request(long, 2.0), request(short, 2.0)],
        [request(long, 2.0, heard=str(short))],
        [request(long, 0.0, heard=str(short), heard_offset_seconds=2.0)],
    ):
        with pytest.raises(MediaError, match=said):
            require_sounds(asked)
    with pytest.raises(MediaError, match=said):
        frames_of(request(short, 2.0), num_seconds=5.0, fps=30.0)
