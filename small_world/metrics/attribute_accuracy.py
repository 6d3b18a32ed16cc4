"""Does a clip show what its prompt names? By a probe that reads attributes from the pixels.

A prompt is searched for phrases that the probe knows, such as "purple shirt" or "Waack"; what they
stand for is compared with what the probe reads. This is the idea of detector-based scores such as
GenEval's (Ghosh et al. 2023, arXiv 2310.11513), with a probe trained for these pictures.
"""

import math
import re
from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor

from dance_eval.metrics.clip import ScoredClip
from small_world.metrics.attributes import AttributeNet
from small_world.metrics.probes import ProbeError, ProbeMetric

JUDGED = ("genre", "top", "bottom", "backdrop")
Named = dict[str, dict[str, str]]
"""By what is judged: the classes by attribute."""


def named_in(prompt: str, phrases: Mapping[str, Mapping[str, dict[str, str]]]) -> Named:
    """What a prompt names.

    Phrases count as whole words and in the spelling given, capitals included: "House" is a genre,
    "house" a building. Of phrases that overlap the longest counts. They come by what is judged,
    each with the class of every attribute that it stands for. What the prompt does not name, or
    names in two ways, is absent.
    """
    named = {}
    for judged, meanings in phrases.items():
        longest_first = sorted(meanings, key=len, reverse=True)
        pattern = rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)"
        found = [meanings[text] for text in re.findall(pattern, prompt)]
        if found and all(meaning == found[0] for meaning in found):
            named[judged] = found[0]
    return named


class PromptMetric(ProbeMetric):
    """A metric of what a clip shows of what its prompt names.

    A subclass sets `value_names`, ``num_named`` among them, and implements `compare`. The folder
    ``weights`` holds an `AttributeNet`, whose phrases are looked for; else `ProbeError`.
    """

    def __init__(self, *, weights: str, name: str) -> None:
        super().__init__(AttributeNet.load(weights), weights=weights, name=name)

    @property
    def network(self) -> AttributeNet:
        """The probe."""
        network: AttributeNet = self._networks[0]
        return network

    @abstractmethod
    def compare(self, frames: Tensor, named: Named) -> dict[str, float]:
        """Values other than ``num_named`` of a clip, for what `named_in` found in its prompt."""

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """The values; `UserError` if the prompt is not known or the clip has no frames."""
        named = named_in(clip.known_prompt, self.network.phrases)
        values = self.compare(clip.frames, named) if named else {}
        return {**values, "num_named": float(len(named))}


class AttributeAccuracy(PromptMetric):
    """Whether a clip shows what its prompt names.

    Values per clip, of which `compute` gives the means over the clips that have them:
        obeyed: Share of what the prompt names that is seen, in [0, 1].
        genre, top, bottom, backdrop: 1 if it is seen as named, else 0; a backdrop by its kind and
            its first colour.
        num_named: How many of the four the prompt names; the only value of a clip whose prompt
            names none.
    """

    value_names = ("obeyed", *JUDGED, "num_named")
    optional_names = frozenset({"obeyed", *JUDGED})

    def __init__(self, *, weights: str, name: str = "attribute_accuracy") -> None:
        super().__init__(weights=weights, name=name)
        if self.network.phrases.keys() != set(JUDGED):
            raise ProbeError(
                f"{weights}: judges {sorted(self.network.phrases)}, not {sorted(JUDGED)}; train "
                "the probe again."
            )

    def compare(self, frames: Tensor, named: Named) -> dict[str, float]:
        """What of it is seen."""
        seen = self.network.seen_in(frames)
        values = {
            judged: float(all(seen[name] == wanted for name, wanted in classes.items()))
            for judged, classes in named.items()
        }
        return {"obeyed": sum(values.values()) / len(values), **values}


class PromptCertainty(PromptMetric):
    """The probability that a probe gives to what the prompt names.

    It tells systems apart whose clips all show what is named, or all do not, and it falls with
    pictures that show nothing clearly.

    Values per clip, of which `compute` gives the means over the clips that have them:
        certainty: Mean over what the prompt names of the probability of its classes, in [0, 1]; a
            backdrop's is the product of that of its kind and its first colour. Absent where the
            prompt names nothing.
        num_named: How many of genre, top, bottom and backdrop the prompt names.
    """

    value_names = ("certainty", "num_named")
    optional_names = frozenset({"certainty"})

    def __init__(self, *, weights: str, name: str = "prompt_certainty") -> None:
        super().__init__(weights=weights, name=name)

    def compare(self, frames: Tensor, named: Named) -> dict[str, float]:
        """The certainty, from the probe's logits."""
        logits, classes_of = self.network.read(frames), self.network.classes
        shown = [
            math.prod(
                float(logits[name].double().softmax(dim=0)[classes_of[name].index(wanted)])
                for name, wanted in classes.items()
            )
            for classes in named.values()
        ]
        return {"certainty": sum(shown) / len(shown)}
