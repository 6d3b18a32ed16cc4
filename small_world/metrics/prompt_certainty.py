"""Prompt certainty: how sure a probe is that a clip shows what its prompt names.

`PromptObedience` says yes or no; this says how nearly, which tells systems apart that all obey, or
all do not, and it falls with pictures that show nothing clearly.
"""

import math

import torch
from torch import Tensor

from small_world.metrics.prompt_probe import Named, PromptProbe


class PromptCertainty(PromptProbe):
    """The probability that a probe gives to what the prompt names.

    Values per clip, of which `compute` gives the means over the clips that have them:
        certainty: Mean over what the prompt names of the probability of its classes, in [0, 1]; a
            backdrop's is the product of that of its kind and its first colour. Absent where the
            prompt names nothing.
        num_named: How many of genre, top, bottom and backdrop the prompt names.

    Args:
        weights: Folder of an `AttributeNet`, whose phrases are looked for.
        name: Name in tables.

    Raises:
        ProbeError: If the folder holds no such probe.
    """

    value_names = ("certainty", "num_named")
    optional_names = frozenset({"certainty"})

    def __init__(self, *, weights: str, name: str = "prompt_certainty") -> None:
        super().__init__(weights=weights, name=name)

    def compare(self, frames: Tensor, named: Named) -> dict[str, float]:
        """The certainty, from the probe's logits."""
        logits, network = self.network.read(frames), self.network
        shown = [
            math.prod(
                _probability(logits[attribute], network.classes[attribute].index(wanted))
                for attribute, wanted in classes.items()
            )
            for classes in named.values()
        ]
        return {"certainty": sum(shown) / len(shown)}


def _probability(logits: Tensor, index: int) -> float:
    return float(torch.softmax(logits.double(), dim=0)[index])
