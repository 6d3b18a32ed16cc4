"""What metrics share that hold the words of a prompt against what a probe sees.

A prompt is searched for phrases that the probe knows, such as "purple shirt" or "Waack"; what they
stand for is compared with what the probe sees in the pixels. This is the idea of detector-based
scores such as GenEval's (Ghosh et al. 2023, arXiv 2310.11513), with a probe of our own because the
pictures are.
"""

import re
from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor

from dance_eval.metrics.clip import ClipMetric, ScoredClip
from musicinfuser.fingerprint import fingerprint_folder
from small_world.metrics.attributes import AttributeNet

Named = dict[str, dict[str, str]]
"""By what is judged: the classes by attribute."""


def named_in(prompt: str, phrases: Mapping[str, Mapping[str, dict[str, str]]]) -> Named:
    """What a prompt names.

    Phrases count as whole words and in the spelling given, capitals included: "House" is a genre,
    "house" a building. Of phrases that overlap the longest counts.

    Args:
        prompt: The text.
        phrases: By what is judged: phrases, and the class of each attribute that they stand for.

    Returns:
        By what is judged: the classes by attribute. What the prompt does not name, or names in two
        ways, is absent.
    """
    named = {}
    for judged, meanings in phrases.items():
        longest_first = sorted(meanings, key=len, reverse=True)
        pattern = rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)"
        found = [meanings[text] for text in re.findall(pattern, prompt)]
        if found and all(meaning == found[0] for meaning in found):
            named[judged] = found[0]
    return named


class PromptProbe(ClipMetric):
    """A metric of what a clip shows of what its prompt names.

    A subclass sets `value_names`, ``num_named`` among them, and implements `compare`.

    Args:
        weights: Folder of an `AttributeNet`, whose phrases are looked for.
        name: Name in tables.

    Raises:
        ProbeError: If the folder holds no such probe.
    """

    def __init__(self, *, weights: str, name: str) -> None:
        super().__init__(name=name)
        self.weights = weights
        # Not a submodule: this metric has states, no weights of its own.
        self._networks = [AttributeNet.load(weights)]

    @property
    def network(self) -> AttributeNet:
        """The probe."""
        return self._networks[0]

    @abstractmethod
    def compare(self, frames: Tensor, named: Named) -> dict[str, float]:
        """Values other than ``num_named`` of a clip whose prompt names something.

        Args:
            frames: uint8 RGB in [0, 255], shape (T, H, W, 3).
            named: What `named_in` found.
        """

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """Score one clip.

        Raises:
            ValueError: If the prompt of the clip is not known or the clip has no frames.
        """
        named = named_in(clip.known_prompt, self.network.phrases)
        values = self.compare(clip.frames, named) if named else {}
        return {**values, "num_named": float(len(named))}

    def fingerprints(self) -> dict[str, str]:
        """A hash of the weights, as they are now."""
        return {"weights": fingerprint_folder(self.weights)}
