"""What the probes share: networks that read pixels, and folders that hold their weights.

A probe is trained on one kind of pictures, here on 64x64 clips of the small world
(`small_world/experiments/train_probes.py`), and its values count for that kind only.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dance_eval.metrics.clip import ClipMetric
from dance_eval.metrics.motion import require_frames
from musicinfuser.atomic_files import write_text
from musicinfuser.errors import UserError
from musicinfuser.fingerprint import fingerprint_folder
from musicinfuser.safetensors_files import save_tensors

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
CHUNK_FRAMES = 128


class ProbeError(UserError):
    """A probe cannot be had or used. The message is one sentence."""


class Probe(nn.Module):
    """A network with a config of plain JSON values that it is built from, saved in a folder.

    Weights are stored as fp16, which halves the folder; they compute in fp32.
    """

    kind: str
    """Stands in config.json, so that one probe is not taken for another."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config

    def save(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""
        tensors = {
            name: value.half() if value.is_floating_point() else value
            for name, value in self.state_dict().items()
        }
        save_tensors(tensors, Path(folder) / WEIGHTS_NAME)
        text = json.dumps({"kind": self.kind, **self.config}, indent=1, ensure_ascii=False)
        write_text(Path(folder) / CONFIG_NAME, text + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a probe, frozen and in evaluation mode.

        Raises:
            ProbeError: If the folder holds none of this kind, or its files do not fit together.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
            tensors = load_file(folder / WEIGHTS_NAME)
        except (OSError, ValueError, SafetensorError) as error:
            raise ProbeError(
                f"{folder}: holds no probe that can be read ({type(error).__name__}); train one "
                "with `python -m small_world.experiments.train_probes`."
            ) from error
        if not isinstance(config, dict) or config.pop("kind", None) != cls.kind:
            raise ProbeError(f"{folder}: is not a {cls.kind!r} probe; name the folder of one.")
        try:
            probe = cls(config)
            probe.load_state_dict(tensors)
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise ProbeError(
                f"{folder}: {CONFIG_NAME} and {WEIGHTS_NAME} do not fit together "
                f"({type(error).__name__}); train the probe again."
            ) from error
        return probe.eval().requires_grad_(False)


class ProbeMetric(ClipMetric):
    """A metric of clips that a probe reads, which was itself read from the folder ``weights``."""

    def __init__(self, network: Probe, *, weights: str, name: str) -> None:
        super().__init__(name=name)
        self.weights = weights
        # Not a submodule: this metric has states, no weights of its own.
        self._networks: list[Any] = [network]

    def fingerprints(self) -> dict[str, str]:
        """A hash of the weights, as they are now."""
        return {"weights": fingerprint_folder(self.weights)}


def pixels_of(frames: Tensor, *, size: int) -> Tensor:
    """Frames as the networks read them, scaled to a square; the aspect is not kept.

    Takes uint8 RGB in [0, 255], shape (T, H, W, 3), to float32 in [0, 1], (T, 3, size, size).
    """
    require_frames(frames)
    pixels = frames.permute(0, 3, 1, 2).float() / 255
    if pixels.shape[-2:] != (size, size):
        pixels = nn.functional.interpolate(
            pixels, (size, size), mode="bilinear", antialias=True, align_corners=False
        )
    return pixels


def chunks_of(frames: Tensor, *, size: int) -> Iterator[Tensor]:
    """`pixels_of` part by part, so that long clips need little memory."""
    for part in frames.split(CHUNK_FRAMES):
        yield pixels_of(part, size=size)


def convolution(inputs: int, outputs: int, size: int, *, stride: int = 1) -> list[nn.Module]:
    """A convolution that keeps the picture's size but for the stride, batch norm and ReLU."""
    layer = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]


class Residual(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, second = convolution(width, width, 3), convolution(width, width, 3)
        self.body = nn.Sequential(*first, *second[:2])

    def forward(self, x: Tensor) -> Tensor:
        """``(N, width, H, W)`` to the same."""
        return torch.relu(x + self.body(x))


class FrameTrunk(nn.Module):
    """Features of single frames: ``fine_width`` at a quarter, ``coarse_width`` at an eighth of it.

    The place in the picture is an input of its own, since all that is read depends on it.
    """

    def __init__(self, *, fine_width: int, coarse_width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *convolution(5, 16, 5, stride=2),
            *convolution(16, fine_width, 3, stride=2),
            Residual(fine_width),
            Residual(fine_width),
        )
        self.down = nn.Sequential(
            *convolution(fine_width, coarse_width, 3, stride=2),
            Residual(coarse_width),
            Residual(coarse_width),
        )

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features of frames, ``(N, 3, S, S)`` in [0, 1].

        They are ``(N, fine_width, S / 4, S / 4)`` and ``(N, coarse_width, S / 8, S / 8)``.
        """
        line = torch.linspace(-1, 1, pixels.shape[-1], device=pixels.device)
        across = line.expand(len(pixels), 1, len(line), -1)
        place = torch.cat([across, across.transpose(-1, -2)], dim=1)
        fine = self.stem(torch.cat([2 * pixels - 1, place], dim=1))
        return fine, self.down(fine)
