import pytest

from musicinfuser.clip_size import check_clip_size, latent_shape, num_latent_frames


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
    check_clip_size(9, 24, 48, temporal=4, spatial=4)
    with pytest.raises(ValueError, match=r"4k \+ 1 frames, e\.g\. 5 or 9"):
        check_clip_size(7, 24, 48, temporal=4, spatial=4)
    with pytest.raises(ValueError, match="multiple of 8: 16"):
        check_clip_size(9, 18, 48, temporal=4, spatial=4)


def test_latent_frames_and_shape():
    assert [num_latent_frames(n) for n in (1, 7, 73, 145)] == [1, 2, 13, 25]
    assert num_latent_frames(9, temporal=4) == 3
    assert latent_shape(73, 480, 848) == (12, 13, 60, 106)
    assert latent_shape(7, 32, 48, channels=16) == (16, 2, 4, 6)
