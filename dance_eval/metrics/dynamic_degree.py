"""VBench's dynamic degree: whether a clip moves at all, by RAFT's optical flow."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import optical_flow

from dance_eval.metrics.clip import ClipMetric, NetworkPart, ScoredClip
from dance_eval.metrics.features import shuffled_order
from dance_eval.metrics.motion import require_frames
from musicinfuser.errors import UserError
from musicinfuser.fingerprint import file_digest
from musicinfuser.pretrained_sources import MissingWeightsError
from musicinfuser.safetensors_files import read_tensors
from musicinfuser.setting_checks import check_choice, check_number

Size = Literal["large", "small"]
# VBench's code, vbench/dynamic_degree.py.
FRAMES_PER_SECOND = 8.0
FASTEST_SHARE = 0.05
THRESHOLD_AT_256 = 6.0
PAIRS_OF_16 = 4.0
LEAST_SIDE = 128
"""Smaller pictures are too small for RAFT's pyramid."""


@dataclass(frozen=True)
class RaftFlow(NetworkPart):
    """RAFT (Teed and Deng 2020) of torchvision.

    Args:
        weights: A name of torchvision's, fetched when first used; ``C_T_V1`` are the authors'
            raft-things, as VBench has. Or a file: .safetensors, or .pth as torchvision's.
        size: ``"large"`` is VBench's.
        num_updates: Of the flow; VBench's code takes 20.
        device: As torch names it; ``auto`` is the first GPU, or the CPU where there is none.
    """

    weights: str = "C_T_V1"
    size: Size = "large"
    num_updates: int = 20
    device: str = "auto"

    def __post_init__(self) -> None:
        """Check the settings; weights are looked for when they are first needed."""
        check_choice("size", self.size, get_args(Size))
        check_number("num_updates", self.num_updates, at_least=1)
        if not self._is_file:
            check_choice("weights", self.weights, [weight.name for weight in self._named])

    @property
    def _is_file(self) -> bool:
        return "." in self.weights or "/" in self.weights

    @property
    def _named(self) -> Any:
        kinds = {"large": "Raft_Large_Weights", "small": "Raft_Small_Weights"}
        return getattr(optical_flow, kinds[self.size])

    def fingerprints(self) -> dict[str, str]:
        """Of the weights: a file's hash, or the address, which has the hash in it."""
        if not self._is_file:
            return {"weights": Path(self._named[self.weights].url).name}
        if not Path(self.weights).is_file():
            raise MissingWeightsError(f"RAFT: the file {self.weights} does not exist.")
        return {"weights": file_digest(Path(self.weights))[:16]}

    def load(self) -> nn.Module:
        """The network, loaded once per process; `MissingWeightsError` without weights."""
        return _loaded(self, self.fingerprints()["weights"])

    def read_weights(self) -> dict[str, Tensor]:
        """What `load` loads."""
        if not self._is_file:
            try:
                return self._named[self.weights].get_state_dict(
                    progress=False, check_hash=True, weights_only=True
                )
            except (OSError, URLError, RuntimeError) as error:
                url = self._named[self.weights].url
                raise MissingWeightsError(
                    f"RAFT: {url} could not be fetched ({type(error).__name__}); fetch it where "
                    "there is a network, and give the file as weights."
                ) from error
        if self.weights.endswith(".safetensors"):
            return read_tensors(self.weights)[0]
        return torch.load(self.weights, map_location="cpu", weights_only=True)

    @torch.no_grad()
    def lengths(self, first: Tensor, second: Tensor) -> Tensor:
        """Lengths of the flow from one frame to the other, in px, float32, shape (H, W).

        Frames are uint8 RGB, shape (H, W, 3), of 128 px or more on both sides, else `UserError`.
        """
        if min(first.shape[:2]) < LEAST_SIDE:
            raise UserError(
                f"Frames of {first.shape[1]}x{first.shape[0]} px are too small for RAFT; it needs "
                f"{LEAST_SIDE} px on both sides."
            )
        height, width = first.shape[:2]
        spare = (-width % 8, -height % 8)
        sides = (spare[0] // 2, spare[0] - spare[0] // 2, spare[1] // 2, spare[1] - spare[1] // 2)
        pictures = [
            nn.functional.pad(
                frame.permute(2, 0, 1)[None].to(self.where).float() / 127.5 - 1,
                sides,
                mode="replicate",
            )
            for frame in (first, second)
        ]
        flow = self.load()(*pictures, num_flow_updates=self.num_updates)[-1]
        # VBench takes the fastest points of the padded picture.
        return flow[0].norm(dim=0).cpu()


@functools.cache
def _loaded(raft: RaftFlow, fingerprint: str) -> nn.Module:
    build = {"large": optical_flow.raft_large, "small": optical_flow.raft_small}[raft.size]
    network = build(weights=None)
    try:
        network.load_state_dict(raft.read_weights())
    except RuntimeError as error:
        if isinstance(error, UserError):
            raise
        raise MissingWeightsError(
            f"RAFT: {raft.weights} holds no weights of raft_{raft.size} of torchvision."
        ) from error
    return network.eval().requires_grad_(False).to(raft.where)


def fastest_motion(lengths: Tensor) -> float:
    """Mean length of the fastest 5 % of the points, in px; of shape (H, W)."""
    number = max(int(lengths.numel() * FASTEST_SHARE), 1)
    return float(lengths.double().flatten().topk(number).values.mean())


class DynamicDegree(ClipMetric):
    """VBench's dynamic degree: 1 for a clip that moves, 0 for one that hardly does.

    Frames are taken 8 times a second. A pair of them moves if the fastest 5 % of its points move by
    more than 6 px at 256 px of the shorter side; a clip does if a quarter of its frames do.

    Values per clip, of which `compute` gives the means:
        score: 0 or 1.
        level: Mean of the fastest points' motion over that threshold.
        shuffled: The level with the frames shuffled.

    Args:
        flow: Which RAFT.
    """

    value_names = ("score", "level", "shuffled")

    def __init__(self, *, flow: RaftFlow | None = None, name: str = "dynamic_degree") -> None:
        self.flow = flow or RaftFlow()
        super().__init__(name=name, part=self.flow)

    def check(self) -> None:
        """See that the weights can be had."""
        self.flow.load()

    def score_clip(self, clip: ScoredClip) -> dict[str, float]:
        """The values; `UserError` for fewer than two frames or frames too small for RAFT."""
        require_frames(clip.frames)
        step = max(1, round(clip.fps / FRAMES_PER_SECOND))
        threshold = max(1.0, FRAMES_PER_SECOND / clip.fps) * THRESHOLD_AT_256
        threshold *= min(clip.frames.shape[1:3]) / 256
        ratios = self._ratios(clip.frames[::step], threshold)
        shuffled = self._ratios(clip.frames[shuffled_order(clip)][::step], threshold)
        needed = round(PAIRS_OF_16 * (len(ratios) + 1) / 16)
        moves = sum(ratio > 1 for ratio in ratios) >= max(needed, 1)
        return {
            "score": float(moves),
            "level": sum(ratios) / len(ratios),
            "shuffled": sum(shuffled) / len(shuffled),
        }

    def _ratios(self, frames: Tensor, threshold: float) -> list[float]:
        if len(frames) < 2:
            raise UserError(f"{len(frames)} frames are too few to judge motion; give 2 or more.")
        pairs = zip(frames[:-1], frames[1:], strict=True)
        return [fastest_motion(self.flow.lengths(*pair)) / threshold for pair in pairs]
