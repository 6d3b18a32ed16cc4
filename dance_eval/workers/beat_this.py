"""Beat This! (Foscarin et al. 2024, arXiv 2407.21658) as a worker, here or elsewhere.

Package and weights are MIT:

    pip install beat-this==1.1.0
    wget https://cloud.cp.jku.at/public.php/dav/files/7ik4RrBKTS273gp/final0.ckpt

`dance_eval.metrics.beat_trackers.ProgramBeats` starts it, by hand it is

    python -m dance_eval.workers.beat_this --weights final0.ckpt

Requests and answers are those of `dance_eval.workers.madmom`, at 22,050 Hz; a known tempo is not
taken.
"""

from __future__ import annotations

from typing import Any

from dance_eval.workers.serving import Answer, serve


def load_beat_this(weights: str, device: str) -> Answer:
    """What turns a request into beats.

    Args:
        weights: A checkpoint of its authors; read without running code.
        device: ``auto``, ``cpu``, ``cuda``, ...
    """
    import numpy as np
    import torch
    from beat_this.inference import Audio2Beats

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    track = Audio2Beats(checkpoint_path=weights, device=device, dbn=False)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        sound = np.load(request["sound"], allow_pickle=False)
        beats, _ = track(sound, request["rate_hz"])
        return {"beats_seconds": [float(time) for time in beats]}

    return answer


if __name__ == "__main__":
    serve(load_beat_this, weights=None, device="auto")
