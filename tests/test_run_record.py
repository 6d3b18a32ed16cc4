"""What a command does to a run's folder: a refused one nothing, a second training nothing."""

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as L
import pytest
import yaml

from callbacks.run_folder import RunFolderError
from lightning_modules.checkpointing import CheckpointMismatchError
from musicinfuser.folder_lock import locked

ALL = "--trainer.limit_val_batches=1.0"
RANK = "--model.init_args.lora.rank=3"


@pytest.fixture
def used(fitted: SimpleNamespace, tmp_path: Path) -> Path:
    """A copy of a run of two steps."""
    return Path(shutil.copytree(fitted.root, tmp_path / "used"))


def kept(root: Path) -> dict[str, str]:
    """All a later command may read; each start adds its own file of curves."""
    return {
        str(path.relative_to(root)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith((".training", "events.", "hparams"))
    }


def rank(root: Path, verb: str) -> int:
    text = (root / "logs" / f"config_{verb}.yaml").read_text()
    return yaml.safe_load(text)["model"]["init_args"]["lora"]["rank"]


def test_a_refused_command_changes_nothing(run_cli, small_cache: Path, used: Path) -> None:
    assert rank(used, "fit") == 2
    run_cli("validate", ALL, cache=small_cache, root=used)
    assert rank(used, "validate") == 2
    before = kept(used)
    for verb in ("fit", "validate"):
        with pytest.raises(CheckpointMismatchError, match="2 in the checkpoint, 3 in the config"):
            run_cli(verb, RANK, "--trainer.max_steps=4", cache=small_cache, root=used)
    # Refused by the last hook before the first step.
    late = "--trainer.callbacks+=tests.test_run_record.Late"
    with pytest.raises(ValueError, match="too late"):
        run_cli("fit", late, "--trainer.max_steps=4", cache=small_cache, root=used)
    # Nothing is left to do, so nothing starts.
    run_cli("fit", "--data.init_args.num_workers=1", cache=small_cache, root=used)
    assert kept(used) == before


def test_a_started_training_is_recorded(run_cli, small_cache: Path, used: Path) -> None:
    run_cli("fit", "--trainer.max_steps=3", cache=small_cache, root=used)
    text = (used / "logs" / "config_fit.yaml").read_text()
    assert yaml.safe_load(text)["trainer"]["max_steps"] == 3


@pytest.mark.parametrize("mode", ["fast_dev_run=2", "overfit_batches=2"])
def test_a_training_to_throw_away_leaves_the_run_as_it_is(
    run_cli, small_cache: Path, used: Path, mode: str
) -> None:
    before = kept(used)
    more = "callbacks.AdapterExport", "callbacks.ProgressFile"
    options = [f"--trainer.{mode}", *(f"--trainer.callbacks+={name}" for name in more)]
    assert run_cli("fit", *options, cache=small_cache, root=used).trainer.global_step == 2
    run_cli("fit", *options, "--ckpt_path=null", cache=small_cache, root=used)
    assert kept(used) == before
    steps = run_cli("fit", "--trainer.max_steps=3", cache=small_cache, root=used)
    assert steps.trainer.global_step == 3


def test_starting_over_in_a_used_folder_is_refused(
    run_cli, small_cache: Path, used: Path, tmp_path: Path
) -> None:
    before = kept(used)
    with pytest.raises(RunFolderError, match="null, which starts at step 0, but .* of step 2"):
        run_cli("fit", "--ckpt_path=null", cache=small_cache, root=used)
    assert kept(used) == before
    run_cli("validate", "--ckpt_path=null", cache=small_cache, root=used)
    fresh = run_cli("fit", "--ckpt_path=null", cache=small_cache, root=tmp_path / "fresh")
    assert fresh.trainer.global_step == 2
    # A folder stands for its newest checkpoint.
    folder = f"--ckpt_path={used}/checkpoints"
    cli = run_cli("validate", folder, cache=small_cache, root=tmp_path / "other")
    assert Path(cli.trainer.ckpt_path) == used / "checkpoints" / "last.ckpt"


def test_a_second_training_is_refused(run_cli, small_cache: Path, used: Path) -> None:
    before = kept(used)
    with locked(used / ".training.lock"):
        with pytest.raises(RunFolderError, match="another training works in .*used"):
            run_cli("fit", "--trainer.max_steps=3", cache=small_cache, root=used)
        run_cli("validate", ALL, cache=small_cache, root=used)
    before["logs/config_validate.yaml"] = kept(used)["logs/config_validate.yaml"]
    assert kept(used) == before
    steps = [
        run_cli("fit", f"--trainer.max_steps={n}", cache=small_cache, root=used).trainer.global_step
        for n in (3, 4)
    ]
    assert steps == [3, 4]


class Late(L.Callback):
    """Refuses a training when all is set up."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        raise ValueError("too late")
