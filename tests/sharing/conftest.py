"""The fixtures of the networks' tests: a small model, inputs for it, and the authors' files."""

from tests.networks.conftest import (  # noqa: F401 - fixtures
    backbone,
    clip,
    golden,
    make_model,
    pristine_backbone,
    randomise,
)
