"""Prompt obedience: does a clip show what its prompt names?"""

from torch import Tensor

from small_world.metrics.probes import ProbeError
from small_world.metrics.prompt_probe import Named, PromptProbe

JUDGED = ("genre", "top", "bottom", "backdrop")


class PromptObedience(PromptProbe):
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
