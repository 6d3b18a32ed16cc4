"""What is to be seen in a clip: genre, colours, backdrop and number of dancers."""

from typing import Any

import torch
from torch import Tensor, nn

from small_world.metrics.probes import FrameTrunk, Probe, ProbeError, chunks_of, convolution

MOTION = "genre"
"""The attribute that is read from the course of the frames; all others from single ones."""

STEP_FRAMES = 3
"""Spacing of the frames that a convolution over time compares, 0.1 s at 30 fps."""

_POSE_WIDTH = 64
_PLACE_WIDTH = 8


class AttributeNet(Probe):
    """Logits of every attribute of a clip.

    A genre shows in which poses follow which: every frame becomes a description of its pose, which
    two convolutions over time read, 37 frames or about two beats at once. Looks are voted on by
    single frames.

    Args:
        config: ``size`` (side of the pictures), ``fine_width``, ``coarse_width``, ``classes``
            (names per attribute, ``"genre"`` among them), and ``phrases`` for `named_in`.
    """

    kind = "attributes"

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.size: int = config["size"]
        self.classes: dict[str, list[str]] = config["classes"]
        self.phrases: dict[str, dict[str, dict[str, str]]] = config["phrases"]
        fine, coarse = config["fine_width"], config["coarse_width"]
        looks = {name: len(classes) for name, classes in self.classes.items() if name != MOTION}
        num_genres = len(self.classes[MOTION])
        self.trunk = FrameTrunk(fine_width=fine, coarse_width=coarse)
        self.parts = nn.Sequential(*convolution(coarse, coarse, 3))
        self.pose = nn.Linear(2 * coarse, _POSE_WIDTH)
        # Used in training only, so that descriptions tell the genres' poses apart.
        self.frame_genre = nn.Linear(_POSE_WIDTH, num_genres)
        self.moves = nn.Sequential(
            nn.Conv1d(_POSE_WIDTH, _POSE_WIDTH, 5, padding="same", dilation=STEP_FRAMES),
            nn.ReLU(),
            nn.Conv1d(_POSE_WIDTH, _POSE_WIDTH, 5, padding="same", dilation=2 * STEP_FRAMES),
            nn.ReLU(),
        )
        self.genre = nn.Linear(2 * _POSE_WIDTH, num_genres)
        self.colours = nn.Sequential(*convolution(fine, 2 * fine, 1))
        self.places = nn.Sequential(
            nn.Conv2d(coarse, _PLACE_WIDTH, 1),
            nn.Flatten(),
            nn.Linear(_PLACE_WIDTH * (self.size // 8) ** 2, 64),
            nn.ReLU(),
        )
        self.looks = nn.Linear(4 * fine + 64, sum(looks.values()))
        self.look_sizes = looks

    def describe(self, pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What single frames, ``(N, 3, size, size)`` in [0, 1], show.

        Descriptions of the poses, ``(N, 64)``, and logits ``(N, num_classes)`` per look.
        """
        fine, coarse = self.trunk(pixels)
        pose = self.pose(_pooled(self.parts(coarse)))
        seen = torch.cat([_pooled(self.colours(fine)), self.places(coarse)], dim=1)
        logits = self.looks(seen).float().split(list(self.look_sizes.values()), dim=1)
        return pose, dict(zip(self.look_sizes, logits, strict=True))

    def judge_moves(self, poses: Tensor) -> Tensor:
        """Logits of the genres, ``(B, num_genres)``.

        Takes descriptions of clips' frames at 30 fps, ``(B, T, 64)``.
        """
        over_time = self.moves(poses.transpose(1, 2))
        return self.genre(torch.cat([over_time.mean(dim=2), over_time.amax(dim=2)], dim=1))

    @torch.no_grad()
    def read(self, frames: Tensor) -> dict[str, Tensor]:
        """Logits of every attribute, float32, shape (num_classes,), in the order of ``classes``.

        Takes uint8 RGB in [0, 255] at about 30 fps, shape (T, H, W, 3); `ProbeError` without any.
        """
        if not len(frames):
            raise ProbeError("A clip without frames shows nothing; give at least one.")
        device = next(self.parameters()).device
        poses, looks = [], []
        for part in chunks_of(frames, size=self.size):
            pose, look = self.describe(part.to(device))
            poses.append(pose)
            looks.append(look)
        logits = {MOTION: self.judge_moves(torch.cat(poses)[None])[0].cpu()}
        for name in self.look_sizes:
            logits[name] = torch.cat([look[name] for look in looks]).mean(dim=0).cpu()
        return logits

    def seen_in(self, frames: Tensor) -> dict[str, str]:
        """The likeliest class of every attribute, by name; frames as for `read`."""
        logits = self.read(frames)
        return {name: self.classes[name][int(logits[name].argmax())] for name in self.classes}


def _pooled(maps: Tensor) -> Tensor:
    """Mean and maximum over the picture, ``(N, 2 C)``."""
    return torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)
