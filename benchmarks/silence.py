"""Lightning without its hints, so that a measurement prints its table only."""

import logging
import warnings

from train import QUIET_WARNINGS


def silence_lightning() -> None:
    """Pass over what Lightning says of itself, in this process from here on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for known in (*QUIET_WARNINGS, ".*LightningCLI's args parameter is intended.*"):
        warnings.filterwarnings("ignore", message=known)
