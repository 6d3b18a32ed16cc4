"""Who is who from frame to frame: people in frames become tracks, and a jump ends one.

A score of motion must never see one person's joints followed by another's. So a track goes on only
where the next pose is near, of like size, and the only one that is: where two people could be
meant, both tracks end and new ones begin.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from dance_eval.pose.finder import Person
from musicinfuser.setting_checks import check_number

FAR = 1e6


@dataclass(eq=False)
class Track:
    """One person through a clip."""

    poses: dict[int, Person] = field(default_factory=dict)
    """By frame."""

    @property
    def last_frame(self) -> int:
        """The last in which the person was found."""
        return max(self.poses)

    @property
    def weight(self) -> float:
        """Sizes over all frames, in px: who has most is taken for the dancer."""
        return sum(size_of(person) for person in self.poses.values())


@dataclass(frozen=True)
class Tracking:
    """When the same person is the same.

    Args:
        reach: Half of the joints move less than so many sizes of the person from a frame at 30 per
            second to the next; a jump to a neighbour is further. A dancer's leap is 0.1.
        size_ratio: Sizes of neighbouring frames differ by less than this factor.
        max_gap_seconds: A person who is not found for longer is somebody else afterwards.
        least_seconds: Tracks that are shorter are left out.
    """

    reach: float = 0.25
    size_ratio: float = 1.6
    max_gap_seconds: float = 0.2
    least_seconds: float = 0.3

    def __post_init__(self) -> None:
        """Check ranges."""
        check_number("reach", self.reach, above=0)
        check_number("size_ratio", self.size_ratio, above=1)
        check_number("max_gap_seconds", self.max_gap_seconds, at_least=0)
        check_number("least_seconds", self.least_seconds, at_least=0)

    @property
    def identity(self) -> str:
        """All settings."""
        return f"{self.reach:g} {self.size_ratio:g} {self.max_gap_seconds:g} {self.least_seconds:g}"


@dataclass(frozen=True, eq=False)
class Tracked:
    """The people of a clip, those who are seen most and largest first."""

    places: np.ndarray
    """float64, shape (P, T, J, 2), in px; 0 where not seen."""
    confidences: np.ndarray
    """float64, shape (P, T, J)."""
    seen: np.ndarray
    """bool, shape (P, T)."""
    num_jumps: int
    """Frames in which somebody stood where a track could not go on."""
    num_filled: int
    """Frames of single gaps that were filled in from both sides."""


def size_of(person: Person) -> float:
    """Diagonal of the box around a person's joints, in px."""
    return float(np.hypot(*np.ptp(person.joints, axis=0)))


def distance(first: Person, second: Person) -> float:
    """Median over joints of how far they are apart, over the mean size; `FAR` without any size."""
    size = (size_of(first) + size_of(second)) / 2
    if size <= 0:
        return FAR
    return float(np.median(np.linalg.norm(first.joints - second.joints, axis=1))) / size


def tracks_of(
    people: Sequence[Sequence[Person]], *, fps: float, tracking: Tracking | None = None
) -> tuple[list[Track], int]:
    """Tracks of the people in frames, the heaviest first, and how many jumps there were.

    A jump is a frame with people in which no track of the frame before goes on, or one in which it
    is not clear who is who.
    """
    rules = tracking or Tracking()
    max_gap = max(round(rules.max_gap_seconds * fps), 1)
    open_tracks: list[Track] = []
    closed: list[Track] = []
    num_jumps = 0
    for frame, found in enumerate(people):
        for track in list(open_tracks):
            if frame - track.last_frame > max_gap:
                open_tracks.remove(track)
                closed.append(track)
        costs = np.full((len(open_tracks), len(found)), FAR)
        for row, track in enumerate(open_tracks):
            last = track.poses[track.last_frame]
            # More time, more way; but never far.
            steps = min((frame - track.last_frame) * 30 / fps, 2.0)
            for column, person in enumerate(found):
                sizes = sorted((size_of(last), size_of(person)))
                if sizes[0] <= 0 or sizes[1] / sizes[0] >= rules.size_ratio:
                    continue
                gap = distance(last, person)
                costs[row, column] = gap if gap < rules.reach * max(steps, 1.0) else FAR
        unclear = _unclear(costs)
        for row in sorted(unclear, reverse=True):
            closed.append(open_tracks.pop(row))
        if len(open_tracks):
            costs = np.delete(costs, sorted(unclear), axis=0)
        rows, columns = linear_sum_assignment(costs) if costs.size and open_tracks else ((), ())
        matched = {
            column: open_tracks[row]
            for row, column in zip(rows, columns, strict=True)
            if costs[row, column] < FAR
        }
        if unclear or (found and open_tracks and not matched):
            num_jumps += 1
        for column, person in enumerate(found):
            own = matched.get(column)
            if own is None:
                own = Track()
                open_tracks.append(own)
            own.poses[frame] = person
    closed += open_tracks
    least = max(round(rules.least_seconds * fps), 1)
    kept = [track for track in closed if len(track.poses) >= least]
    return sorted(kept, key=lambda track: -track.weight), num_jumps


def _unclear(costs: np.ndarray) -> set[int]:
    """Rows that could go on as two of the columns alike, or share one with another row alike."""
    found = set()
    for row in range(costs.shape[0]):
        near = np.sort(costs[row][costs[row] < FAR])
        if len(near) > 1 and near[1] < 2 * near[0] + 0.02:
            found.add(row)
    for column in range(costs.shape[1]):
        rows = [row for row in range(costs.shape[0]) if costs[row, column] < FAR]
        rows.sort(key=lambda row: costs[row, column])
        if len(rows) > 1 and costs[rows[1], column] < 2 * costs[rows[0], column] + 0.02:
            found.update(rows[:2])
    return found


def tracked(
    people: Sequence[Sequence[Person]],
    *,
    fps: float,
    num_joints: int,
    tracking: Tracking | None = None,
    max_people: int = 8,
) -> Tracked:
    """Places of everybody's joints through a clip; single frames that miss somebody are filled in.

    A gap of one frame is filled with the middle of its neighbours, longer ones stay gaps.
    """
    tracks, num_jumps = tracks_of(people, fps=fps, tracking=tracking)
    tracks = tracks[:max_people]
    shape = (len(tracks), len(people), num_joints)
    places, confidences = np.zeros((*shape, 2)), np.zeros(shape)
    seen = np.zeros(shape[:2], bool)
    num_filled = 0
    for number, track in enumerate(tracks):
        for frame, person in track.poses.items():
            places[number, frame] = person.joints
            confidences[number, frame] = person.confidences
            seen[number, frame] = True
        for frame in range(1, len(people) - 1):
            if not seen[number, frame] and frame - 1 in track.poses and frame + 1 in track.poses:
                places[number, frame] = places[number, [frame - 1, frame + 1]].mean(axis=0)
                num_filled += 1
        filled = [f for f in range(1, len(people) - 1) if {f - 1, f + 1} <= track.poses.keys()]
        seen[number, filled] = True
    return Tracked(places, confidences, seen, num_jumps, num_filled)
