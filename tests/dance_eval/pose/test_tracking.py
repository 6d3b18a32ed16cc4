"""Who is who: what is one person through a clip, and what is not."""

import numpy as np
import pytest

from dance_eval.metrics.skeletons import COCO17
from dance_eval.pose.finder import Person
from dance_eval.pose.tracking import Tracking, distance, tracked, tracks_of
from tests.dance_eval.pose_parts import body_at

FPS = 30.0


def frames_of(*tracks):
    """People by frame of several lists of places; None: not found."""
    return [
        [body_at(*place, seed=7) for place in places if place is not None]
        for places in zip(*tracks, strict=True)
    ]


def test_two_dancers_side_by_side_are_two_tracks():
    left = [(100 + 3 * t, 100) for t in range(30)]
    right = [
        (
            400 - 3 * t,
            100,
        )
        for t in range(30)
    ]
    found, jumps = tracks_of(frames_of(left, right), joint_names=COCO17, fps=FPS)
    assert [len(track.poses) for track in found] == [30, 30] and jumps == 0
    for track in found:
        steps = np.diff([track.poses[t].joints[0, 0] for t in range(30)])
        assert np.allclose(np.abs(steps), 3)


def test_a_jump_to_a_passer_by_ends_the_track():
    """One person is found in every frame, but not the same one."""
    path = [(100, 100)] * 15 + [(300, 100)] * 15
    found, jumps = tracks_of(frames_of(path), joint_names=COCO17, fps=FPS)
    assert [sorted(track.poses)[0] for track in found] == [0, 15]
    assert jumps == 1
    people = tracked(frames_of(path), fps=FPS, joint_names=COCO17)
    assert people.seen.sum(axis=1).tolist() == [15, 15]
    # No person's places ever move.
    for places, seen in zip(people.places, people.seen, strict=True):
        assert np.ptp(places[seen], axis=0).max() == 0


def test_a_jump_to_somebody_much_smaller_at_the_same_place_ends_it_too():
    near = [[body_at(100, 100, size=200)]] * 10 + [[body_at(100, 100, size=100)]] * 10
    found, jumps = tracks_of(near, joint_names=COCO17, fps=FPS)
    assert len(found) == 2 and jumps == 1


def test_a_leap_is_no_jump_and_a_slower_camera_may_move_further():
    leap = [(100 + 10 * t, 100) for t in range(20)]
    assert len(tracks_of(frames_of(leap), joint_names=COCO17, fps=FPS)[0]) == 1
    far = [(100 + 35 * t, 100) for t in range(20)]
    assert (
        len(tracks_of(frames_of(far), joint_names=COCO17, fps=FPS)[0]) == 0
    )  # each frame somebody else
    assert len(tracks_of(frames_of(far), joint_names=COCO17, fps=15.0)[0]) == 1


def test_reach_is_in_seconds():
    """What is a leap at 30 frames per second is a jump at 60."""
    path = [(100, 100)] * 40 + [(115, 100)] * 40
    assert [
        len(tracks_of(frames_of(path), joint_names=COCO17, fps=fps)[0])
        for fps in (30.0, 60.0, 120.0)
    ] == [1, 2, 2]
    # Finders tremble at any rate.
    still = [[body_at(100, 100, seed=7, wobble=1 + 0.01 * t)] for t in range(40)]
    assert [tracks_of(still, joint_names=COCO17, fps=fps)[1] for fps in (30.0, 240.0)] == [0, 0]


def test_limbs_of_two_people_mixed_end_a_track():
    """More than half of the joints stay where they are."""
    whole, other = body_at(100, 100, seed=7), body_at(200, 100, seed=7)
    mixed = whole.joints.copy()
    mixed[11:] = other.joints[11:]  # the legs
    found = [[whole]] * 15 + [[Person(mixed, whole.confidences)]] * 15
    tracks, jumps = tracks_of(found, joint_names=COCO17, fps=FPS)
    assert sorted(min(track.poses) for track in tracks) == [0, 15] and jumps == 1
    # One arm may be thrown as fast as it likes.
    thrown = whole.joints.copy()
    thrown[[5, 7, 9]] += 40
    found = [[whole]] * 15 + [[Person(thrown, whole.confidences)]] * 15
    tracks, jumps = tracks_of(found, joint_names=COCO17, fps=FPS)
    assert len(tracks) == 1 and jumps == 0


def test_left_and_right_that_are_exchanged_are_put_back():
    """As MediaPipe does with somebody who turns the back."""
    order = [COCO17.index(_opposite(name)) for name in COCO17]
    assert order[:4] == [0, 2, 1, 4]
    found = []
    for t in range(30):
        person = body_at(100 + t, 100, seed=7)
        if t in (8, 9, 20):
            person = Person(person.joints[order], np.arange(17) / 17)
        found.append([person])
    people = tracked(found, joint_names=COCO17, fps=FPS)
    assert (people.num_exchanged, people.num_jumps) == (3, 0)
    expected = [body_at(100 + t, 100, seed=7).joints for t in range(30)]
    np.testing.assert_allclose(people.places[0], expected)
    np.testing.assert_allclose(people.confidences[0, 20] * 17, order)
    # A jump to somebody else is one whatever the sides.
    far = [[Person(p.joints + 300, p.confidences)] for [p] in found]
    tracks, jumps = tracks_of(found[:20] + far[20:], joint_names=COCO17, fps=FPS)
    assert len(tracks) == 2 and jumps == 1


def _opposite(name):
    if name.startswith("left_"):
        return "right_" + name[5:]
    return "left_" + name[6:] if name.startswith("right_") else name


def test_people_who_cross_are_not_taken_for_each_other():
    left = [(100 + 8 * t, 100) for t in range(40)]
    right = [(412 - 8 * t, 100) for t in range(40)]
    found, jumps = tracks_of(frames_of(left, right), joint_names=COCO17, fps=FPS)
    assert jumps > 0
    # Wherever tracks go on, they go on in one direction.
    for track in found:
        at = [track.poses[t].joints[0, 0] for t in sorted(track.poses)]
        assert (np.diff(at) > 0).all() or (np.diff(at) < 0).all()


def test_gaps_of_a_frame_are_filled_and_longer_ones_stay():
    path = [(100 + t, 100) for t in range(40)]
    holes = [None if t in (10, 20, 21) else place for t, place in enumerate(path)]
    people = tracked(frames_of(holes), fps=FPS, joint_names=COCO17)
    assert people.num_filled == 1 and people.seen.shape == (1, 40)
    assert np.flatnonzero(~people.seen[0]).tolist() == [20, 21]
    expected = body_at(110, 100, seed=7).joints
    np.testing.assert_allclose(people.places[0, 10], expected)
    long = [None if 10 <= t < 20 else place for t, place in enumerate(path)]
    assert len(tracks_of(frames_of(long), joint_names=COCO17, fps=FPS)[0]) == 2


def test_who_is_larger_and_seen_longer_comes_first():
    small = [[body_at(500, 100, size=60)] for _ in range(30)]
    large = [[body_at(100, 100, size=150)] if t > 5 else [] for t in range(30)]
    both = [a + b for a, b in zip(small, large, strict=True)]
    people = tracked(both, fps=FPS, joint_names=COCO17)
    assert people.seen.sum(axis=1).tolist() == [24, 30]
    assert tracked([[], []], fps=FPS, joint_names=COCO17).places.shape == (0, 2, 17, 2)


def test_distances_are_in_sizes_and_rules_are_checked():
    one, other = body_at(0, 0), body_at(30, 40)
    size = np.hypot(*np.ptp(one.joints, axis=0))
    assert distance(one, other) == pytest.approx(50 / size)
    with pytest.raises(ValueError, match="size_ratio is 1"):
        Tracking(size_ratio=1.0)
