"""Prompt obedience: does a clip show what its prompt names?

A prompt is searched for phrases that the probe knows, such as "purple shirt" or "Waack"; what they
stand for is compared with what the probe sees in the pixels. This is the idea of detector-based
scores such as GenEval's (Ghosh et al. 2023, arXiv 2310.11513), with a probe of our own because the
pictures are.
"""

import re
from collections.abc import Mapping

from musicinfuser.fingerprint import fingerprint_folder
from musicinfuser.metrics.attributes import AttributeNet
from musicinfuser.metrics.clip import ClipMetric, ScoredClip
from musicinfuser.metrics.probes import ProbeError

JUDGED = ("genre", "top", "bottom", "backdrop")


def named_in(
    prompt: str, phrases: Mapping[str, Mapping[str, dict[str, str]]]
) -> dict[str, dict[str, str]]:
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


class PromptObedience(ClipMetric):
    """Whether a clip shows what its prompt names.

    Values per clip, of which `compute` gives the means over the clips that have them:
        obeyed: Share of what the prompt names that is seen, in [0, 1].
        genre, top, bottom, backdrop: 1 if it is seen as named, else 0; a backdrop by its kind and
            its first colour.
        num_named: How many of the four the prompt names; the only value of a clip whose prompt
            names none.

    Args:
        weights: Folder of an `AttributeNet`, whose phrases are looked for.
        name: Name in tables.

    Raises:
        ProbeError: If the folder holds no such probe.
    """

    value_names = ("obeyed", *JUDGED, "num_named")
    optional_names = frozenset({"obeyed", *JUDGED})

    def __init__(self, *, weights: str, name: str = "prompt_obedience") -> None:
        super().__init__(name=name)
        self.weights = weights
        network = AttributeNet.load(weights)
        if network.phrases.keys() != set(JUDGED):
            raise ProbeError(
                f"{weights}: judges {sorted(network.phrases)}, not {sorted(JUDGED)}; train the "
                "probe again."
            )
        # Not a submodule: this metric has states, no weights of its own.
        self._networks = [network]

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """Score one clip.

        Raises:
            ValueError: If the prompt of the clip is not known or the clip has no frames.
        """
        if clip.prompt is None:
            raise ValueError(
                f"{clip.name}: has no prompt to obey; name it in the column prompt of clips.csv."
            )
        [network] = self._networks
        named = named_in(clip.prompt, network.phrases)
        if not named:
            return {"num_named": 0.0}
        seen = network.seen_in(clip.frames)
        values = {
            judged: float(all(seen[name] == wanted for name, wanted in classes.items()))
            for judged, classes in named.items()
        }
        return {
            "obeyed": sum(values.values()) / len(values),
            **values,
            "num_named": float(len(values)),
        }

    def fingerprints(self) -> dict[str, str]:
        """A hash of the weights, as they are now."""
        return {"weights": fingerprint_folder(self.weights)}
