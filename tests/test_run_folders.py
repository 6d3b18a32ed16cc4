"""Folders that cannot be written, paths from elsewhere, and runs without a logger."""

import contextlib
import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from dance_eval.commands import score
from musicinfuser.atomic_files import require_writable
from musicinfuser.errors import UserError, in_one_sentence
from tests.conftest import ROOT
from train import main


def test_a_training_without_a_logger_keeps_its_record(
    run_cli: Callable, small_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run_cli("fit", "--trainer.logger=false", cache=small_cache)
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()
    # Where `convert checkpoint` and the verbs look for it.
    record = yaml.safe_load((tmp_path / "logs" / "config_fit.yaml").read_text())
    assert record["trainer"]["logger"] is False
    assert not (tmp_path / "config_fit.yaml").exists()
    assert not list(tmp_path.rglob("events.out.*"))
    main(["fit", f"--config={tmp_path}/logs/config_fit.yaml", "--trainer.max_steps=3"])


@pytest.mark.parametrize("verb", ["fit", "validate", "predict"])
def test_a_run_folder_that_cannot_be_written(
    run_cli: Callable, small_cache: Path, tmp_path: Path, verb: str
) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError) as raised:
        run_cli(verb, cache=small_cache, root=tmp_path / "taken" / "run")
    assert str(raised.value) == (
        f"{tmp_path}/taken/run cannot be written (Not a directory); give another "
        "trainer.default_root_dir."
    )


def test_check_names_a_run_folder_that_cannot_be_written(
    run_cli: Callable, small_cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file")
    report = run_cli("check", cache=small_cache, root=tmp_path / "taken" / "run").report
    assert any(
        "taken/run" in problem and "cannot be written" in problem for problem in report.problems
    )


def test_an_output_that_cannot_be_written_is_refused_before_scoring(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_text("no video")
    (tmp_path / "taken").write_text("a file")
    options = ["clips", "--output", str(tmp_path / "taken" / "metrics.json")]
    with contextlib.chdir(tmp_path):
        settings = score.parser().parse_args(options)
        with pytest.raises(UserError, match=r"taken cannot be written .*give another --output"):
            score.run(settings)


def test_trying_a_folder_leaves_nothing(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "deep", option="x")
    assert not list(tmp_path.iterdir())


def test_relative_paths_say_where_they_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configs = [
        f"--config={ROOT}/configs/base.yaml",
        f"--config={ROOT}/configs/small_world/small.yaml",
    ]
    with pytest.raises(UserError) as raised:
        main(["fit", *configs, "--sample_generation.every_n_steps=0"])
    said = str(raised.value)
    assert f"looked for in {tmp_path}, where the command runs; give the whole path" in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_what_the_system_refuses_is_no_traceback(
    number: int, capsys: pytest.CaptureFixture
) -> None:
    def refused() -> None:
        raise OSError(number, "refused", "/there")

    with pytest.raises(SystemExit) as stop, in_one_sentence("program"):
        refused()
    assert str(stop.value.code).startswith("program: /there: ")
    # Other errors of the system, and a fault that follows on one, keep their tracebacks.
    with pytest.raises(FileNotFoundError), in_one_sentence("program"):
        raise FileNotFoundError(errno.ENOENT, "gone", "x")
    with pytest.raises(ZeroDivisionError), in_one_sentence("program"):
        try:
            refused()
        except OSError:
            print(1 / 0)


@pytest.mark.parametrize(
    ("goes_on", "said"),
    [(False, "program: stopped.\n"), (True, "program: stopped; repeat the command to go on.\n")],
)
def test_an_interrupt_is_no_traceback(
    goes_on: bool, said: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stop, in_one_sentence("program", goes_on=goes_on):
        raise KeyboardInterrupt
    assert stop.value.code == 130
    assert capsys.readouterr().err == said
