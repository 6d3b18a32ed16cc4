"""Python looks for no garbage while packages are loaded, and goes on afterwards."""

import gc

import pytest

from musicinfuser.loading import loading


@pytest.fixture
def frozen():
    before = gc.get_freeze_count()
    yield lambda: gc.get_freeze_count() - before
    gc.unfreeze()


def test_what_is_loaded_is_not_looked_through_again(frozen):
    with loading():
        assert not gc.isenabled()
        loaded = [[] for _ in range(100)]
    assert gc.isenabled() and frozen() > len(loaded)


def test_whoever_switched_it_off_finds_it_off(frozen):
    gc.disable()
    try:
        with loading():
            pass
        assert not gc.isenabled() and frozen() == 0
    finally:
        gc.enable()


def test_it_goes_on_after_an_error(frozen):
    with pytest.raises(ImportError), loading():
        raise ImportError
    assert gc.isenabled()
