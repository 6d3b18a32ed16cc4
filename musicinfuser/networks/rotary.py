"""Mochi's rotations by place and time, built once for all passes of a size."""

import warnings
from contextlib import nullcontext
from typing import Any

import torch
from diffusers import MochiTransformer3DModel
from torch import Tensor


class RotaryTables:
    """Builds tables as diffusers does, and keeps those of the last size; in no state dict.

    73 frames of 480x848 take 254 MB, which training holds between the passes anyway.
    """

    def __init__(self, backbone: MochiTransformer3DModel) -> None:
        """Take a backbone for its frequencies; while these are trained nothing is kept."""
        self._backbone = backbone
        self._last: tuple[Any, tuple[Tensor, Tensor]] | None = None

    def __call__(
        self, num_frames: int, height: int, width: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Cos and sin, ``(num_frames * height * width, heads, head width / 2)`` fp32.

        Frames are latent ones, height and width in patches.
        """
        frequencies = self._backbone.pos_frequencies
        size = (num_frames, height, width)
        if frequencies.requires_grad:
            return self._build(*size, device)
        key = (*size, device, id(frequencies), frequencies._version, frequencies.dtype)
        if self._last is None or self._last[0] != key:
            self._last = None  # not both at once
            # A training may come after a sampling, whose tensors backward could not use.
            with torch.inference_mode(mode=False), torch.no_grad():
                self._last = key, self._build(*size, device)
        return self._last[1]

    def _build(self, *size: Any) -> tuple[Tensor, Tensor]:
        # diffusers wraps this in an fp32 autocast region, which torch has on CUDA only; elsewhere
        # it warns at every call. The tables are fp32 either way.
        frequencies, device = self._backbone.pos_frequencies, size[-1]
        quiet = warnings.catch_warnings(action="ignore") if device.type == "cpu" else nullcontext()
        with quiet:
            return self._backbone.rope(frequencies, *size[:-1], device=device, dtype=torch.float32)
