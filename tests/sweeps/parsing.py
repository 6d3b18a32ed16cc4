"""The options of `train.py`, parsed and not built."""

from lightning_modules.cli import CheckCLI
from tests.conftest import ROOT

ABLATIONS = ROOT / "configs" / "ablations"


class ParsingCLI(CheckCLI):
    """Parses, and builds nothing."""

    def instantiate_classes(self) -> None:
        pass
