"""Joints of a lone dancer, seen by a small network, and how fast they move.

AIST++ (Li et al. 2021, arXiv 2101.08779) takes kinematic beats as local minima of the mean speed
of the joints. Generated clips come without joints; `PoseNet` finds them in the pixels.
"""

from typing import Any

import torch
from torch import Tensor, nn

from dance_eval.metrics.clip import MotionCurve
from musicinfuser.fingerprint import fingerprint_folder
from small_world.metrics.probes import FrameTrunk, Probe, chunks_of, convolution


class PoseNet(Probe):
    """Places of the joints in single frames, as the expectation over a map of where each may be.

    Sun et al. 2018 (arXiv 1711.08229): a soft arg-max is exact to a fraction of a cell; here every
    cell also says how far from its middle the joint lies.

    Args:
        config: ``size`` (side of the pictures), ``fine_width``, ``coarse_width`` and ``joints``
            (their names, in order).
    """

    kind = "pose"

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.size: int = config["size"]
        self.joint_names: tuple[str, ...] = tuple(config["joints"])
        fine, coarse = config["fine_width"], config["coarse_width"]
        self.trunk = FrameTrunk(fine_width=fine, coarse_width=coarse)
        self.up = nn.Conv2d(coarse, fine, 1)
        self.head = nn.Sequential(
            *convolution(fine, fine, 3), nn.Conv2d(fine, 3 * len(self.joint_names), 1)
        )

    def maps(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Where each joint may be in pictures, ``(N, 3, size, size)`` in [0, 1].

        Returns:
            Logits of the cells, ``(N, J, size / 4, size / 4)``, and the place that each cell votes
            for, ``(N, J, 2, size / 4, size / 4)``, x before y, as shares of the picture.
        """
        fine, coarse = self.trunk(pixels)
        wide = nn.functional.interpolate(self.up(coarse), fine.shape[-2:], mode="bilinear")
        out = self.head(fine + wide).float().unflatten(1, (len(self.joint_names), 3))
        side = out.shape[-1]
        middles = (torch.arange(side, device=out.device) + 0.5) / side
        middle = torch.stack([middles.expand(side, -1), middles[:, None].expand(-1, side)])
        return out[:, :, 0], middle + out[:, :, 1:] / side

    def forward(self, pixels: Tensor) -> Tensor:
        """Joints as shares of the picture, ``(N, J, 2)``, x before y."""
        return expected_places(*self.maps(pixels))

    @torch.no_grad()
    def read(self, frames: Tensor) -> Tensor:
        """Joints of a clip with one dancer, x before y, as shares of width and height.

        Takes uint8 RGB in [0, 255], shape (T, H, W, 3), to float32 (T, J, 2).
        """
        device = next(self.parameters()).device
        parts = [self(part.to(device)) for part in chunks_of(frames, size=self.size)]
        return torch.cat(parts).cpu() if parts else torch.zeros(0, len(self.joint_names), 2)


def expected_places(logits: Tensor, votes: Tensor) -> Tensor:
    """The mean of what all cells of `PoseNet.maps` vote for, ``(N, J, 2)``."""
    weights = logits.flatten(2).softmax(dim=-1)
    return (weights[:, :, None] * votes.flatten(3)).sum(dim=-1)


class PoseSpeed(MotionCurve):
    """How fast the joints of a lone dancer move: a motion curve for `BeatAlignment`.

    ``weights`` is the folder of a `PoseNet`; `ProbeError` if it holds none.
    """

    def __init__(self, weights: str) -> None:
        self.weights = weights
        self.network = PoseNet.load(weights)

    def __eq__(self, other: object) -> bool:
        """Whether the curves are the same, so that they are computed once per clip."""
        return isinstance(other, PoseSpeed) and other.weights == self.weights

    def __hash__(self) -> int:
        """Equal for equal curves."""
        return hash((PoseSpeed, self.weights))

    def __call__(self, frames: Tensor) -> Tensor:
        """Mean length of the joints' steps in picture sides per frame, float64, shape (T - 1,).

        Takes uint8 RGB in [0, 255], shape (T, H, W, 3); empty for fewer than two frames.
        """
        steps = self.network.read(frames).double().diff(dim=0)
        return steps.norm(dim=-1).mean(dim=-1)

    def fingerprints(self) -> dict[str, str]:
        """A hash of the weights, as they are now."""
        return {"weights": fingerprint_folder(self.weights)}
