"""No file holds a reader up for longer than it may."""

import wave

import av
import numpy as np
import pytest
import torch

from musicinfuser.media.audio import read_audio
from musicinfuser.media.decoding import Deadline
from musicinfuser.media.errors import MediaError, printable
from musicinfuser.media.video import probe_video
from tests.media.conftest import sine, write_media
from tests.short_clip import read

LATE = "was not read within"


class Clock:
    """Moves on by a second whenever somebody looks at it."""

    def __init__(self):
        self.seconds = 0.0

    def monotonic(self):
        self.seconds += 1.0
        return self.seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("musicinfuser.media.decoding.time", clock)
    return clock


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    """Four seconds with one key frame, and more sound."""
    return write_media(
        tmp_path_factory.mktemp("long") / "clip.mp4",
        times=[k / 30 for k in range(120)],
        width=16,
        height=16,
        options={"g": "1000", "sc_threshold": "0"},
        audio=sine(440, 8),
    )


def test_time_runs_out_between_frames(long_video, clock):
    def read_late(limit):
        clock.seconds = 0.0
        read(long_video, start=3.0, num_frames=5, time_limit_seconds=limit)

    read_late(10_000)
    needed = clock.seconds
    # Every packet and frame up to the one asked for is looked at.
    assert needed > 2 * 90
    with pytest.raises(MediaError, match=rf"clip\.mp4: {LATE} 50 s; a larger time_limit_seconds"):
        read_late(50)
    assert clock.seconds <= 60
    for limit in range(2, int(needed), 40):
        with pytest.raises(MediaError, match=LATE):
            read_late(limit)


@pytest.mark.parametrize("rate_hz", [48_000, 16_000])
def test_time_runs_out_between_pieces_of_sound(long_video, clock, rate_hz):
    read_audio(long_video, rate_hz=rate_hz, time_limit_seconds=1e6)
    needed = clock.seconds
    assert needed > 8 * 48_000 / 1024
    for limit in (1, 100, int(needed) - 3):
        clock.seconds = 0.0
        with pytest.raises(MediaError, match=LATE):
            read_audio(long_video, rate_hz=rate_hz, time_limit_seconds=limit)
        assert clock.seconds <= limit + 10


def test_packets_of_other_streams_count(media, clock):
    path = media.write("few.mkv", times=[0.0, 0.1], audio=media.sine(440, 8))
    # Matroska states no length of the picture: the packets up to the end are looked through.
    probe_video(path, time_limit_seconds=1e6)
    assert clock.seconds > 8 * 48_000 / 1024
    clock.seconds = 0.0
    with pytest.raises(MediaError, match=LATE):
        probe_video(path, time_limit_seconds=100)


def test_every_frame_comes_out_whichever_stream_is_first(media, tmp_path):
    path = media.write(times=[k / 30 for k in range(48)], audio=media.sine(440, 1.6))
    swapped = tmp_path / "swapped.mp4"
    with av.open(str(path)) as old, av.open(str(swapped), "w") as new:
        order = [old.streams.audio[0], old.streams.video[0]]
        streams = {stream.index: new.add_stream_from_template(stream) for stream in order}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    for file in (path, swapped):
        assert media.numbers(read(file, start=40 / 30, num_frames=8)) == list(range(40, 48))
        assert probe_video(file).duration_seconds == pytest.approx(1.6, abs=1e-3)
    assert torch.equal(read_audio(path), read_audio(swapped))


@pytest.mark.parametrize("reader", [probe_video, read, read_audio])
def test_opening_counts(long_video, reader):
    with pytest.raises(MediaError, match=rf"clip\.mp4: {LATE} 1e-09 s"):
        reader(long_video, time_limit_seconds=1e-9)


def test_the_limit_must_be_positive():
    with pytest.raises(ValueError, match="time_limit_seconds is 0; it must be above 0"):
        Deadline("a.mp4", 0)
    assert 0 < Deadline("a.mp4", 5).seconds_left <= 5


def test_a_message_is_one_line_that_can_be_written():
    name = "a\nb\u2028\udce9 é 踊り\u3000.mp4"
    assert printable(name) == r"a\nb\u2028\udce9 é 踊り" + "\u3000.mp4"
    assert str(MediaError(f"{name}: is odd.")) == printable(name) + ": is odd."


# Sound that would fill the memory


def test_a_leap_of_hours_in_the_sound_is_refused(media):
    sound = media.sine(440, 3)
    path = media.write("leap.mkv", audio=sound, audio_start_seconds=0.0, audio_hole=(1.0, 2.0))
    assert read_audio(path)[20_000:30_000].abs().max() == 0
    video = {"times": [0.0, 0.1, 0.2], "audio": sound}
    path = media.write("late.mkv", audio_start_seconds=4000.0, **video)
    with pytest.raises(MediaError, match=r"late\.mkv: the time stamps of its sound leap by \d+ s"):
        read_audio(path)


@pytest.mark.parametrize("rate_hz", [1, 999, 2_000_000])
def test_impossible_sampling_rates_are_refused(tmp_path, rate_hz):
    path = tmp_path / "song.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(bytes(20_000))
    with pytest.raises(MediaError, match=rf"song\.wav: states a sampling rate of {rate_hz} Hz"):
        read_audio(path)


def test_a_handful_of_samples_is_no_error(tmp_path):
    path = tmp_path / "click.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(np.full(2, 1000, "<i2").tobytes())
    assert len(read_audio(path)) == 1


def test_a_length_of_days_is_refused(media):
    path = media.write("clip.mkv", times=[0.0, 0.1, 90_000.0])
    with pytest.raises(MediaError, match=r"clip\.mkv: states a length of 25 hours; at most 24"):
        probe_video(path)
