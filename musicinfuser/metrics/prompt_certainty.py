"""Prompt certainty: how sure a probe is that a clip shows what its prompt names.

`PromptObedience` says yes or no; this says how nearly, which tells systems apart that all obey, or
all do not, and it falls with pictures that show nothing clearly.
"""

import math

import torch
from torch import Tensor

from musicinfuser.fingerprint import fingerprint_folder
from musicinfuser.metrics.attributes import AttributeNet
from musicinfuser.metrics.clip import ClipMetric, ScoredClip
from musicinfuser.metrics.prompt_obedience import named_in


class PromptCertainty(ClipMetric):
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
        super().__init__(name=name)
        self.weights = weights
        # Not a submodule: this metric has states, no weights of its own.
        self._networks = [AttributeNet.load(weights)]

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """Score one clip.

        Raises:
            ValueError: If the prompt of the clip is not known or the clip has no frames.
        """
        if clip.prompt is None:
            raise ValueError(
                f"{clip.name}: has no prompt to show; name it in the column prompt of clips.csv."
            )
        [network] = self._networks
        named = named_in(clip.prompt, network.phrases)
        if not named:
            return {"num_named": 0.0}
        logits = network.read(clip.frames)
        shown = [
            math.prod(
                _probability(logits[attribute], network.classes[attribute].index(wanted))
                for attribute, wanted in classes.items()
            )
            for classes in named.values()
        ]
        return {"certainty": sum(shown) / len(shown), "num_named": float(len(shown))}

    def fingerprints(self) -> dict[str, str]:
        """A hash of the weights, as they are now."""
        return {"weights": fingerprint_folder(self.weights)}


def _probability(logits: Tensor, index: int) -> float:
    return float(torch.softmax(logits.double(), dim=0)[index])
