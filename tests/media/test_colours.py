"""HDR, untagged HD, interlaced frames, and pictures that change their size on the way."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from musicinfuser.media.errors import MediaError
from musicinfuser.media.video import CropBox, probe_video
from tests.short_clip import read

PQ, HLG, BT2020, BT709, UNSPECIFIED = 16, 18, 9, 1, 2


def write_flat(path, codes, *, pix_fmt, matrix, transfer, primaries, size=(64, 48)):
    """Three frames of one colour, given as limited-range code values of Y, Cb and Cr."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        context = stream.codec_context
        context.colorspace, context.color_range = matrix, 1
        context.color_trc, context.color_primaries = transfer, primaries
        for number in range(3):
            frame = av.VideoFrame(*size, pix_fmt)
            for plane, code in zip(frame.planes, codes, strict=True):
                np.frombuffer(plane, np.uint16 if "10" in pix_fmt else np.uint8)[:] = code
            frame.pts, frame.time_base = number, Fraction(1, 30)
            frame.colorspace, frame.color_range = matrix, 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def codes_of(rgb, *, luma, bits):
    """Limited-range Y, Cb, Cr of R'G'B' in [0, 1]; ``luma`` are the weights of red and blue."""
    red, blue = luma
    y = red * rgb[0] + (1 - red - blue) * rgb[1] + blue * rgb[2]
    cb, cr = (rgb[2] - y) / (2 * (1 - blue)), (rgb[0] - y) / (2 * (1 - red))
    scale = 2 ** (bits - 8)
    return [round(scale * code) for code in (16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr)]


def pq(nits):
    """SMPTE ST 2084, as printed."""
    y = (nits / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def hlg(nits):
    """ITU-R BT.2100 for grey on a display of 1000 nits."""
    scene = (nits / 1000) ** (1 / 1.2)
    if scene <= 1 / 12:
        return (3 * scene) ** 0.5
    return 0.17883277 * np.log(12 * scene - 0.28466892) + 0.55991073


@pytest.mark.parametrize(("transfer", "code"), [(PQ, pq), (HLG, hlg)])
@pytest.mark.parametrize(
    ("nits", "grey"),
    [(0, 0), (203 * 0.5**2.4, 127.5), (203 * 0.8**2.4, 204), (203, 255), (900, 255)],
)
def test_hdr_white_is_white_and_greys_keep_their_place(tmp_path, transfer, code, nits, grey):
    codes = codes_of([code(nits)] * 3, luma=(0.2627, 0.0593), bits=10)
    path = write_flat(
        tmp_path / "phone.mp4",
        codes,
        pix_fmt="yuv420p10le",
        matrix=BT2020,
        transfer=transfer,
        primaries=BT2020,
    )
    for options in ({}, {"height": 24, "width": 32}, {"crop": CropBox(8, 8, 32, 24)}):
        assert (read(path, num_frames=2, **options).float() - grey).abs().max() <= 3
    assert read(path, num_frames=1, decoding="plain").float().mean() == pytest.approx(
        255 * code(nits), abs=2
    )


def test_hdr_colours_are_those_of_bt709(tmp_path):
    light = np.array([0.6, 0.2, 0.1])  # linear BT.709
    to_bt2020 = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    codes = codes_of(
        [pq(203 * part) for part in np.array(to_bt2020) @ light], luma=(0.2627, 0.0593), bits=10
    )
    path = write_flat(
        tmp_path / "phone.mkv",
        codes,
        pix_fmt="yuv420p10le",
        matrix=BT2020,
        transfer=PQ,
        primaries=BT2020,
    )
    wanted = torch.from_numpy(255 * light ** (1 / 2.4))
    assert (read(path, num_frames=1)[0] - wanted).abs().max() <= 3


@pytest.mark.parametrize(
    ("size", "is_hd"),
    [((640, 480), False), ((720, 576), False), ((1280, 720), True), ((720, 1280), True)],
)
def test_untagged_video_is_hd_from_720_lines_on(tmp_path, size, is_hd):
    colour = np.array([0.8, 0.3, 0.2])
    bt709, bt601 = (0.2126, 0.0722), (0.299, 0.114)
    path = write_flat(
        tmp_path / "untagged.mp4",
        codes_of(colour, luma=bt709 if is_hd else bt601, bits=8),
        pix_fmt="yuv420p",
        matrix=UNSPECIFIED,
        transfer=UNSPECIFIED,
        primaries=UNSPECIFIED,
        size=size,
    )
    wanted = torch.from_numpy(255 * colour)
    assert (read(path, num_frames=1)[0] - wanted).abs().max() <= 3
    plain = (read(path, num_frames=1, decoding="plain")[0] - wanted).abs().max()
    assert (plain > 8) == is_hd


@pytest.mark.parametrize(
    ("primaries", "size", "luma"),
    [(BT2020, (64, 48), (0.2627, 0.0593)), (6, (1280, 720), (0.299, 0.114))],
    ids=["BT.2020", "SD made large"],
)
def test_primaries_stand_in_for_a_matrix_that_is_not_named(tmp_path, primaries, size, luma):
    colour = np.array([0.8, 0.3, 0.2])
    path = write_flat(
        tmp_path / "half_tagged.mp4",
        codes_of(colour, luma=luma, bits=8),
        pix_fmt="yuv420p",
        matrix=UNSPECIFIED,
        transfer=UNSPECIFIED,
        primaries=primaries,
        size=size,
    )
    wanted = torch.from_numpy(255 * colour)
    assert (read(path, num_frames=1)[0] - wanted).abs().max() <= 3


def test_dolby_vision_without_a_base_layer_is_refused(tmp_path):
    path = write_flat(
        tmp_path / "phone.mp4",
        [100, 128, 128],
        pix_fmt="yuv420p",
        matrix=UNSPECIFIED,
        transfer=UNSPECIFIED,
        primaries=UNSPECIFIED,
    )
    path.write_bytes(path.read_bytes().replace(b"avc1\0\0\0\0", b"dva1\0\0\0\0"))
    with pytest.raises(MediaError, match=r"phone\.mp4: its colours are Dolby Vision"):
        probe_video(path)


# Interlaced


def bar(field):
    """A bar that moves by two pixels from field to field."""
    image = np.full((48, 64), 30, np.uint8)
    image[:, 2 * field : 2 * field + 12] = 220
    return image


@pytest.mark.parametrize("first", ["tff", "bff"])
@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
def test_interlaced_frames_become_pictures_of_one_moment(tmp_path, first, suffix):
    path = tmp_path / f"tape{suffix}"
    marked = av.filter.Graph()
    source = marked.add_buffer(width=64, height=48, format="yuv420p", time_base=Fraction(1, 25))
    marked.link_nodes(source, marked.add("setfield", first), marked.add("buffersink")).configure()
    with av.open(str(path), "w") as container:
        options = {"x264-params": f"{first}=1", "crf": "4", "g": "6", "bf": "0"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(24):
            early, late = bar(2 * number % 24), bar(2 * number % 24 + 1)
            top, bottom = (early, late) if first == "tff" else (late, early)
            both = np.where(np.arange(48)[:, None] % 2 == 0, top, bottom)
            frame = av.VideoFrame.from_ndarray(np.stack([both] * 3, -1)).reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            marked.push(frame)
            container.mux(stream.encode(marked.vpull()))
        container.mux(stream.encode(None))
    for start, count in ((0.0, 24), (0.32, 10)):
        clip = read(path, start=start, num_frames=count, fps=25)
        for number, picture in enumerate(clip.float().mean(-1), round(start * 25)):
            wanted = torch.from_numpy(bar(2 * number % 24)).float()
            assert (picture[2:-2] - wanted[2:-2]).abs().mean() < 6
    combed = read(path, num_frames=1, fps=25, decoding="plain")[0].float().mean(-1)
    assert (combed[10] - combed[11]).abs().max() > 100


# Changes on the way


@pytest.mark.parametrize("sizes", [((64, 48), (128, 96)), ((128, 96), (64, 48))])
def test_a_picture_that_changes_its_size_is_not_cropped_elsewhere(media, tmp_path, sizes):
    joined = b""
    for number, (width, height) in enumerate(sizes):
        part = media.write(
            f"{number}.ts",
            times=[number + k / 30 for k in range(30)],
            width=width,
            height=height,
            options={"bf": "0"},
        )
        joined += part.read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(joined)
    box = CropBox(0, 0, sizes[0][0] // 2, sizes[0][1] // 2)
    assert read(path, num_frames=20, crop=box).shape == (20, 48, 64, 3)
    a, b = ("x".join(map(str, size)) for size in sizes)
    for start in (0.5, 1.2):
        with pytest.raises(MediaError, match=rf"changes near second 1\.\d\d from {a} to {b} pix"):
            read(path, start=start, num_frames=20, crop=box)
    assert media.numbers(read(path, start=1.0, num_frames=20)) == list(range(20))
