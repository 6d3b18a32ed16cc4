"""What the probes say of clips that were not trained on, beside what is true."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from dance_eval.metrics.clip import ClipMetric, ScoredClip
from dance_eval.metrics.intervals import bootstrap_mean
from small_world.experiments.probe_clips import CLASSES, UNKNOWN, ProbeClips
from small_world.metrics.attributes import AttributeNet
from small_world.metrics.pose import PoseNet


@dataclass(frozen=True)
class Take:
    """Held-out clips of one source, raw or through the VAE."""

    source: str
    is_decoded: bool
    numbers: NDArray[np.int64]
    frames: Sequence[NDArray[np.uint8]]

    @property
    def title(self) -> str:
        """For tables."""
        place = {"aist": "studio", "youtube": "wild"}[self.source]
        return f"{place}, {'through the VAE' if self.is_decoded else 'raw'}"


def held_out_takes(clips: ProbeClips) -> list[Take]:
    """All held-out clips, each raw and through the VAE."""
    decoded_at = {int(n): place for place, n in enumerate(clips.decoded_index)}
    takes = []
    for source in ("aist", "youtube"):
        numbers = clips.where(held_out=True, source=source)
        takes.append(Take(source, False, numbers, [clips.frames[n] for n in numbers]))
        again = [clips.decoded[decoded_at[int(n)]] for n in numbers]
        takes.append(Take(source, True, numbers, again))
    return takes


def judge_probes(
    clips: ProbeClips, take: Take, pose: PoseNet, looks: AttributeNet
) -> dict[str, str]:
    """One row of the card: error of the joints, and accuracy with n per attribute."""
    squares: list[float] = []
    hits: dict[str, list[bool]] = {name: [] for name in [*CLASSES, "backdrop"]}
    for number, take_frames in zip(tqdm(take.numbers, take.title), take.frames, strict=True):
        frames = torch.from_numpy(np.array(take_frames))
        if np.isfinite(clips.joints[number]).all():
            error = pose.read(frames).numpy() - clips.joints[number]
            squares.append(float((error**2).sum(axis=-1).mean()))
        logits = looks.read(frames)
        for name in CLASSES:
            wanted = int(clips.labels[name][number])
            if wanted != UNKNOWN:
                hits[name].append(int(logits[name].argmax()) == wanted)
        # As the metric judges it: kind and, but for the studio, colour together.
        is_named = clips.labels["backdrop_colour"][number] != UNKNOWN
        hits["backdrop"].append(
            hits["backdrop_kind"][-1] and (not is_named or hits["backdrop_colour"][-1])
        )
    error = f"{100 * np.mean(squares) ** 0.5:.2f} % (n = {len(squares)})" if squares else ""
    row = {"clips": take.title, "joints, RMSE": error}
    for name, own in hits.items():
        row[name] = f"{100 * np.mean(own):.1f} % (n = {len(own)})" if own else ""
    return row


def judge_metrics(
    clips: ProbeClips, take: Take, metrics: Sequence[ClipMetric], *, fps: float, seed: int
) -> dict[str, str]:
    """One row of the card: the metrics of ground truth on lone dancers, with 95 % intervals."""
    asked = ("score", "correlation", "chance")
    found: dict[str, list[float]] = {
        f"{metric.name}/{name}": []
        for metric in metrics
        for name in asked
        if name in metric.value_names
    }
    for number, take_frames in zip(tqdm(take.numbers, take.title), take.frames, strict=True):
        record = clips.records[number]
        if not np.isfinite(clips.joints[number]).all() or len(record["beats_seconds"]) < 2:
            continue
        clip = ScoredClip(
            frames=torch.from_numpy(np.array(take_frames)),
            fps=fps,
            waveform=None,
            rate_hz=1,
            name=record["clip_id"],
            seed=seed,
            beats_seconds=torch.tensor(record["beats_seconds"], dtype=torch.float64),
        )
        for metric in metrics:
            values = metric.score_clip(clip)
            for name in values.keys() & set(asked):
                found[f"{metric.name}/{name}"].append(values[name])
    row = {"clips": take.title, "n": str(len(next(iter(found.values()))))}
    for name, own in found.items():
        interval = bootstrap_mean(own, seed=seed, name=name)
        row[name] = "" if interval.mean is None else f"{interval.mean:.3f}"
        if interval.low is not None:
            row[name] += f" [{interval.low:.3f}, {interval.high:.3f}]"
    return row
