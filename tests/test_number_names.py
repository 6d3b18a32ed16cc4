"""Names made of numbers tell the numbers apart."""

import pytest

from dance_eval.metrics.tempo_response import TempoResponse
from datamodules.track_tempi import TempoSpec
from lightning_modules.settings import ValidationSpec
from musicinfuser.number_names import decimal_names, exact_name


@pytest.mark.parametrize(
    ("number", "name"),
    [(0.75, "0.75"), (1.0, "1"), (1, "1"), (0.7512345, "0.7512345"), (1.00000001, "1.00000001")],
)
def test_exact_names_read_back_as_the_number(number: float, name: str) -> None:
    assert exact_name(number) == name
    assert float(name) == number


@pytest.mark.parametrize(
    ("numbers", "names"),
    [
        ((0.2, 0.4, 0.6, 0.8, 0.95), ["0.20", "0.40", "0.60", "0.80", "0.95"]),
        ((0.951, 0.949, 0.2), ["0.951", "0.949", "0.20"]),
        ((0.1, 0.10001), ["0.10000", "0.10001"]),
        ((1.0, 0.999, 0.5), ["1.000", "0.999", "0.50"]),
        ((0.001,), ["0.00"]),
    ],
)
def test_decimal_names_grow_where_two_would_be_one(numbers: tuple, names: list[str]) -> None:
    assert decimal_names(numbers) == names


def test_levels_of_validation_have_names_of_their_own() -> None:
    assert ValidationSpec().names == ["0.20", "0.40", "0.60", "0.80", "0.95"]
    assert ValidationSpec((0.501, 0.5, 0.3)).names == ["0.501", "0.500", "0.30"]
    with pytest.raises(ValueError, match="name each level once"):
        ValidationSpec((0.5, 0.2, 0.5))


def test_tempi_that_round_alike_are_files_and_values_of_their_own(tmp_path) -> None:
    spec = TempoSpec(factors=[0.75, 0.7500001, 1.0], folder=str(tmp_path))
    track = tmp_path / "song.wav"
    files = [path.name for path, _ in spec.starts([track], offset_seconds=0.0)]
    assert files == ["song_tempo_0.75.wav", "song_tempo_0.7500001.wav", "song.wav"]
    names = TempoResponse(tempi=[0.75, 0.7500001]).value_names
    assert names[::3] == ("median_ratio_x0.75", "median_ratio_x0.7500001")
    assert len(set(names)) == 6
