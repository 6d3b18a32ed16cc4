import pytest

from musicinfuser.clip_size import (
    GEOMETRIES,
    MOCHI,
    LatentGeometry,
    check_clip_size,
    clip_shapes,
    frames_within,
    geometry_of,
    latent_shape,
    names_of,
    nearest_size,
    num_latent_frames,
    num_visual_tokens,
)

WIDE, TALL, SQUARE = (480, 848), (848, 480), (640, 640)


@pytest.mark.parametrize("size", [(73, 480, 848), (145, 480, 848), (1, 16, 16), (7, 32, 64)])
def test_sizes_that_fit_pass(size):
    check_clip_size(*size)


@pytest.mark.parametrize(
    ("num_frames", "suggested"),
    [(72, "67 or 73"), (74, "73 or 79"), (0, "1 or 7"), (-4, "1 or 7"), (6, "1 or 7")],
)
def test_frame_counts_that_do_not_fit_name_their_neighbours(num_frames, suggested):
    with pytest.raises(ValueError, match=rf"num_frames is {num_frames}; .* e\.g\. {suggested}\."):
        check_clip_size(num_frames, 480, 848)


@pytest.mark.parametrize(
    ("height", "width", "message"),
    [
        (484, 848, "height is 484 px; it must be a multiple of 16: 480"),
        (480, 856, "width is 856 px; it must be a multiple of 16: "),
        (480, 0, "width is 0 px; it must be a multiple of 16: 16"),
        (8, 848, "height is 8 px; it must be a multiple of 16: 16"),
    ],
)
def test_sides_that_do_not_fit_name_the_nearest(height, width, message):
    with pytest.raises(ValueError, match=message):
        check_clip_size(73, height, width)


def test_other_compressions():
    small = LatentGeometry("Small", temporal=4, spatial=4, channels=16, fps=30.0)
    check_clip_size(9, 24, 48, geometry=small)
    with pytest.raises(ValueError, match=r"Small takes 4k \+ 1 frames, e\.g\. 5 or 9"):
        check_clip_size(7, 24, 48, geometry=small)
    with pytest.raises(ValueError, match="multiple of 8: 16"):
        check_clip_size(9, 18, 48, geometry=small)
    assert latent_shape(9, 24, 48, geometry=small) == (16, 3, 6, 12)


def test_sizes_of_every_family():
    wan, wan_5b = GEOMETRIES["wan"], GEOMETRIES["wan_5b"]
    assert latent_shape(81, 480, 832, geometry=wan) == (16, 21, 60, 104)
    assert num_visual_tokens(81, 480, 832, geometry=wan) == 32_760
    assert latent_shape(121, 704, 1280, geometry=wan_5b) == (48, 31, 44, 80)
    assert num_visual_tokens(121, 704, 1280, geometry=wan_5b) == 27_280
    check_clip_size(81, 480, 832, geometry=wan)
    with pytest.raises(ValueError, match="height is 496 px; it must be a multiple of 32: 512"):
        check_clip_size(73, 496, 832, geometry=wan_5b)
    with pytest.raises(ValueError, match=r"num_frames is 75; Wan takes 4k \+ 1 frames, e\.g\. 73"):
        check_clip_size(75, 480, 832, geometry=wan)
    assert [frames_within(s, fps=16.0, geometry=wan) for s in (0, 1, 5.06, 5.1)] == [1, 13, 77, 81]
    assert geometry_of("mochi") is MOCHI
    with pytest.raises(ValueError, match="no backbone 'ltx'; choose mochi, wan, wan_5b"):
        geometry_of("ltx")


def test_latent_frames_and_shape():
    assert [num_latent_frames(n) for n in (1, 7, 73, 145)] == [1, 2, 13, 25]
    assert latent_shape(73, 480, 848) == (12, 13, 60, 106)


def test_one_size_or_several():
    assert clip_shapes(73, *WIDE, buckets=None) == ((73, *WIDE),)
    several = clip_shapes(73, 1, 1, buckets=[[848, 480], [640, 640]])
    assert several == ((73, *TALL), (73, *SQUARE))
    assert names_of(several) == ["848x480", "640x640"]


def test_buckets_may_name_frames():
    several = clip_shapes(73, 1, 1, buckets=[[480, 848], [145, 480, 848], [7, 640, 640]])
    assert several == ((73, *WIDE), (145, *WIDE), (7, *SQUARE))
    assert names_of(several) == ["73x480x848", "145x480x848", "7x640x640"]
    assert names_of(several[1:2]) == ["480x848"]
    assert names_of([]) == []


@pytest.mark.parametrize(
    ("buckets", "message"),
    [
        ([], "data.buckets is empty; name at least one"),
        ([WIDE, (848, 484)], "data.buckets, 848x484: width is 484 px; it must be a multiple of 16"),
        ([WIDE, SQUARE, WIDE], "data.buckets names 480x848 twice"),
        ([WIDE, (73, *WIDE)], "data.buckets names 480x848 twice"),
        ([WIDE, (1, 73, *WIDE)], r"names \[1, 73, 480, 848\]; a bucket is \[height, width\], or "),
        ([[480]], r"names \[480\]; a bucket is \[height, width\], or \[frames, height, width\]"),
        (
            [WIDE, (144, *WIDE)],
            r"data.buckets, 144x480x848: num_frames is 144; Mochi takes 6k \+ 1 frames, e.g.",
        ),
    ],
)
def test_buckets_that_cannot_be_used(buckets, message):
    with pytest.raises(ValueError, match=message):
        clip_shapes(73, *WIDE, buckets=buckets)


def test_wan_names_its_own_frames():
    with pytest.raises(ValueError, match=r"83x480x832: num_frames is 83; Wan takes 4k \+ 1 frames"):
        clip_shapes(81, 1, 1, [[480, 832], [83, 480, 832]], geometry=GEOMETRIES["wan"])


@pytest.mark.parametrize(
    ("width", "height", "nearest"),
    [
        (1920, 1080, WIDE),
        (640, 480, WIDE),  # 4:3 lies in the middle: 1.325 from 480x848 and 1.333 from square,
        (636, 480, SQUARE),  # a little narrower the other way round
        (480, 480, SQUARE),
        (1080, 1350, SQUARE),  # 4:5
        (480, 640, TALL),
        (1080, 1920, TALL),
        (320, 1000, TALL),
        (4000, 500, WIDE),
    ],
)
def test_the_nearest_aspect(width, height, nearest):
    for sizes in ([WIDE, TALL, SQUARE], [SQUARE, TALL, WIDE]):
        assert nearest_size(width, height, sizes) == nearest


def test_of_equals_the_first():
    assert nearest_size(500, 500, [WIDE, TALL]) == WIDE
    assert nearest_size(500, 500, [TALL, WIDE]) == TALL
