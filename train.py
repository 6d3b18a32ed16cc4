"""The door to every job: ``python train.py fit|validate|predict|check --config ...``.

``python train.py sweep FILE`` runs many of them, ``python train.py status FOLDER`` watches.
"""

import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sweeps import commands as sweeps

if __name__ == "__main__" and sweeps.is_ours(sys.argv[1:]):
    sweeps.from_shell()  # before the imports below, which take seconds

import lightning.pytorch as L
from jsonargparse import set_parsing_settings
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import (
    ArgsType,
    LightningArgumentParser,
    LightningCLI,
)
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf.errors import OmegaConfBaseException

import preflight
from callbacks import AtomicCheckpoint, BetaAnnealing, RunSettings, SampleGeneration, VideoWriter
from callbacks.atomic_checkpoint import checkpoint_folders, folder_of
from callbacks.rank_failures import ending_together, leave, note_main_process
from callbacks.run_folder import check_start, checkpoint_at, only_training
from callbacks.run_record import RunRecord
from callbacks.sigterm import EndOnSigterm
from callbacks.songs_under_way import SongsUnderWay
from callbacks.terminal import shown_by_default, speak_plainly
from datamodules import DanceDataModule
from lightning_modules import MusicInfuserModule
from musicinfuser.atomic_files import require_writable
from musicinfuser.errors import UserError, looked_for, sentence, user_error
from musicinfuser.memory.out_of_memory import named_out_of_memory
from musicinfuser.option_parser import OptionParser
from musicinfuser.throw_away import throw_away_mode
from preflight.cache import check_encoders

# `${a.b}` is written from the top of a file, also where files are nested under a subcommand.
set_parsing_settings(omegaconf_absolute_to_relative_paths=True)


# Lightning's warnings of what is meant: few workers on small machines, frozen parts in eval mode,
# nothing left to encode, batches that follow from the step (so that their loader has no state to
# keep), a first start with `ckpt_path: last`, a folder of checkpoints that a run goes on in; and an
# API of torch that Lightning still calls.
QUIET_WARNINGS = (
    ".*does not have many workers.*",
    ".*dataloader is not resumable.*",
    ".*in eval mode at the start of training.*",
    ".*length of `DataLoader` across ranks is zero.*",
    ".*no last checkpoint available.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    r".*isinstance\(treespec, LeafSpec\).*",
)

MEMORY_REMEDY = (
    "add --config configs/profiles/40gb.yaml or configs/profiles/24gb.yaml, or take smaller or "
    "fewer clips at a time"
)
EPILOG = (
    "`check` takes the options of fit or predict, says what would go wrong, and runs nothing; "
    "`sweep FILE` runs many of them, `status FOLDER` says how far they are."
)


class TrainParser(OptionParser, LightningArgumentParser):
    """Lightning's parser, with mistakes in one sentence."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """As jsonargparse's; a reference to a key that is not there is a mistake as others."""
        try:
            return super().parse_args(*args, **kwargs)
        except OmegaConfBaseException as error:
            self.error(f'Parser key "{error.full_key}": {error.msg}')


class MusicInfuserCLI(LightningCLI):
    """LightningCLI in subclass mode, with three callbacks under keys of their own."""

    def __init__(self, args: ArgsType = None, *, run: bool = True) -> None:
        """Parse, build and, unless ``run`` is off, do what the verb says."""
        self._has_verb = run
        arguments = sys.argv[1:] if args is None else args
        self._verb = arguments[0] if run and isinstance(arguments, list) and arguments else None
        super().__init__(
            L.LightningModule,
            L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=RunRecord,
            save_config_kwargs={"overwrite": True},
            auto_configure_optimizers=False,
            seed_everything_default=42,
            parser_class=TrainParser,
            parser_kwargs={"parser_mode": "omegaconf+", "epilog": EPILOG},
            args=args,
            run=run,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The verb that is asked for, or all: each has a parser, which takes a while to build."""
        verbs = LightningCLI.subcommands()
        return {self._verb: verbs[self._verb]} if self._verb in verbs else verbs

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Own keys survive an overlay that replaces the list of callbacks."""
        parser.add_lightning_class_args(BetaAnnealing, "beta_annealing")
        parser.add_lightning_class_args(SampleGeneration, "sample_generation")
        parser.add_lightning_class_args(VideoWriter, "video_writer")
        if not self._has_verb:
            # The shipped configs name a checkpoint, which only verbs know.
            parser.add_argument("--ckpt_path", type=str | None, default=None)

    def _parse_ckpt_path(self) -> None:
        """Keep the config as given: a checkpoint never changes it silently, it agrees or stops."""

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """As Lightning's; without a logger, what only writes to one is left out."""
        options = self._get(self.config_init, "trainer")
        if options["logger"] is False:
            callbacks = options["callbacks"] or []
            kept = [c for c in callbacks if not isinstance(c, LearningRateMonitor)]
            if len(kept) < len(callbacks):
                rank_zero_info("trainer.logger is false: no curves are kept, none of rates either.")
            options["callbacks"] = kept
        return super().instantiate_trainer(**kwargs)

    def _run_subcommand(self, subcommand: str) -> None:
        with ending_together(self.trainer), ExitStack() as self._held:
            super()._run_subcommand(subcommand)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> L.Trainer:
        """Add what runs show, and what they keep of their settings."""
        own = [*shown_by_default(config), RunSettings()]
        if (accumulation := config["accumulate_grad_batches"]) < 1:
            raise UserError(
                f"trainer.accumulate_grad_batches is {accumulation}; it must be at least 1."
            )
        try:
            return super()._instantiate_trainer(config, [*callbacks, *own])
        except (MisconfigurationException, ValueError) as error:  # of values, all from the user
            reason = " ".join(str(error).split())
            raise UserError(
                f"Lightning refuses the options of the trainer ({reason}); change them."
            ) from error

    def before_fit(self) -> None:
        """Check what can be checked without reading weights."""
        self._check_folders()
        self._check_cache()
        self._check_ckpt_path()
        self._check_sharding()
        self._held.enter_context(only_training(self.trainer))
        if not throw_away_mode(self.trainer):
            start = self._get(self.config_init, "ckpt_path")
            check_start(checkpoint_folders(self.trainer), start)

    def before_validate(self) -> None:
        """Check what can be checked without reading weights."""
        self._check_folders()
        self._check_cache()
        self._require_checkpoint("validate")

    def before_predict(self) -> None:
        """Check what can be checked without reading weights.

        Results go to disk batch by batch; they are not gathered in memory.
        """
        self._check_folders()
        self.config_init["predict"]["return_predictions"] = False
        # Last, so that what other callbacks write of a batch is written.
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        if isinstance(self.model, MusicInfuserModule):
            callbacks.append(SongsUnderWay())
        callbacks.append(EndOnSigterm())
        if isinstance(self.model, MusicInfuserModule):
            self._require_checkpoint("predict")
            self.model.encoders.fingerprints()

    def _check_folders(self) -> None:
        """Notice a folder that cannot be written before any work is done for it."""
        if not self.trainer.is_global_zero or throw_away_mode(self.trainer):
            return
        folders: dict[str, Any] = {"trainer.default_root_dir": self.trainer.default_root_dir}
        if self.subcommand == "predict":
            folders["video_writer.output_dir"] = self._get(self.config, "video_writer.output_dir")
            if not isinstance(self.datamodule, DanceDataModule):
                folders["data.cache_dir"] = getattr(self.datamodule, "cache_dir", None)
        for option, folder in folders.items():
            if folder is not None and "://" not in str(folder):
                require_writable(folder, option=option)

    def _check_cache(self) -> None:
        """Refuse a cache that other encoders made than those samples are generated with."""
        if not isinstance(self.datamodule, DanceDataModule):
            return
        if not isinstance(self.model, MusicInfuserModule):
            return
        self.datamodule.setup("validate")
        assert self.datamodule.recipe is not None
        check_encoders(self.datamodule.cache_dir, self.datamodule.recipe, self.model.encoders)

    def _check_sharding(self) -> None:
        """A sharded backbone runs on all processes at once; each makes samples of its own.

        Of named requests: samples of the cache's clips are then left out with a word.
        """
        is_sharded = getattr(self.model, "shard_backbone", False) and self.trainer.world_size > 1
        samples = self._get(self.config, "sample_generation")
        if is_sharded and samples.every_n_steps and samples.requests:
            raise UserError(
                "model.shard_backbone and samples while training exclude each other; set "
                "sample_generation.every_n_steps to 0 and `predict` from checkpoints."
            )

    def _check_ckpt_path(self) -> None:
        """Notice a wrong path before weights are read; of a folder, take the newest there."""
        path = self._get(self.config, "ckpt_path")
        is_name = path in (None, "last", "best", "hpc") or "://" in path
        if not is_name and not Path(path).exists():
            raise UserError(f"--ckpt_path names {path}, which does not exist{looked_for(path)}.")
        if not is_name:
            self.config_init[self.subcommand]["ckpt_path"] = checkpoint_at(path)

    def _require_checkpoint(self, verb: str) -> None:
        """`last` without a checkpoint would silently judge the unadapted model."""
        self._check_ckpt_path()
        if self._get(self.config, "ckpt_path") != "last":
            return
        # AtomicCheckpoint falls back on the files of single steps; Lightning's own does not.
        patterns = {
            folder: "*.ckpt" if isinstance(callback, AtomicCheckpoint) else "last*.ckpt"
            for callback in self.trainer.checkpoint_callbacks
            if isinstance(callback, ModelCheckpoint)
            and (folder := folder_of(callback, self.trainer)) is not None
        }
        if not any(path for folder, name in patterns.items() for path in folder.glob(name)):
            raise UserError(
                f"{verb} wants the last checkpoint, but there is none in "
                f"{', '.join(map(str, patterns)) or 'the run folder'}; run fit first, give "
                "--ckpt_path FILE, or --ckpt_path null for the model without training."
            )


class CheckCLI(MusicInfuserCLI):
    """Parses what fit or predict parse, and starts nothing."""

    def __init__(self, args: list[str]) -> None:
        """Parse and look; ``report`` then says what was found."""
        super().__init__(args, run=False)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options of single verbs stand in the configs that runs save."""
        super().add_arguments_to_parser(parser)
        for name in ("weights_only", "return_predictions", "verbose"):
            parser.add_argument(f"--{name}", type=bool | None, default=None)

    def instantiate_classes(self) -> None:
        """Build each part by itself, without a trainer."""
        self.report = preflight.check(self.parser, self.config)


def main(args: ArgsType = None) -> Any:
    """Run one verb; tests and the shell come through here."""
    for known in QUIET_WARNINGS:
        warnings.filterwarnings("ignore", message=known)
    speak_plainly()
    note_main_process()
    arguments = sys.argv[1:] if args is None else args
    if isinstance(arguments, list) and arguments[:1] == ["check"]:
        return _check(arguments[1:])
    try:
        with named_out_of_memory("this run", MEMORY_REMEDY):
            return MusicInfuserCLI(args)
    except Exception as error:
        # jsonargparse wraps what a constructor raises into pages about types.
        refusal = user_error(error)
        if refusal is None or refusal is error:
            raise
        raise refusal from None


def _check(arguments: list[str]) -> CheckCLI:
    # The arguments come from the shell, by way of `main`.
    warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter is intended.*")
    cli = CheckCLI(arguments)
    print(cli.report.text())
    return cli


def from_shell() -> None:
    """Run a verb, and say in one sentence what the user can mend."""
    try:
        done = main()
    except Exception as error:
        said = sentence(error)
        leave(error, f"train.py: {said}" if said else "")
    if isinstance(done, CheckCLI) and done.report.problems:
        sys.exit(1)


if __name__ == "__main__":
    from_shell()
