"""`evaluate.py pose`: files of joints beside clips, for the metrics that read them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt
from tqdm import tqdm

from dance_eval.commands.options import MAX_HEIGHT
from dance_eval.loading import EvaluationError, collect_clips, read_frames
from dance_eval.metrics.clip_folder import ClipEntry
from dance_eval.metrics.joint_track import JointTrack, longest_stretch
from dance_eval.pose.finder import PoseFinder
from dance_eval.pose.mediapipe import MediaPipe
from dance_eval.pose.tracking import Tracking, tracked
from dance_eval.pose.vitpose import VitPose
from musicinfuser.atomic_files import require_writable, write_text
from musicinfuser.errors import UserError
from musicinfuser.fingerprint import file_digest
from musicinfuser.joint_files import Joints
from musicinfuser.option_parser import OptionParser

FINDERS = (VitPose, MediaPipe)
"""Known to the command by their names; others by their class paths."""


def parser() -> ArgumentParser:
    """The options of `pose`."""
    pose = OptionParser(description="Find the joints of people in folders of clips.")
    pose.add_argument("--config", action="config", help="YAML file with any of these options.")
    pose.add_argument("folders", nargs="+", type=Path, help="As for `score`.")
    pose.add_argument(
        "--finder",
        type=PoseFinder,
        required=True,
        help="VitPose (weights from the Hub) or MediaPipe (an environment of its own).",
    )
    pose.add_argument("--tracking", type=Tracking, default=Tracking(), help="Who is who.")
    pose.add_argument(
        "--output",
        type=Path | None,
        default=None,
        help="Folder for the files, <stem>.joints.json; default: beside the clips.",
    )
    pose.add_argument(
        "--max_height",
        type=PositiveInt,
        default=2 * MAX_HEIGHT,
        help="Taller frames are scaled down to it before joints are looked for, in px.",
    )
    return pose


@dataclass(frozen=True)
class Outcome:
    """What became of one clip."""

    file: str
    num_people: int
    share_seen: float
    """Of the frames, those in the longest stretch with the first person; 0 without one."""
    num_jumps: int
    num_exchanged: int
    is_new: bool


def run(settings: Namespace) -> None:
    """Write a file of joints for every clip that has none yet, and say what was not found.

    Files that another finder or setting made, or of another video, are made anew; other files of
    that name are left alone and are failures.

    Raises:
        EvaluationError: If the finder cannot work, or no clip could be read.
    """
    built = parser().instantiate(settings)
    finder, tracking = built.finder, built.tracking
    entries, _ = collect_clips(settings.folders)
    track = JointTrack(None if settings.output is None else str(settings.output))
    targets = [track.own_file_of(entry.path) for entry in entries]
    if doubled := next((path for path in targets if targets.count(path) > 1), None):
        raise EvaluationError(
            f"--output: two clips would both be {doubled.name}; give one folder at a time."
        )
    for folder in {path.parent for path in targets}:
        require_writable(folder, option="--output")
    outcomes: list[Outcome] = []
    failures: dict[str, str] = {}
    is_checked = False
    for entry, target in zip(tqdm(entries, unit="clip", desc="pose"), targets, strict=True):
        name = f"{entry.system}: {entry.file}"
        try:
            made_of = _made_of(entry, finder, tracking, settings.max_height)
            if (kept := _kept(target, made_of)) is None and not is_checked:
                is_checked = True
                _check(finder)
            outcomes.append(
                _outcome(name, kept or _find(entry, target, finder, tracking, made_of), not kept)
            )
        except EvaluationError:
            raise
        except (UserError, OSError) as error:
            failures[name] = " ".join(str(error).split())
    for line in summary(outcomes, failures):
        print(line)
    if not outcomes:
        raise EvaluationError(f"Joints were found in none of the {len(entries)} clips.")


def _check(finder: PoseFinder) -> None:
    try:
        finder.check()
    except UserError as error:
        raise EvaluationError(str(error)) from error


def _made_of(
    entry: ClipEntry, finder: PoseFinder, tracking: Tracking, max_height: int
) -> dict[str, Any]:
    if entry.problem is not None:
        raise UserError(entry.problem)
    return {
        "video_sha256": file_digest(entry.path),
        "finder": finder.identity,
        "tracking": tracking.identity,
        "max_height": max_height,
        "clip": [entry.num_frames, entry.fps],
    }


def _kept(target: Path, made_of: dict[str, Any]) -> dict[str, Any] | None:
    """What a file holds that is just that; None without one, or for one made otherwise."""
    if not target.exists():
        return None
    try:
        content = json.loads(target.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or "made_of" not in content:
        raise UserError(
            f"{target}: is there already and was not written by this command; give --output."
        )
    return content if content["made_of"] == made_of else None


def _find(
    entry: ClipEntry,
    target: Path,
    finder: PoseFinder,
    tracking: Tracking,
    made_of: dict[str, Any],
) -> dict[str, Any]:
    frames, fps = read_frames(entry, max_height=made_of["max_height"])
    people = tracked(
        finder.find(frames), fps=fps, joint_names=finder.joint_names, tracking=tracking
    )
    content = {
        "made_of": made_of,
        "num_frames": len(frames),
        "fps": fps,
        "frame_size": [frames.shape[2], frames.shape[1]],
        "names": list(finder.joint_names),
        "num_jumps": people.num_jumps,
        "num_filled": people.num_filled,
        "num_exchanged": people.num_exchanged,
        "seen": people.seen.astype(int).tolist(),
        "joints": people.places.round(2).tolist(),
        "confidences": people.confidences.round(3).tolist(),
    }
    write_text(target, json.dumps(content, allow_nan=False) + "\n")
    return content


def _outcome(name: str, content: dict[str, Any], is_new: bool) -> Outcome:
    num_people, share = len(content["joints"]), 0.0
    if num_people:
        seen = torch.tensor(content["seen"][0]).double()
        places = torch.where(seen > 0, 0.0, torch.nan)[None, :, None, None]
        share = longest_stretch(Joints(places)).num_frames / content["num_frames"]
    counts = content["num_jumps"], content["num_exchanged"]
    return Outcome(name, num_people, share, *counts, is_new)


def summary(outcomes: Sequence[Outcome], failures: dict[str, str]) -> list[str]:
    """Lines that say how many clips have joints, and which have none or few, and why."""
    num_new = sum(outcome.is_new for outcome in outcomes)
    lines = [
        f"{len(outcomes)} clips have a file of joints: {num_new} new, "
        f"{len(outcomes) - num_new} kept."
    ]
    for outcome in outcomes:
        said = []
        if not outcome.num_people:
            said.append("nobody was found")
        elif outcome.share_seen < 1:
            said.append(f"the dancer is followed for {outcome.share_seen:.0%} of the frames")
        if outcome.num_people > 1:
            said.append(f"{outcome.num_people} people")
        if outcome.num_jumps:
            said.append(f"{outcome.num_jumps} jumps between people, which end a track")
        if outcome.num_exchanged:
            said.append(
                f"left and right were exchanged in {outcome.num_exchanged} frames, put back"
            )
        if said:
            lines.append(f"- {outcome.file}: {'; '.join(said)}.")
    if failures:
        lines.append(f"{len(failures)} clips failed:")
        lines += [f"- {name}: {reason}" for name, reason in failures.items()]
    return lines
