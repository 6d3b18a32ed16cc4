"""One training at a time in a folder, and what it may start from and leave there."""

import os
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from callbacks import ProgressFile
from callbacks.atomic_checkpoint import checkpoint_folders
from callbacks.run_folder import RunFolderError, check_start, checkpoint_at, only_training
from musicinfuser.folder_lock import locked
from tests.callbacks.test_atomic_checkpoint import VALIDATED, Terminate, load, saver, stop
from tests.callbacks.test_checkpoint_files import write
from tests.small_training import Line, batches, trainer
from tests.test_resume import assert_equal

MODES = [{"fast_dev_run": 3}, {"fast_dev_run": True}, {"overfit_batches": 2}]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", [{}, {"save_last": "link"}, {"save_on_exception": True}])
def test_what_is_thrown_away_leaves_no_trace(tmp_path: Path, mode: dict, options: dict) -> None:
    def run(num_steps: int, **more) -> int:
        folder = tmp_path / "c"
        callbacks = saver(folder, 1, save_top_k=1, **options), ProgressFile()
        made = trainer(tmp_path, *callbacks, num_steps=num_steps, **more)
        made.fit(Line(), batches(6), ckpt_path="last")
        return made.global_step

    assert run(2, **mode) > 0
    assert files(tmp_path) == {}
    assert run(2) == 2
    unfinished = tmp_path / "c" / f".{'0a' * 16}.ckpt"
    unfinished.write_bytes(b"of a training that is under way")
    before = files(tmp_path)
    # It starts at step 0; of the run that is there it would have nothing to do.
    assert run(1, **mode) == (3 if mode.get("fast_dev_run") == 3 else 1)
    assert files(tmp_path) == before
    assert run(4) == 4


def test_an_end_by_sigterm_or_an_error_keeps_nothing_either(tmp_path: Path, capsys) -> None:
    class Broken(Line):
        def training_step(self, batch, batch_idx):
            if batch_idx == 1:
                raise RuntimeError("broken")
            return super().training_step(batch, batch_idx)

    saving = {"every_n_steps": 1, "save_on_exception": True}
    run = trainer(tmp_path, saver(tmp_path / "c", **saving), num_steps=9, overfit_batches=2)
    with pytest.raises(RuntimeError, match="broken"):
        run.fit(Broken(), batches(2))
    end = trainer(tmp_path, Terminate(1), saver(tmp_path / "c"), num_steps=9, overfit_batches=4)
    stop(end, Line(), batches(4))
    assert files(tmp_path) == {}
    assert "same command goes on" not in capsys.readouterr().err


def test_lightnings_own_checkpoints_are_left_out(tmp_path: Path) -> None:
    own = ModelCheckpoint(tmp_path / "own", save_last=True)
    run = trainer(tmp_path, own, saver(tmp_path / "c"), num_steps=9, fast_dev_run=2)
    with only_training(run):
        run.fit(Line(), batches(2))
    assert files(tmp_path) == {}


def test_a_sanity_check_leaves_nothing(tmp_path: Path) -> None:
    checkpoints = []
    for sanity in (0, 2):
        folder = tmp_path / str(sanity)
        run = trainer(
            tmp_path, saver(folder, 2), num_steps=4, **VALIDATED, num_sanity_val_steps=sanity
        )
        run.fit(Line(), batches(6), batches(3))
        assert {p.name for p in folder.iterdir()} == {"step=2.ckpt", "step=4.ckpt", "last.ckpt"}
        checkpoints.append(load(folder / "last.ckpt"))
    for key in ("state_dict", "optimizer_states", "loops", "global_step"):
        assert_equal(*(checkpoint[key] for checkpoint in checkpoints))


def test_a_second_training_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    first, second = (trainer(tmp_path, saver(tmp_path / "c"), num_steps=1) for _ in range(2))
    with only_training(first):
        with pytest.raises(RunFolderError, match=rf"another .* \(process {os.getpid()} on .*wait"):
            with only_training(second):
                pass
        with only_training(trainer(tmp_path, num_steps=1, fast_dev_run=True)):
            pass
    with only_training(second):
        pass
    with pytest.raises(ZeroDivisionError), only_training(second):
        1 / 0  # noqa: B018 - an error lets go
    with only_training(first):
        pass


def test_checkpoints_elsewhere_are_kept_apart_too(tmp_path: Path) -> None:
    def run(root: str, folder: str):
        return trainer(tmp_path / root, saver(tmp_path / folder), num_steps=1)

    with only_training(run("a", "x")):
        with pytest.raises(RunFolderError, match="another training works in .*/x "):
            with only_training(run("b", "x")):
                pass
        with only_training(run("b", "y")):
            pass
    # Also where one's checkpoints lie in the folder of the other, where they do by default.
    pair = run("a", "a/c"), run("b", "a/c")
    for first, second in (pair, pair[::-1]):
        with only_training(first):
            with pytest.raises(RunFolderError, match="another training works in .*/a/c "):
                with only_training(second):
                    pass
            with only_training(run("e", "a/d")):
                pass


def test_only_the_main_process_takes_the_lock(tmp_path: Path, monkeypatch) -> None:
    run = trainer(tmp_path, num_steps=1)
    with locked(tmp_path / ".training.lock"):
        monkeypatch.setattr(type(run), "is_global_zero", False)
        with only_training(run):
            pass


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    expected = r"file/run cannot be written \(Not a directory\); give another trainer.default_root"
    with pytest.raises(RunFolderError, match=expected):
        with only_training(trainer(tmp_path / "file" / "run", num_steps=1)):
            pass


def test_a_training_below_the_newest_checkpoint_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    check_start([folder], None)
    for step in (2, 4):
        write(folder / f"{step}.ckpt", step)
    for name in ("last", str(folder / "4.ckpt"), str(write(tmp_path / "other.ckpt", 4))):
        check_start([folder], name)
    expected = r"null, which starts at step 0, but .*/c holds 4\.ckpt of step 4, and .*move those"
    with pytest.raises(RunFolderError, match=expected):
        check_start([folder], None)
    for path in (folder / "2.ckpt", write(tmp_path / "third.ckpt", 3)):
        with pytest.raises(RunFolderError, match=r"starts at step [23], but .* 4\.ckpt of step 4"):
            check_start([folder], str(path))
    for path in folder.iterdir():
        path.write_bytes(b"half")
    with pytest.raises(RunFolderError, match=r"holds \d\.ckpt, which cannot be read"):
        check_start([folder], None)


def test_last_is_the_highest_step_of_all_folders(tmp_path: Path) -> None:
    for step, name in ((1, "a"), (3, "b")):
        run = trainer(tmp_path, saver(tmp_path / name, 1), num_steps=step)
        run.fit(Line(), batches(4))
    os.utime(tmp_path / "a" / "last.ckpt")  # whose file is younger
    both = saver(tmp_path / "a", 9), saver(tmp_path / "b", 8)
    run = trainer(tmp_path, *both, num_steps=3)
    run.fit(Line(), batches(4), ckpt_path="last")
    assert run.ckpt_path == str(tmp_path / "b" / "last.ckpt")


def test_a_folder_as_checkpoint_is_its_newest(tmp_path: Path) -> None:
    newest = write(tmp_path / "c" / "4.ckpt", 4)
    write(tmp_path / "c" / "last.ckpt", 2)
    assert checkpoint_at(str(tmp_path / "c")) == str(newest)
    assert checkpoint_at(str(newest)) == str(newest)
    with pytest.raises(RunFolderError, match="names the folder .*, which holds no checkpoint"):
        checkpoint_at(str(tmp_path))


def test_a_folder_that_the_logger_names_counts(tmp_path: Path) -> None:
    """Of a checkpoint callback without ``dirpath``; before the run starts, it has none."""
    folder = tmp_path / "logs" / "checkpoints"
    for step, start in ((2, None), (3, "last")):
        logger = CSVLogger(tmp_path, name="logs", version="")
        run = trainer(tmp_path, saver(None, 1), num_steps=step, logger=logger)  # type: ignore[arg-type]
        assert checkpoint_folders(run) == [folder]
        run.fit(Line(), batches(4), ckpt_path=start)
        assert run.ckpt_path == (str(folder / "last.ckpt") if start else None)
    with pytest.raises(RunFolderError, match="null, which starts at step 0, but"):
        check_start(checkpoint_folders(run), None)
