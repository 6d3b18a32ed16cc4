"""Small encoders of frames, written once."""

import pytest

from tests.small_encoders import write_small_clip, write_small_dino


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP with its tokenizer."""
    return write_small_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A DINO."""
    return write_small_dino(tmp_path_factory.mktemp("dino"))
