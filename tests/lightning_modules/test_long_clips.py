from types import SimpleNamespace

import pytest

from lightning_modules.long_clips import window_bars


def run(*, is_global_zero: bool, bar: object) -> None:
    trainer = SimpleNamespace(is_global_zero=is_global_zero, progress_bar_callback=bar)
    with window_bars(trainer) as on_window:
        for num_windows in (8, 3):
            for _ in range(num_windows):
                on_window(num_windows)


def test_each_song_has_a_bar_of_its_own(capsys) -> None:
    run(is_global_zero=True, bar=object())
    shown = capsys.readouterr().err
    assert "0/8" in shown and "0/3" in shown and "Windows" in shown


@pytest.mark.parametrize(("is_global_zero", "bar"), [(False, object()), (True, None)])
def test_other_ranks_and_quiet_runs_show_none(capsys, is_global_zero, bar) -> None:
    run(is_global_zero=is_global_zero, bar=bar)
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""
