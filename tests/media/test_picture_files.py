import numpy as np
import pytest
from PIL import Image

from musicinfuser.media.errors import MediaError
from musicinfuser.media.pictures import read_picture


def halves(left, right, *, height=40, width=80):
    """A picture with a colour on either side."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = left, right
    return Image.fromarray(pixels)


def test_a_picture_of_the_clips_size_is_taken_as_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = read_picture(tmp_path / "a.png", height=32, width=48)
    assert np.array_equal(found.numpy(), pixels)


def test_the_largest_box_in_the_middle_is_resized(tmp_path):
    """Of 80x40 pixels the middle 40x40: left and right are cut away alike."""
    halves((200, 0, 0), (0, 0, 200)).save(tmp_path / "wide.png")
    found = read_picture(tmp_path / "wide.png", height=20, width=20).int()
    assert found.shape == (20, 20, 3)
    assert (found[:, :9] == found.new_tensor((200, 0, 0))).all()
    assert (found[:, 11:] == found.new_tensor((0, 0, 200))).all()
    # What is cut does not count: a border that fills it.
    bordered = np.array(halves((200, 0, 0), (0, 0, 200)))
    bordered[:, :20], bordered[:, 60:] = 255, 255
    Image.fromarray(bordered).save(tmp_path / "bordered.png")
    assert (read_picture(tmp_path / "bordered.png", height=20, width=20) == found).all()


def test_a_photograph_is_turned_upright(tmp_path):
    picture, exif = halves((200, 0, 0), (0, 0, 200), width=40), Image.Exif()
    exif[0x0112] = 6  # the camera was turned: what is on the left belongs on top
    picture.save(tmp_path / "turned.png", exif=exif)
    found = read_picture(tmp_path / "turned.png", height=40, width=40).int()
    assert found[5, 20].tolist() == [200, 0, 0] and found[35, 20].tolist() == [0, 0, 200]


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "CMYK"])
def test_other_kinds_of_pixels(tmp_path, mode):
    name = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    halves((90, 90, 90), (90, 90, 90)).convert(mode).save(name)
    found = read_picture(name, height=16, width=32).int()
    assert (
        found.shape == (16, 32, 3) and (found - 90).abs().max() <= 8
    )  # a palette has no such grey


def test_what_is_no_picture(tmp_path):
    whole = tmp_path / "whole.png"
    halves((1, 2, 3), (200, 100, 50)).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:-40])
    (tmp_path / "text.png").write_text("no picture")
    halves((1, 2, 3), (4, 5, 6)).convert("RGBA").save(tmp_path / "alpha.png")
    clear = np.array(Image.open(tmp_path / "alpha.png"))
    clear[0, 0, 3] = 0
    Image.fromarray(clear).save(tmp_path / "alpha.png")
    Image.fromarray(np.full((8, 8), 60_000, np.uint16)).save(tmp_path / "deep.png")
    for name, message in (
        ("none.png", "none.png: there is no such file"),
        ("cut.png", r"cut.png: cannot be read as a picture \("),
        ("text.png", "text.png: cannot be read as a picture"),
        ("alpha.png", "alpha.png: parts of it are transparent; save it on a background"),
        ("deep.png", "deep.png: its pixels are of the kind I;16; save it with 8 bits"),
    ):
        with pytest.raises(MediaError, match=message) as found:
            read_picture(tmp_path / name, height=16, width=16)
        assert str(found.value).endswith(".") and "\n" not in str(found.value)
