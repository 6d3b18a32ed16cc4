import json

import pytest

from musicinfuser.clip_size import check_clip_size
from musicinfuser.our_errors import first_of_ours, is_ours


def test_our_own_sentence() -> None:
    with pytest.raises(ValueError) as error:
        check_clip_size(8, 480, 848)
    assert is_ours(error.value) and first_of_ours(error.value) is error.value


def test_an_error_of_a_library() -> None:
    with pytest.raises(ValueError) as error:
        json.loads("{")
    assert not is_ours(error.value) and first_of_ours(error.value) is None
    assert not is_ours(ValueError("never raised")) and first_of_ours(None) is None


def test_our_sentence_inside_the_pages_of_a_library() -> None:
    with pytest.raises(TypeError) as error:
        try:
            check_clip_size(8, 480, 848)
        except ValueError as inner:
            raise TypeError("pages") from inner
    ours = first_of_ours(error.value)
    assert ours is not None and str(ours).startswith("num_frames is 8")
