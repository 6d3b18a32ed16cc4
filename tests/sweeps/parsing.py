"""The options of `train.py`, parsed and not built."""

from tests.conftest import ROOT
from train import CheckCLI

ABLATIONS = ROOT / "configs" / "ablations"


class ParsingCLI(CheckCLI):
    """Parses, and builds nothing."""

    def instantiate_classes(self) -> None:
        pass
