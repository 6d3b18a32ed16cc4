import os

import av
import pytest
import torch

from musicinfuser.media.audio import read_audio
from musicinfuser.media.errors import MediaError
from musicinfuser.media.video_writing import write_video
from tests.short_clip import read


def smooth_clip(num_frames=73, height=48, width=80):
    """Coloured waves that drift, without edges."""
    t, y, x, c = torch.meshgrid(
        *[torch.arange(float(n)) for n in (num_frames, height, width, 3)], indexing="ij"
    )
    return (128 + 90 * torch.sin(x / 30 + y / 40 + t / 20 + c)).round().to(torch.uint8)


def test_conversion_is_unbiased(media):
    frames = smooth_clip(3)
    path = media.write(
        times=[k / 30 for k in range(3)],
        draw=lambda k, w, h: frames[k].numpy(),
        width=80,
        options={"crf": "1", "preset": "medium"},
        color=(1, 1),
    )
    difference = read(path, num_frames=3, width=80).float() - frames.float()
    assert difference.mean(dim=(0, 1, 2)).abs().max().item() < 0.5
    assert difference.abs().mean().item() < 1


def test_written_video_reads_back(tmp_path):
    path = tmp_path / "new" / "folder" / "dance.mp4"
    frames = smooth_clip()
    rate = 16000
    click = torch.zeros(5 * rate)
    click[rate : rate + 40] = 0.9
    write_video(path, frames, fps=30, audio=click, audio_rate_hz=rate, comment="a dancer; seed 7")

    back = read(path, num_frames=73, height=48, width=80)
    assert (back.float() - frames.float()).abs().mean().item() < 1.5
    with pytest.raises(MediaError, match="ends at second 2.43"):
        read(path, num_frames=74, height=48, width=80)

    with av.open(str(path)) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        assert container.metadata["comment"] == "a dancer; seed 7"
        assert (video.codec_context.name, video.pix_fmt, sound.codec_context.name) == (
            "h264",
            "yuv420p",
            "aac",
        )
        context = video.codec_context
        tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        assert tags == (1, 1, 1, 1)
        assert video.average_rate == 30
        assert float(sound.duration * sound.time_base) == pytest.approx(73 / 30, abs=0.001)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")

    heard = read_audio(path, rate_hz=rate)
    assert len(heard) == pytest.approx(73 / 30 * rate, abs=1100)
    assert abs(int(heard.abs().argmax()) - rate - 20) < 40
    assert os.listdir(path.parent) == ["dance.mp4"]


@pytest.mark.parametrize("rate", [48000, 10000])
def test_stereo_and_odd_rates_are_written(tmp_path, media, rate):
    path = tmp_path / "stereo.mp4"
    left = torch.from_numpy(media.sine(300, 0.5, rate)).float()  # shorter than the picture
    write_video(
        path,
        smooth_clip(30),
        fps=30,
        audio=torch.stack([left, torch.zeros_like(left)]),
        audio_rate_hz=rate,
    )
    first = read_audio(path, rate_hz=rate, channel="first", duration_seconds=0.45)
    assert (first - left[: len(first)]).abs().mean() < 0.02
    mean = read_audio(path, rate_hz=rate, duration_seconds=0.45)
    assert (mean - left[: len(mean)] / 2).abs().mean() < 0.02
    assert read_audio(path, rate_hz=rate, start_seconds=0.6).abs().max() < 0.02
    assert len(read_audio(path, rate_hz=rate, duration_seconds=1.0)) == rate


def test_writing_twice_gives_the_same_bytes(tmp_path, media):
    sound = torch.from_numpy(media.sine(200, 1.0, 16000)).float()
    for name in ("one.mp4", "two.mp4"):
        write_video(tmp_path / name, smooth_clip(20), fps=29.97, audio=sound, audio_rate_hz=16000)
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()


def test_pieces_give_the_same_bytes_and_are_taken_one_after_another(tmp_path):
    frames, taken = smooth_clip(200, 32, 32), []
    sound = 0.3 * torch.sin(torch.arange(round(200 / 30 * 16_000)) / 9)

    def pieces():
        for piece in frames.split(40):
            taken.append(len(piece))
            yield piece
            taken.append((tmp_path / "pieces.mp4").exists())

    options = {"fps": 30, "audio": sound, "audio_rate_hz": 16_000}
    write_video(tmp_path / "pieces.mp4", pieces(), **options)
    write_video(tmp_path / "whole.mp4", frames, **options)
    assert (tmp_path / "pieces.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert taken == [40, False] * 5


def test_what_fails_between_pieces_leaves_nothing(tmp_path):
    def pieces():
        yield smooth_clip(30)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_video(tmp_path / "clip.mp4", pieces(), fps=30)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": smooth_clip(3)[:, :47]}, "even sides"),
        ({"frames": smooth_clip(3).float()}, "uint8"),
        ({"frames": smooth_clip(3)[:0]}, "uint8"),
        ({"audio": torch.zeros(9)}, "together"),
        ({"audio": torch.zeros(3, 9), "audio_rate_hz": 16000}, "one or two channels"),
        ({"path": "clip.avi"}, r"\.mp4"),
        ({"fps": 0}, "fps is 0; it must be above 0"),
    ],
)
def test_unfit_arguments_are_refused_and_nothing_is_left(tmp_path, change, message):
    arguments = {"path": "clip.mp4", "frames": smooth_clip(3), "fps": 30, **change}
    path = tmp_path / arguments.pop("path")
    with pytest.raises(ValueError, match=message):
        write_video(path, arguments.pop("frames"), **arguments)
    assert os.listdir(tmp_path) == []


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old")
    broken = torch.zeros(16000)
    broken[8000:] = float("nan")
    with pytest.raises(MediaError, match=r"clip\.mp4: cannot be written"):
        write_video(path, smooth_clip(30), fps=30, audio=broken, audio_rate_hz=16000)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_a_file_where_a_folder_is_needed(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(MediaError, match=r"clip\.mp4: cannot be written"):
        write_video(tmp_path / "taken" / "clip.mp4", smooth_clip(2), fps=30)
