"""Sweep files: what is taken, and the sentence for what is not."""

from pathlib import Path

import pytest

from musicinfuser.setting_differences import differences
from sweeps.plan import merged, plan_runs
from sweeps.settings import SweepError, build_executor, read_sweep
from tests.sweeps.doors import write_sweep

OURS = {"name": "Ours"}


@pytest.mark.parametrize(
    ("rows", "changes", "sentence"),
    [
        ([], {}, "neither rows nor axes"),
        ([OURS, {"name": "ours!"}], {}, "'Ours' and 'ours!' would share a folder"),
        ([OURS], {"seeds": [1, 1]}, "seeds is .1, 1."),
        ([OURS], {"colour": "red"}, "colour"),
        ([{"name": "A", "steps": 3}], {}, "steps"),
        ([{"name": "A", "overlays": ["none.yaml"]}], {}, "names none.yaml, which does not exist"),
        ([{"name": "A", "train": False, "clips": "x"}], {}, "several of train: false"),
        ([{"name": "A", "adapters_of": "B"}], {}, "adapters of 'B', which is no row that trains"),
        ([{"name": "A", "clips": "x", "options": {"a": 1}}], {}, "only scores clips"),
        ([OURS, {"name": "A", "adapters_of": "Ours", "seeds": [7]}], {}, "wants the seeds .7."),
    ],
)
def test_mistakes_are_said_in_one_sentence(
    tmp_path: Path, rows: list, changes: dict, sentence: str
) -> None:
    path = write_sweep(tmp_path, rows, **changes)
    with pytest.raises(SweepError, match=sentence) as raised:
        read_sweep(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_axes_are_rows_of_all_combinations(tmp_path: Path) -> None:
    overlay = tmp_path / "fast.yaml"
    overlay.write_text("trainer: {max_steps: 1}\n")
    axes = {"speed": {"slow": None, "fast": str(overlay)}, "again": {"no": None, "yes": None}}
    runs = plan_runs(read_sweep(write_sweep(tmp_path, [OURS], axes=axes, seeds=[5])))
    assert [run.name for run in runs] == [
        "ours_seed5",
        "speed_slow_again_no_seed5",
        "speed_slow_again_yes_seed5",
        "speed_fast_again_no_seed5",
        "speed_fast_again_yes_seed5",
    ]
    command = runs[-1].stages[0].command
    # Overlays come after the options that all rows share.
    shared = command.index("--trainer.max_steps=3")
    assert command.index(f"--config={overlay}") > shared


def test_an_executor_that_is_none(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, [OURS], executor={"class_path": "pathlib.Path"})
    with pytest.raises(SweepError, match="executor: "):
        build_executor(read_sweep(path))


def test_configs_laid_over_each_other(tmp_path: Path) -> None:
    (tmp_path / "below.yaml").write_text("a: {b: 1, c: [1, 2]}\nd: 4\n")
    (tmp_path / "above.yaml").write_text("a: {c: [3]}\n")
    below = merged([([tmp_path / "below.yaml"], {})])
    above = merged([([tmp_path / "below.yaml"], {}), ([tmp_path / "above.yaml"], {"d.e": 5})])
    assert above == {"a": {"b": 1, "c": [3]}, "d": {"e": 5}}
    assert below == {"a": {"b": 1, "c": [1, 2]}, "d": 4}
    assert differences(above, below, where="run", missing="nothing") == [
        "a.c: (1, 2) in the run, (3,) in the config",
        "d: 4 in the run, nothing in the config",
        "d.e: nothing in the run, 5 in the config",
    ]
