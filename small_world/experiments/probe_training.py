"""Training of the probes: softened pictures in, joints and attributes out."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from musicinfuser.keyed_random import generator, key
from small_world.experiments.probe_clips import UNKNOWN, ProbeClips
from small_world.metrics.attributes import MOTION, AttributeNet
from small_world.metrics.pose import PoseNet, expected_places
from small_world.metrics.probes import pixels_of

BATCH_FRAMES = 64
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-2
WARMUP_STEPS = 100
DECODED_SHARE = 0.4
BLENDED_SHARE = 0.3
MAX_SHIFT, MAX_ZOOM = 0.05, 0.08
"""In picture sides, and as a part of the picture's size."""

MAP_WEIGHT = 0.1
CLIP_BATCH = 64


def softened(
    pixels: Tensor, stream: torch.Generator, *, are_one_clip: bool = False
) -> tuple[Tensor, Tensor]:
    """Pictures as a generator may draw them: a little off in place, size, sharpness and light.

    Args:
        pixels: ``(N, 3, S, S)`` in [0, 1].
        stream: Of the draws.
        are_one_clip: All pictures share one draw; else every picture has its own.

    Returns:
        The pictures, and per picture zoom and shift ``(N, 3)``: a point at share p of the old one
        lies at ``0.5 + zoom * (p - 0.5) + shift`` of the new one.
    """
    number = len(pixels)

    def draw(low: float, high: float, columns: int = 1) -> Tensor:
        rows = 1 if are_one_clip else number
        values = low + (high - low) * torch.rand(rows, columns, generator=stream)
        return values.expand(number, columns)

    zoom = 1 + draw(-MAX_ZOOM, MAX_ZOOM)
    shift = draw(-MAX_SHIFT, MAX_SHIFT, 2)
    # Where a new picture's points lie in the old one, in [-1, 1] as grid_sample counts.
    matrix = torch.zeros(number, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / zoom[:, 0]
    matrix[:, :, 2] = -2 * shift / zoom
    grid = nn.functional.affine_grid(matrix, list(pixels.shape), align_corners=False)
    moved = nn.functional.grid_sample(
        pixels, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    # A blur of 3x3 that runs from none to even, and once more for the softest.
    kernel = torch.tensor([1.0, 2.0, 1.0])
    kernel = (kernel[:, None] * kernel / 16).expand(3, 1, 3, 3)
    blurred = nn.functional.conv2d(
        nn.functional.pad(moved, (1, 1, 1, 1), mode="replicate"), kernel, groups=3
    )
    strength = (draw(-0.5, 1.0).clamp_min(0))[..., None, None]
    moved = moved + strength * (blurred - moved)
    light, tint = draw(0.9, 1.1), draw(-0.03, 0.03, 3)
    moved = moved * light[..., None, None] + tint[..., None, None]
    spread = draw(-0.02, 0.04).clamp_min(0)[..., None, None]
    noise = torch.randn(moved.shape, generator=stream)
    return (moved + spread * noise).clamp(0, 1), torch.cat([zoom, shift], dim=1)


def moved_joints(joints: Tensor, move: Tensor) -> Tensor:
    """Joints ``(N, J, 2)`` in pictures that `softened` moved by ``(N, 3)``."""
    return 0.5 + move[:, None, :1] * (joints - 0.5) + move[:, None, 1:]


class FrameDraws:
    """Frames of chosen clips, AIST's as often as those from the wild, raw or decoded.

    Seed and purpose key the draws.
    """

    def __init__(
        self, clips: ProbeClips, chosen: Sequence[int], *, seed: int, purpose: str
    ) -> None:
        self.clips, self.seed, self.purpose = clips, seed, purpose
        by_source: dict[str, list[int]] = {}
        for number in chosen:
            by_source.setdefault(clips.records[number]["source"], []).append(number)
        self.groups = [by_source[source] for source in sorted(by_source)]
        self.decoded_groups = [
            [number for number in group if number in clips.decoded_at] for group in self.groups
        ]

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels ``(N, 3, S, S)``, joints ``(N, J, 2)`` and clip numbers ``(N,)`` of a step."""
        draw = np.random.default_rng(key(self.seed, step, self.purpose))
        frames, joints, numbers = [], [], []
        for place in range(BATCH_FRAMES):
            is_decoded = draw.random() < DECODED_SHARE
            groups = self.decoded_groups if is_decoded else self.groups
            group = groups[place % len(groups)]
            number = group[int(draw.integers(len(group)))]
            clips = self.clips
            clip = clips.decoded[clips.decoded_at[number]] if is_decoded else clips.frames[number]
            at = int(draw.integers(len(clip) - 1))
            # A share of two frames in one, as motion blurs in a weak generator's clips.
            share = float(draw.uniform(0, 0.5)) if draw.random() < BLENDED_SHARE else 0.0
            blend = (1 - share) * clip[at] + share * clip[at + 1]
            frames.append(np.round(blend).astype(np.uint8))
            pair = self.clips.joints[number, at : at + 2]
            joints.append((1 - share) * pair[0] + share * pair[1])
            numbers.append(number)
        pixels = pixels_of(torch.from_numpy(np.stack(frames)), size=frames[0].shape[0])
        placed = torch.from_numpy(np.stack(joints).astype(np.float32))
        stream = generator(self.seed, step, f"{self.purpose} softened")
        pixels, move = softened(pixels, stream)
        return pixels, moved_joints(placed, move), torch.tensor(numbers)


def train_pose(network: PoseNet, draws: FrameDraws, *, num_steps: int) -> None:
    """Train a pose probe in place."""
    for step, update in _steps(network, num_steps, "pose"):
        pixels, joints, _ = draws.batch(step)
        with torch.autocast("cpu", torch.bfloat16):
            logits, votes = network.maps(_last(pixels))
        seen = expected_places(logits, votes)
        side = logits.shape[-1]
        error = nn.functional.smooth_l1_loss(side * seen, side * joints, beta=0.25)
        near = _near_cells(joints, side=side)
        spread = -(near * logits.flatten(2).log_softmax(dim=-1)).sum(dim=-1).mean()
        update(error + MAP_WEIGHT * spread)


def train_frames(
    network: AttributeNet, draws: FrameDraws, labels: dict[str, Tensor], *, num_steps: int
) -> None:
    """Train what an attribute probe reads from single frames, in place.

    Every frame is classified by genre too, so that the descriptions of poses, which the
    convolutions over time read later, differ by genre.
    """
    for step, update in _steps(network, num_steps, "looks"):
        pixels, _, numbers = draws.batch(step)
        with torch.autocast("cpu", torch.bfloat16):
            poses, looks = network.describe(_last(pixels))
            logits = {MOTION: network.frame_genre(poses).float(), **looks}
        losses = [_cross_entropy(logits[name], labels[name][numbers]) for name in logits]
        update(torch.stack(losses).sum())


@torch.no_grad()
def described(
    network: AttributeNet, clips: ProbeClips, chosen: Sequence[int], *, seed: int
) -> tuple[Tensor, Tensor]:
    """Descriptions ``(M, T, D)`` of the poses of whole clips, raw and, if any, decoded.

    With the clips' numbers ``(M,)``. All frames of a clip are softened alike.
    """
    network.eval()
    poses, numbers = [], []
    for number in tqdm(chosen, "poses of whole clips", unit="clip"):
        for place, frames in enumerate(clips.versions(number)):
            pixels = pixels_of(frames, size=network.size)
            stream = generator(seed, f"{number} {place}", "probe clip softened")
            soft = softened(pixels, stream, are_one_clip=True)[0]
            with torch.autocast("cpu", torch.bfloat16):
                poses.append(network.describe(_last(soft))[0].float())
            numbers.append(number)
    return torch.stack(poses), torch.tensor(numbers)


def train_moves(
    network: AttributeNet, poses: Tensor, genres: Tensor, *, num_steps: int, seed: int
) -> None:
    """Train the convolutions over time, in place, on descriptions ``(M, T, D)`` of whole clips."""
    heads = nn.ModuleList([network.moves, network.genre])
    spread = 0.1 * poses.std()
    for step, update in _steps(heads, num_steps, "moves"):
        stream = generator(seed, step, "probe moves")
        rows = torch.randint(len(poses), (CLIP_BATCH,), generator=stream)
        batch = poses[rows]
        batch = batch + spread * torch.randn(batch.shape, generator=stream)
        # Any stretch of half the clip or more.
        least = (batch.shape[1] + 1) // 2
        num_frames = int(torch.randint(least, batch.shape[1] + 1, (), generator=stream))
        start = int(torch.randint(batch.shape[1] - num_frames + 1, (), generator=stream))
        logits = network.judge_moves(batch[:, start : start + num_frames])
        update(_cross_entropy(logits, genres[rows]))


def _cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    if not (wanted != UNKNOWN).any():
        return logits.sum() * 0.0
    return nn.functional.cross_entropy(logits, wanted, ignore_index=UNKNOWN, label_smoothing=0.02)


def _near_cells(joints: Tensor, *, side: int) -> Tensor:
    """Shares of the cells around each joint, bilinear, ``(N, J, side * side)``."""
    cells = torch.arange(side)
    place = (joints * side - 0.5).clamp(0, side - 1)
    near = (1 - (place[..., None] - cells).abs()).clamp_min(0)
    x, y = near[:, :, 0], near[:, :, 1]
    return (y[..., :, None] * x[..., None, :]).flatten(2)


def _steps(
    network: nn.Module, num_steps: int, name: str
) -> Iterator[tuple[int, Callable[[Tensor], None]]]:
    """Steps, and what takes the loss of each; the learning rate warms up and falls as a cosine."""
    network.train().requires_grad_(True)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def update(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    for step in tqdm(range(num_steps), name, unit="step"):
        warm = min(1.0, (step + 1) / WARMUP_STEPS)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warm * 0.5 * (1 + math.cos(math.pi * step / num_steps))
        yield step, update
    network.eval()


def _last(pixels: Tensor) -> Tensor:
    return pixels.contiguous(memory_format=torch.channels_last)
