"""MUSIQ (Ke et al. 2021, arXiv 2108.05997) as a worker in an environment of its own.

pyiqa, whose weights VBench uses, is licensed for noncommercial use and brings some 50 packages:

    python -m venv ENV
    ENV/bin/pip install torch torchvision pyiqa
    wget https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/\
musiq_spaq_ckpt-358bb6af.pth

`dance_eval.metrics.imaging_quality.ImagingQuality` starts it, by hand it is

    ENV/bin/python -m dance_eval.workers.musiq --weights musiq_spaq_ckpt-358bb6af.pth

A request ``{"pixels": FILE.npy}`` names float32 frames in [0, 1], shape (T, 3, H, W); the answer is
``{"scores": [...]}``, one number per frame, 0 to 100 up to outliers.
"""

from __future__ import annotations

from typing import Any

from dance_eval.workers.serving import Answer, serve


def load_musiq(weights: str, device: str) -> Answer:
    """What turns a request into scores.

    Args:
        weights: A state dict, such as musiq_spaq_ckpt-358bb6af.pth.
        device: ``auto``, ``cpu``, ``cuda``, ...
    """
    import numpy as np
    import torch
    from pyiqa.archs.musiq_arch import MUSIQ

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = MUSIQ(pretrained=False)
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    model = model.eval().to(device)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        pixels = np.load(request["pixels"], mmap_mode="r", allow_pickle=False)
        scores = []
        with torch.no_grad():
            for frame in pixels:
                scores.append(float(model(torch.from_numpy(frame.copy())[None].to(device))))
        return {"scores": scores}

    return answer


if __name__ == "__main__":
    serve(load_musiq, weights=None, device="auto")
