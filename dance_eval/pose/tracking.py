"""Who is who from frame to frame: people in frames become tracks, and a jump ends one.

A score of motion must never see one person's joints followed by another's. So a track goes on only
where the next pose is near, of like size, and the only one that is: where two people could be
meant, both tracks end and new ones begin. Left and right that a finder exchanges are put back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from dance_eval.pose.finder import Person
from musicinfuser.setting_checks import check_number

FAR = 1e6


@dataclass(eq=False)
class Track:
    """One person through a clip."""

    poses: dict[int, Person]
    """By frame."""
    num_exchanged: int = 0
    """Frames whose left and right the finder had exchanged; here they are put back."""

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
        reach: Three quarters of the joints move less than so many sizes of the person in a 30th of
            a second, which is 10 m/s; a jump to a neighbour is further. A dancer's leap is 0.1.
            Rates above 60 per second count as 60.
        size_ratio: Sizes of neighbouring frames differ by less than this factor.
        max_gap_seconds: A person who is not found for longer is somebody else afterwards.
        least_seconds: Tracks that are shorter are left out.
    """

    reach: float = 0.2
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
        """All settings, and a mark of the rules."""
        settings = self.reach, self.size_ratio, self.max_gap_seconds, self.least_seconds
        return " ".join(["quarters, sides", *(f"{number:g}" for number in settings)])


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
    num_exchanged: int
    """Frames whose left and right were put back, of everybody."""


def size_of(person: Person) -> float:
    """Diagonal of the box around a person's joints, in px."""
    return float(np.hypot(*np.ptp(person.joints, axis=0)))


def distance(first: Person, second: Person) -> float:
    """How far apart three quarters of the joints are at most, over the mean size.

    More than a quarter of them move only if somebody does: a median would pass over a finder that
    mixes the limbs of two people. `FAR` without any size.
    """
    size = (size_of(first) + size_of(second)) / 2
    if size <= 0:
        return FAR
    gaps = np.linalg.norm(first.joints - second.joints, axis=1)
    return float(np.quantile(gaps, 0.75)) / size


def tracks_of(
    people: Sequence[Sequence[Person]],
    *,
    fps: float,
    joint_names: Sequence[str],
    tracking: Tracking | None = None,
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
        # More time, more way; but never far, and finders are never still.
        steps = [min(max((frame - t.last_frame) * 30 / fps, 0.5), 2.0) for t in open_tracks]
        reaches = [rules.reach * number for number in steps]
        exchanged = [_other_sides(person, joint_names) for person in found]
        costs, is_exchanged = _costs(open_tracks, found, exchanged, reaches, rules.size_ratio)
        unclear = _unclear(costs)
        costs[sorted(unclear)] = FAR
        rows, columns = linear_sum_assignment(costs) if costs.size else ((), ())
        matched = {
            column: (open_tracks[row], bool(is_exchanged[row, column]))
            for row, column in zip(rows, columns, strict=True)
            if costs[row, column] < FAR
        }
        closed += [track for row, track in enumerate(open_tracks) if row in unclear]
        open_tracks = [track for row, track in enumerate(open_tracks) if row not in unclear]
        if unclear or (found and open_tracks and not matched):
            num_jumps += 1
        for column, person in enumerate(found):
            if column not in matched:
                open_tracks.append(Track({frame: person}))
                continue
            track, is_other = matched[column]
            track.poses[frame] = exchanged[column] if is_other else person
            track.num_exchanged += is_other
    closed += open_tracks
    least = max(round(rules.least_seconds * fps), 1)
    kept = [track for track in closed if len(track.poses) >= least]
    return sorted(kept, key=lambda track: -track.weight), num_jumps


def _other_sides(person: Person, joint_names: Sequence[str]) -> Person:
    """The same with the names of left and right joints exchanged."""
    sides = {"left": "right", "right": "left"}
    places = {name: place for place, name in enumerate(joint_names)}
    order = []
    for name in joint_names:
        side, _, part = name.partition("_")
        order.append(places.get(f"{sides.get(side, side)}_{part}", places[name]))
    return Person(person.joints[order], person.confidences[order])


def _costs(
    tracks: Sequence[Track],
    found: Sequence[Person],
    exchanged: Sequence[Person],
    reaches: Sequence[float],
    size_ratio: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the next poses from the last of each track, and which are of exchanged sides.

    `FAR` beyond reach. A pose that is within reach only with its sides exchanged is taken so:
    nobody turns about between two frames, but finders take a back for a front.
    """
    costs = np.full((len(tracks), len(found)), FAR)
    is_exchanged = np.zeros(costs.shape, bool)
    for row, track in enumerate(tracks):
        last = track.poses[track.last_frame]
        for column, poses in enumerate(zip(found, exchanged, strict=True)):
            sizes = sorted((size_of(last), size_of(poses[0])))
            if sizes[0] <= 0 or sizes[1] / sizes[0] >= size_ratio:
                continue
            gaps = [distance(last, pose) for pose in poses]
            is_other = gaps[0] >= reaches[row] > gaps[1]
            if gaps[is_other] < reaches[row]:
                costs[row, column] = gaps[is_other]
                is_exchanged[row, column] = is_other
    return costs, is_exchanged


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
    joint_names: Sequence[str],
    tracking: Tracking | None = None,
    max_people: int = 8,
) -> Tracked:
    """Places of everybody's joints through a clip; single frames that miss somebody are filled in.

    A gap of one frame is filled with the middle of its neighbours, longer ones stay gaps.
    """
    tracks, num_jumps = tracks_of(people, fps=fps, joint_names=joint_names, tracking=tracking)
    tracks = tracks[:max_people]
    shape = (len(tracks), len(people), len(joint_names))
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
    num_exchanged = sum(track.num_exchanged for track in tracks)
    return Tracked(places, confidences, seen, num_jumps, num_filled, num_exchanged)
