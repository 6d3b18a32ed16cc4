from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from musicinfuser.media.errors import MediaError
from musicinfuser.media.video import CropBox, aist_crop, centre_crop, probe_video
from musicinfuser.media.video_writing import write_video
from tests.short_clip import read

CFR_30 = [k / 30 for k in range(48)]
RED, GREEN, BLUE, WHITE = (220, 30, 20), (20, 200, 40), (30, 20, 210), (235, 235, 235)


def quadrants(index, width, height):
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = RED, GREEN
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = BLUE, WHITE
    return image


def corner_colours(image):
    h, w = image.shape[:2]
    points = [
        (h // 4, w // 4),
        (h // 4, 3 * w // 4),
        (3 * h // 4, w // 4),
        (3 * h // 4, 3 * w // 4),
    ]
    return torch.stack([image[y, x] for y, x in points]).int()


# Crop boxes


@pytest.mark.parametrize(
    ("size", "target", "box"),
    [
        ((1920, 1080), (480, 848), CropBox(324, 270, 1272, 720)),  # the authors' own numbers
        ((3840, 2160), (480, 848), CropBox(648, 540, 2544, 1440)),
        ((1280, 720), (480, 848), CropBox(216, 180, 848, 480)),
        ((1920, 1080), (480, 480), CropBox(600, 270, 720, 720)),
    ],
)
def test_aist_crop_is_the_authors_box_at_every_size(size, target, box):
    assert aist_crop(*size, target_height=target[0], target_width=target[1]) == box


@pytest.mark.parametrize("crop", [aist_crop, centre_crop])
@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (641, 479), (100, 1000), (1000, 99)])
@pytest.mark.parametrize("target", [(480, 848), (64, 80), (96, 54)])
def test_crops_lie_inside_with_the_targets_aspect(crop, size, target):
    box = crop(*size, target_height=target[0], target_width=target[1])
    assert box.left >= 0 and box.left + box.width <= size[0]
    assert box.top >= 0 and box.top + box.height <= size[1]
    assert abs(box.width - box.height * target[1] / target[0]) <= max(1, target[1] / target[0])
    assert abs(2 * box.left + box.width - size[0]) <= 1


def test_centre_crop_is_as_large_as_possible():
    assert centre_crop(1920, 1080, target_height=480, target_width=848) == CropBox(6, 0, 1908, 1080)
    assert centre_crop(1080, 1920, target_height=480, target_width=848) == CropBox(
        0, 654, 1080, 611
    )


def test_crops_refuse_impossible_sizes():
    with pytest.raises(ValueError, match="height is .*; it must be above 0"):
        centre_crop(10, 0, target_height=4, target_width=4)


# Probing


def test_probe_tells_size_rate_length_and_sound(media):
    path = media.write(times=CFR_30, audio=media.sine(440, 1.6))
    info = probe_video(path)
    assert (info.path, info.width, info.height, info.rotation_degrees) == (path, 64, 48, 0)
    assert info.duration_seconds == pytest.approx(1.6, abs=1e-3)
    assert info.average_fps == pytest.approx(30, abs=0.01)
    assert info.has_audio


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".flv"])
@pytest.mark.parametrize("late", [0.0, 2.0])
def test_probed_length_is_that_of_the_picture(media, suffix, late):
    times = [late + t for t in CFR_30]
    path = media.write("late" + suffix, times=times)
    assert not probe_video(path).has_audio
    assert probe_video(path).duration_seconds == pytest.approx(1.6, abs=0.005)
    sound = media.sine(440, 5)
    path = media.write("long_sound" + suffix, times=times, audio=sound)
    assert probe_video(path).has_audio
    assert probe_video(path).duration_seconds == pytest.approx(1.6, abs=0.005)


@pytest.mark.parametrize("reader", [probe_video, read])
def test_bad_files_are_one_clear_sentence(reader, bad_file):
    with pytest.raises(MediaError, match=bad_file.name) as caught:
        reader(bad_file)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reader", [probe_video, read])
@pytest.mark.parametrize("cover", [False, True])
def test_songs_are_no_videos(media, reader, cover):
    song = media.write("song.mp3", audio=media.sine(440, 1), audio_codec="mp3", cover=cover)
    with pytest.raises(MediaError, match=r"song\.mp3: has no video stream"):
        reader(song)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_still_images_are_no_videos(tmp_path, suffix):
    Image.new("RGB", (64, 48)).save(tmp_path / f"still{suffix}")
    with pytest.raises(MediaError, match=f"still{suffix}"):
        probe_video(tmp_path / f"still{suffix}")


# Which frames


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".flv"])
@pytest.mark.parametrize("options", [{}, {"bf": "0"}, {"x264-params": "open-gop=1:bframes=3"}])
def test_every_start_of_a_constant_rate_file(media, suffix, options):
    options = {"preset": "veryfast", **options}
    path = media.write("cfr" + suffix, times=CFR_30, options=options, audio=media.sine(440, 2.0))
    for first in range(0, 44):
        clip = read(path, start=first / 30, num_frames=4)
        assert media.numbers(clip) == [first, first + 1, first + 2, first + 3]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_rate_goes_by_time_stamps(media, suffix):
    gaps = np.random.default_rng(5).choice([1 / 60, 1 / 30, 1 / 12, 0.21], size=59)
    times = [0.0, *np.cumsum(gaps)]
    path = media.write("vfr" + suffix, times=times)
    for start in (0.0, 0.333, 1.0, 1.7, 2.51):
        clip = read(path, start=start, num_frames=30)
        assert media.numbers(clip) == media.shown_at(times, start, 30, 30)


@pytest.mark.parametrize("source_fps", [60, 24, 30000 / 1001])
def test_other_rates_are_sampled_at_thirty(media, source_fps):
    times = [k / source_fps for k in range(70)]
    path = media.write(times=times)
    clip = read(path, start=0.25, num_frames=24)
    assert media.numbers(clip) == media.shown_at(times, 0.25, 24, 30)
    if source_fps == 60:
        assert media.numbers(clip) == list(range(15, 63, 2))


def test_frames_at_sixteen_are_late_by_less_than_a_frame_of_the_source(media):
    """As docs/backbones.md says: of 60 frames per second, by 0, 12.5, 8.3 and 4.2 ms in turn."""
    path = media.write(times=[k / 60 for k in range(70)])
    numbers = media.numbers(read(path, num_frames=16, fps=16))
    assert numbers == [15 * (i // 4) + (0, 3, 7, 11)[i % 4] for i in range(16)]
    late = [1000 * (i / 16 - number / 60) for i, number in enumerate(numbers)]
    assert late[:4] == pytest.approx([0, 12.5, 8.333, 4.167], abs=1e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".ts"])
def test_time_zero_is_the_first_frame(media, suffix):
    path = media.write("late" + suffix, times=[1.7 + t for t in CFR_30])
    assert media.numbers(read(path, start=0.5, num_frames=33)) == list(range(15, 48))


def test_the_last_frame_lasts_its_own_duration(media):
    path = media.write(times=CFR_30)
    assert media.numbers(read(path, start=1.5, num_frames=3)) == [45, 46, 47]
    assert media.numbers(read(path, start=1.5, num_frames=6, fps=60)) == [45, 45, 46, 46, 47, 47]
    with pytest.raises(MediaError, match=r"clip\.mp4: ends at second 1\.60, but 4 frames"):
        read(path, start=1.5, num_frames=4)
    with pytest.raises(MediaError, match=r"ends at second 1\.60"):
        read(path, start=25.0, num_frames=1)


@pytest.mark.parametrize("name", ["舞 踊 é.mp4", "a:b.mp4", "-%03d.mp4"])
def test_awkward_file_names(media, name, monkeypatch, tmp_path):
    media.write(times=CFR_30[:6]).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert probe_video(name).width == 64
    assert media.numbers(read(name)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("between", ["0", "2"])
def test_avi_which_states_no_presentation_times(media, codec, between):
    times = [*CFR_30, *(2.0 + t for t in CFR_30)]
    options = {"qmax": "2"} if codec == "mpeg4" else {}
    path = media.write(
        "old.avi",
        times=times,
        time_base=Fraction(1, 30),
        codec=codec,
        options={"bf": between, **options},
    )
    assert probe_video(path).duration_seconds == pytest.approx(3.6, abs=0.1)
    for start in (0.0, 0.7, 1.4, 2.1, 2.9):
        clip = read(path, start=start, num_frames=12)
        assert media.numbers(clip) == media.shown_at(times, start, 12, 30)


def test_damage_is_reported_with_its_second_and_only_where_it_is(media):
    path = media.write(
        times=[k / 30 for k in range(96)],
        draw=lambda k, w, h: np.random.default_rng(k).integers(0, 255, (h, w, 3), dtype=np.uint8),
    )
    seconds = media.damage_packet(path, "video", 52)
    assert 1.6 < seconds < 1.95
    read(path, start=0.2, num_frames=30)
    read(path, start=2.4, num_frames=20)
    with pytest.raises(MediaError, match=r"clip\.mp4: its picture is damaged near second 1\.\d\d"):
        read(path, start=1.2, num_frames=30)


def test_a_download_cut_short_runs_out_of_frames(media, tmp_path):
    frames = torch.randint(0, 255, (60, 48, 64, 3), dtype=torch.uint8)
    write_video(tmp_path / "full.mp4", frames, fps=30)
    data = (tmp_path / "full.mp4").read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) // 2])
    assert read(cut, num_frames=10).shape == (10, 48, 64, 3)
    with pytest.raises(MediaError, match=r"cut\.mp4"):
        read(cut, num_frames=60)


# Which pixels


@pytest.mark.parametrize(
    ("clockwise", "corners"),
    [
        (90, [BLUE, RED, WHITE, GREEN]),
        (180, [WHITE, BLUE, GREEN, RED]),
        (270, [GREEN, WHITE, RED, BLUE]),
    ],
)
def test_rotated_video_is_set_upright_before_the_crop(media, clockwise, corners):
    path = media.write(times=CFR_30[:4], draw=quadrants, color=(1, 1))
    media.rotate_mp4(path, clockwise, 64, 48)
    info = probe_video(path)
    assert (info.width, info.height) == ((64, 48) if clockwise == 180 else (48, 64))
    assert info.rotation_degrees == 360 - clockwise
    whole = read(path, num_frames=2, height=info.height, width=info.width)
    wanted = torch.tensor(corners)
    assert (corner_colours(whole[1]) - wanted).abs().max() <= 6
    box = CropBox(2, 2, info.width // 2 - 4, info.height // 2 - 4)
    corner = read(path, num_frames=1, height=box.height, width=box.width, crop=box)
    assert (corner.int() - wanted[0]).abs().max() <= 8


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le", "yuv444p10le"])
@pytest.mark.parametrize("matrix", [1, 5])
@pytest.mark.parametrize("color_range", [1, 2])
def test_colours_of_every_format_and_range(media, pix_fmt, matrix, color_range):
    path = media.write(
        times=CFR_30[:3], draw=quadrants, pix_fmt=pix_fmt, color=(matrix, color_range)
    )
    clip = read(path, num_frames=3)
    wanted = torch.tensor([RED, GREEN, BLUE, WHITE])
    assert (corner_colours(clip[2]) - wanted).abs().max() <= 6


def test_crop_then_antialiased_resize(media):
    def halves(index, width, height):
        image = np.zeros((height, width, 3), np.uint8)
        image[:, ::4] = 200  # stripes of one pixel: grey once averaged, gone if pixels are skipped
        image[: height // 4] = 40
        return image

    path = media.write(times=CFR_30[:2], draw=halves, options={"crf": "1"}, pix_fmt="yuv444p")
    crop = CropBox(8, 24, 48, 24)
    clip = read(path, num_frames=1, height=6, width=12, crop=crop)
    assert clip.shape == (1, 6, 12, 3) and clip.dtype == torch.uint8
    assert (clip[:, :, 1:-1].int() - 50).abs().max() <= 8
    exact = read(path, num_frames=1, height=24, width=48, crop=crop)
    assert (exact[0, :, ::4].int() - 200).abs().max() <= 12
    assert exact[0, :, 2::4].max() <= 12
    with pytest.raises(MediaError, match="does not lie inside its frame of 64x48"):
        read(path, num_frames=1, crop=CropBox(30, 0, 40, 20))


@pytest.mark.parametrize("wrong", [{"num_frames": 0}, {"height": 0}, {"fps": 0.0}, {"start": -0.1}])
def test_impossible_requests_are_refused(media, wrong):
    with pytest.raises(ValueError, match="must be"):
        read("unread.mp4", **wrong)


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video", "libx264"])
def test_a_transport_stream_is_read_from_a_key_frame_on(media, codec):
    """It is searched by time alone; MPEG-4's decoder shows grey where it lacks a key frame."""
    path = media.write(
        "cut.ts",
        times=[k / 25 for k in range(40)],
        time_base=Fraction(1, 25),
        codec=codec,
        options={"bf": "0", "b": "4000000", "g": "12"},
    )
    for start in (0.2, 0.68, 1.0):
        clip = read(path, start=start, num_frames=6, fps=25)
        first = round(start * 25)
        assert media.numbers(clip) == list(range(first, first + 6))
