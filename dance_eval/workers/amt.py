"""VBench's motion smoothness (AMT-S, Li et al. 2023) as a worker in an environment of its own.

VBench's package brings some 40 others and pins numpy below 2; AMT is for noncommercial use:

    python3.11 -m venv ENV
    ENV/bin/pip install torch torchvision "numpy<2" opencv-python-headless
    ENV/bin/pip install omegaconf tqdm imageio decord
    ENV/bin/pip install --no-deps vbench==0.1.5
    wget https://huggingface.co/lalala125/AMT/resolve/main/amt-s.pth

`dance_eval.metrics.temporal_quality.MotionSmoothness` starts it, by hand it is

    ENV/bin/python -m dance_eval.workers.amt --weights amt-s.pth

A request ``{"frames": FILE.npy}`` names uint8 RGB frames, shape (T, H, W, 3); the answer is
``{"score": ...}``, in [0, 1].
"""

from __future__ import annotations

from typing import Any

from dance_eval.workers.serving import Answer, serve


def load_amt(weights: str, device: str) -> Answer:
    """What turns a request into a score.

    Args:
        weights: AMT-S's checkpoint.
        device: ``auto``, ``cpu`` or ``cuda``.
    """
    from pathlib import Path

    import numpy as np
    import torch
    import vbench
    from vbench.motion_smoothness import MotionSmoothness

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    config = Path(vbench.__file__).parent / "third_party" / "amt" / "cfgs" / "AMT-S.yaml"
    motion = MotionSmoothness(str(config), weights, device)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        frames = np.load(request["frames"], allow_pickle=False)
        # Its own reader decodes a file; the frames are here already.
        motion.fp.get_frames = lambda path: list(frames)
        return {"score": float(motion.motion_score("frames.mp4"))}

    return answer


if __name__ == "__main__":
    serve(load_amt, weights=None, device="auto")
