"""The commands of Lightning: fit, validate, test and predict, and the check of what they need."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import lightning.pytorch as L
import yaml
from jsonargparse import set_parsing_settings
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf.errors import OmegaConfBaseException

import preflight
from callbacks import BetaAnnealing, RunSettings, SampleGeneration, VideoWriter
from callbacks.rank_failures import ending_together, note_main_process
from callbacks.run_folder import RunRecord, checkpoint_to_load, only_training
from callbacks.sigterm import EndOnSigterm
from callbacks.terminal import quiet_lightning, shown_by_default
from musicinfuser.errors import UserError, user_error
from musicinfuser.memory.out_of_memory import named_out_of_memory
from musicinfuser.option_parser import OptionParser

# `${a.b}` is written from the top of a file, also where files are nested under a subcommand.
set_parsing_settings(omegaconf_absolute_to_relative_paths=True)

MEMORY_REMEDY = (
    "add the file of configs/profiles that train.py check names for this GPU, or take smaller or "
    "fewer clips at a time"
)


def run(command: str, options: list[str]) -> "MusicInfuserCLI":
    """Run one command with its options.

    Raises:
        UserError: In one sentence, what the user can mend.
    """
    quiet_lightning()
    note_main_process()
    try:
        with named_out_of_memory("this run", MEMORY_REMEDY):
            return CheckCLI(options) if command == "check" else MusicInfuserCLI([command, *options])
    except Exception as error:
        # jsonargparse wraps what a constructor raises into pages about types.
        refusal = user_error(error)
        if refusal is None or refusal is error:
            raise
        raise refusal from None


class TrainParser(OptionParser, LightningArgumentParser):
    """Lightning's parser, with mistakes in one sentence."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """As jsonargparse's; a reference to a key that is not there is a mistake as others."""
        try:
            return super().parse_args(*args, **kwargs)
        except OmegaConfBaseException as error:
            self.error(f'Parser key "{error.full_key}": {error.msg}')


class MusicInfuserCLI(LightningCLI):
    """LightningCLI in subclass mode, with three callbacks under keys of their own.

    Before a command starts, each part of the run (module, data module, callbacks) that has a method
    ``before_run`` is called with this object: it raises a `UserError` where the run cannot succeed.
    No weights are read and no process is started until then.
    """

    exit_code = 0

    def __init__(self, args: list[str], *, run: bool = True) -> None:
        """Parse, build and, unless ``run`` is off, do what the command says.

        Args:
            args: The command and its options; without the command where ``run`` is off.
            run: Whether to run it.
        """
        self._command = args[0] if run else None
        super().__init__(
            L.LightningModule,
            L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_defaults={"callbacks": [RunSettings(), EndOnSigterm()]},
            save_config_callback=RunRecord,
            save_config_kwargs={"overwrite": True},
            auto_configure_optimizers=False,
            seed_everything_default=42,
            parser_class=TrainParser,
            parser_kwargs={"parser_mode": "omegaconf+"},
            args=args,
            run=run,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command that runs, or all: building the parser of each takes a while."""
        every = LightningCLI.subcommands()
        return {self._command: every[self._command]} if self._command in every else every

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Own keys survive an overlay that replaces the list of callbacks."""
        parser.add_lightning_class_args(BetaAnnealing, "beta_annealing")
        parser.add_lightning_class_args(SampleGeneration, "sample_generation")
        parser.add_lightning_class_args(VideoWriter, "video_writer")
        if self._command is None:
            # Options of single commands, which stand in configs that ship or that runs save.
            parser.add_argument("--ckpt_path", type=str | None, default=None)
            for name in ("weights_only", "return_predictions", "verbose"):
                parser.add_argument(f"--{name}", type=bool | None, default=None)

    def _parse_ckpt_path(self) -> None:
        """Keep the config as given: a checkpoint agrees or is refused (there is no public hook)."""

    def _dump_config(self) -> None:
        """As Lightning's, without checking again what was parsed, and read by the fast parser."""
        if not hasattr(self, "config_dump"):
            text = self.parser.dump(
                self.config,
                format="yaml",
                skip_link_targets=False,
                skip_none=False,
                skip_validation=True,
            )
            whole = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            self.config_dump = whole[self.subcommand] if self.subcommand else whole

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """As Lightning's, with what runs show in a terminal.

        Without a logger, what only writes to one is left out.
        """
        options = self.config_init.get(str(self.subcommand), self.config_init)["trainer"]
        callbacks = options["callbacks"] or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        if options["logger"] is False and any(
            isinstance(c, LearningRateMonitor) for c in callbacks
        ):
            rank_zero_info("trainer.logger is false: no curves are kept, none of rates either.")
            callbacks = [c for c in callbacks if not isinstance(c, LearningRateMonitor)]
        callbacks = [*callbacks, *shown_by_default(options)]
        try:
            return super().instantiate_trainer(callbacks=callbacks, **kwargs)
        except (MisconfigurationException, ValueError) as error:  # of values, all from the user
            reason = " ".join(str(error).split())
            raise UserError(
                f"Lightning refuses the options of the trainer ({reason}); change them."
            ) from error

    def predict(self, **options: Any) -> None:
        """Encode, caption or generate; results go to disk batch by batch, not into memory."""
        self.fit(**options | {"return_predictions": False})

    def fit(self, *, ckpt_path: str | None, **options: Any) -> None:
        """Run the command, once every part of the run has agreed."""
        callbacks: list[L.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        command = str(self.subcommand)
        with ExitStack() as run:
            run.enter_context(ending_together(self.trainer))
            for part in (self.model, self.datamodule, *callbacks):
                if hasattr(part, "before_run"):
                    part.before_run(self)
            checkpoint = checkpoint_to_load(self.trainer, command, ckpt_path)
            if command == "fit":
                run.enter_context(only_training(self.trainer, checkpoint))
            getattr(self.trainer, command)(ckpt_path=checkpoint, **options)

    validate = test = fit


class CheckCLI(MusicInfuserCLI):
    """Parses what fit or predict parse, and starts nothing."""

    def __init__(self, args: list[str]) -> None:
        """Parse and look; ``report`` then says what was found."""
        self._configs = config_files(args)
        super().__init__(args, run=False)

    def instantiate_classes(self) -> None:
        """Build each part by itself, without a trainer, and print the report."""
        self.report = preflight.check(self.parser, self.config, configs=self._configs)
        self.exit_code = 1 if self.report.problems else 0
        print(self.report.text())


def config_files(args: Sequence[str]) -> list[str]:
    """The files that options name, in their order; the parser keeps no list of them."""
    found = []
    for i, option in enumerate(args):
        name, _, value = option.partition("=")
        if name in ("-c", "--config"):
            found.append(value or "".join(args[i + 1 : i + 2]))
    return found
