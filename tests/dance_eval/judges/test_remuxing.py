import av
import pytest
import torch

from dance_eval.judges.remuxing import with_sound
from musicinfuser.media.audio import read_audio
from musicinfuser.media.errors import MediaError
from musicinfuser.media.video import probe_video
from musicinfuser.media.video_writing import write_video
from tests.dancing_square import click_track, swinging_square
from tests.short_clip import read


@pytest.fixture
def dance(tmp_path):
    frames = swinging_square(num_frames=20, fps=30.0, period_seconds=0.3, phase_seconds=0.1)
    path = tmp_path / "dance.mp4"
    sound = click_track([0.1], duration_seconds=20 / 30, rate_hz=16000)
    write_video(path, frames, fps=30.0, audio=sound, audio_rate_hz=16000, comment="the prompt")
    return path


def test_the_picture_stays_to_the_bit_and_the_sound_goes(dance, tmp_path):
    silent = tmp_path / "silent.mp4"
    silent.write_bytes(with_sound(dance, None))
    info = probe_video(silent)
    assert not info.has_audio
    assert info.duration_seconds == pytest.approx(20 / 30)
    assert torch.equal(read(silent, num_frames=20), read(dance, num_frames=20))
    with av.open(str(silent)) as container:
        assert "comment" not in container.metadata


def test_another_sound_starts_with_the_picture(dance, tmp_path):
    other = tmp_path / "other.mp4"
    sound = click_track([0.4], duration_seconds=20 / 30, rate_hz=16000)
    other.write_bytes(with_sound(dance, sound, rate_hz=16000))
    assert torch.equal(read(other, num_frames=20), read(dance, num_frames=20))
    heard = read_audio(other, rate_hz=16000)
    assert int(heard.abs().argmax()) / 16000 == pytest.approx(0.4, abs=0.01)
    assert heard[: int(0.35 * 16000)].abs().max() < 0.05


def test_a_picture_that_begins_late_begins_at_zero(dance, tmp_path):
    late = tmp_path / "late.mkv"
    with av.open(str(dance)) as source, av.open(str(late), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts += 15360
                packet.dts += 15360
                packet.stream = stream
                target.mux(packet)
    early = tmp_path / "early.mp4"
    sound = click_track([0.4], duration_seconds=20 / 30, rate_hz=16000)
    early.write_bytes(with_sound(late, sound, rate_hz=16000))
    with av.open(str(early)) as container:
        assert next(container.decode(video=0)).time == pytest.approx(0, abs=0.001)
    assert int(read_audio(early).abs().argmax()) / 16000 == pytest.approx(0.4, abs=0.01)


def test_what_is_no_video_is_refused(tmp_path):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(MediaError, match=r"x\.mp4"):
        with_sound(path, None)
    with pytest.raises(ValueError, match="together"):
        with_sound(path, torch.zeros(10))
