"""Kinetic and geometric features and foot contact, against plain loops over the definitions."""

import json
import math

import numpy as np
import pytest
import torch

from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.diversity import Diversity
from dance_eval.metrics.foot_contact import (
    FootSliding,
    PhysicalFootContact,
    physical_foot_contact,
    slower_foot_speed,
)
from dance_eval.metrics.frechet import FrechetDistance, frechet_distance, standardised
from dance_eval.metrics.motion_features import (
    GeometricFeatures,
    KineticFeatures,
    geometric_features,
    kinetic_features,
)
from dance_eval.metrics.skeletons import COCO17, SMPL24
from musicinfuser.joint_files import Joints
from musicinfuser.keyed_random import generator
from tests.dance_eval.metrics.sets import combined, entry


def body(num_frames=40, seed=0, *, dimensions=3, num_joints=24):
    """Joints around a standing body that swing; metres, y upwards."""
    stream = generator(seed, 0, "test body")
    home = (
        torch.rand(num_joints, dimensions, generator=stream)
        * torch.tensor([1.0, 1.8, 0.5])[:dimensions]
    )
    size = 0.3 * torch.rand(num_joints, dimensions, generator=stream)
    hertz = 0.3 + 2 * torch.rand(num_joints, dimensions, generator=stream)
    times = torch.arange(num_frames)[:, None, None] / 60
    return (home + size * torch.sin(6.2832 * hertz * times + 9 * size)).double()


def slow_kinetic(places, fps, up):
    """Frame by frame: the mean of up to five steps around each."""
    frames, joints, axes = places.shape
    features = []
    for joint in range(joints):
        flat, vertical, spent = 0.0, 0.0, 0.0
        for i in range(1, frames):
            steps, bends = [], []
            for k in range(i - 2, i + 3):
                if 1 <= k <= frames - 1:
                    steps.append(places[k, joint] - places[k - 1, joint])
                if 1 <= k <= frames - 2:
                    p = places[:, joint]
                    bends.append(p[k + 1] - 2 * p[k] + p[k - 1])
            velocity = np.mean(steps, axis=0) * fps
            flat += sum(velocity[axis] ** 2 for axis in range(axes) if axis != up)
            vertical += velocity[up] ** 2
            spent += np.linalg.norm(np.mean(bends, axis=0)) * fps**2
        features += [flat / (frames - 1), vertical / (frames - 1), spent / (frames - 1)]
    return features


@pytest.mark.parametrize(("dimensions", "up"), [(3, "y"), (3, "z"), (2, "y")])
@pytest.mark.parametrize("num_frames", [3, 5, 25])
def test_kinetic_features_against_a_loop(dimensions, up, num_frames):
    places = body(num_frames, dimensions=dimensions, num_joints=4)
    found = kinetic_features(places, fps=30.0, up=up)
    expected = slow_kinetic(places.numpy(), 30.0, {"y": 1, "z": 2}[up])
    assert found.shape == (12,)
    assert found.tolist() == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match="2 frames have no acceleration"):
        kinetic_features(places[:2], fps=30.0)


def slow_geometric(places, fps):
    """The definitions of AIST++'s features, question by question for every frame."""
    arm, shoulders, hips = 0.2568381, 0.3908484, 0.1192471
    short = {
        name: name.replace("left_", "l").replace("right_", "r").replace("foot", "toes")
        for name in SMPL24
    }
    short |= {"pelvis": "root", "spine1": "belly", "spine3": "chest"}
    rows = []
    for t in range(1, len(places)):
        here = {short[name]: places[t, k] for k, name in enumerate(SMPL24)}
        past = {short[name]: places[t - 1, k] for k, name in enumerate(SMPL24)}
        ground = np.array([0, min(places[t, :, 1]), 0])
        extra = {"zero": np.zeros(3), "y": np.array([0, 1, 0]), "-y": np.array([0, -1, 0])}
        here |= extra | {"min": ground}

        def along(a, b, origin, point, limit, here=here):
            direction = here[b] - here[a]
            return np.dot(direction, here[point] - here[origin]) > limit * math.dist(
                here[a], here[b]
            )

        def moves(a, b, c, point, limit, here=here, past=past):
            speed = (here[c] - here[a] - past[c] + past[a]) * 2 * fps
            return np.dot(speed, here[b] - here[a]) / math.dist(here[a], here[b]) > limit

        def spins(a, b, c, point, limit, here=here, past=past):
            normal = np.cross(here[c] - here[a], here[b] - here[a])
            return np.dot(here[point] - here[a] - past[point] + past[a], normal) * 2 * fps > limit

        def plane(a, b, c, point, limit, here=here):
            normal = np.cross(here[c] - here[a], here[b] - here[a])
            return np.dot(normal, here[point] - here[a]) / np.linalg.norm(normal) > limit

        def angle(a, b, c, d, low, high, here=here):
            one, other = here[b] - here[a], here[d] - here[c]
            cosine = np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other)
            return low < math.degrees(math.acos(cosine)) < high

        def fast(joint, limit, here=here, past=past):
            return math.dist(here[joint], past[joint]) * 2 * fps > limit

        rows.append([
            spins("neck", "rhip", "lhip", "rwrist", 1.8 * arm),
            spins("neck", "lhip", "rhip", "lwrist", 1.8 * arm),
            along("chest", "neck", "neck", "rwrist", 0.2 * arm),
            along("chest", "neck", "neck", "lwrist", 0.2 * arm),
            moves("belly", "chest", "chest", "rwrist", 1.8 * arm),
            moves("belly", "chest", "chest", "lwrist", 1.8 * arm),
            angle("relbow", "rshoulder", "relbow", "rwrist", 0, 110),
            angle("lelbow", "lshoulder", "lelbow", "lwrist", 0, 110),
            along("lshoulder", "rshoulder", "lwrist", "rwrist", 2.5 * shoulders),
            moves("lwrist", "rwrist", "rwrist", "lwrist", 1.4 * arm),
            moves("rwrist", "root", "lwrist", "root", 1.4 * arm),
            moves("lwrist", "root", "rwrist", "root", 1.4 * arm),
            fast("rwrist", 2.5 * arm),
            fast("lwrist", 2.5 * arm),
            plane("root", "lhip", "ltoes", "rankle", 0.38 * arm),
            plane("root", "rhip", "rtoes", "lankle", 0.38 * arm),
            along("zero", "y", "min", "rankle", 1.2 * arm),
            along("zero", "y", "min", "lankle", 1.2 * arm),
            along("lhip", "rhip", "lankle", "rankle", 2.1 * hips),
            angle("rknee", "rhip", "rknee", "rankle", 0, 110),
            angle("lknee", "lhip", "lknee", "lankle", 0, 110),
            fast("rankle", 2.5 * arm),
            fast("lankle", 2.5 * arm),
            angle("neck", "root", "rshoulder", "relbow", 25, 180),
            angle("neck", "root", "lshoulder", "lelbow", 25, 180),
            angle("neck", "root", "rhip", "rknee", 50, 180),
            angle("neck", "root", "lhip", "lknee", 50, 180),
            plane("rankle", "neck", "lankle", "root", 0.5 * arm),
            angle("neck", "root", "zero", "y", 70, 110),
            along("zero", "-y", "min", "rwrist", -1.2 * arm),
            along("zero", "-y", "min", "lwrist", -1.2 * arm),
            fast("root", 2.3 * arm),
        ])  # fmt: skip
    return np.mean(rows, axis=0)


@pytest.mark.parametrize("seed", range(3))
def test_geometric_features_against_the_definitions(seed):
    places = body(30, seed)
    found = geometric_features(places, fps=60.0)
    assert found.tolist() == pytest.approx(slow_geometric(places.numpy(), 60.0).tolist())
    assert ((found > 0) & (found < 1)).sum() >= 8


def slow_pfc(places, up):
    """EDGE's lines at 30 fps."""
    flat = [axis for axis in range(3) if axis != up]
    velocity = (places[1:, 0] - places[:-1, 0]) * 30
    push = (velocity[1:] - velocity[:-1]) * 30
    push[:, up] = np.maximum(push[:, up], 0)
    push = np.sqrt((push**2).sum(axis=1))
    total = 0.0
    for t in range(len(push)):
        feet = []
        for ankle, toes in ((7, 10), (8, 11)):
            feet.append(
                min(
                    math.dist(places[t + 2, k][flat], places[t + 1, k][flat]) for k in (ankle, toes)
                )
            )
        total += feet[0] * feet[1] * push[t] / push.max()
    return total / len(push) * 10000


def test_foot_contact_is_edges_at_30_fps_and_does_not_depend_on_the_rate():
    places = body(60)
    for up, axis in (("y", 1), ("z", 2)):
        expected = slow_pfc(places.numpy(), axis)
        assert physical_foot_contact(places, fps=30.0, up=up) == pytest.approx(expected)
    slow = body(400)  # at 60 per second, so every second frame is 30
    twice = physical_foot_contact(slow, fps=60.0)
    assert twice == pytest.approx(physical_foot_contact(slow[::2], fps=30.0), rel=0.15)
    assert physical_foot_contact(places[:1].expand(5, -1, -1), fps=30.0) == 0


def write(folder, name, places, names):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(
        json.dumps({"joints": places.tolist(), "names": list(names)})
    )
    return ScoredClip(
        frames=torch.zeros(len(places), 4, 4, 3, dtype=torch.uint8), fps=60.0, waveform=None,
        rate_hz=1, name=name, seed=0, path=folder / f"{name}.mp4",
    )  # fmt: skip


def test_joints_of_pictures_are_refused_where_depth_is_needed(tmp_path):
    flat = write(tmp_path, "flat", 100 * body(70, dimensions=2, num_joints=17), COCO17)
    for metric in (PhysicalFootContact(), FrechetDistance(features=GeometricFeatures())):
        with pytest.raises(ValueError, match="2 coordinates per joint, but .* needs 3: pictures"):
            metric.score_clip(flat) if isinstance(metric, PhysicalFootContact) else (
                metric.describe(flat)
            )
    unnamed = write(tmp_path, "unnamed", body(70), [f"joint{k}" for k in range(24)])
    with pytest.raises(ValueError, match="PFC needs the 24 joints of SMPL"):
        PhysicalFootContact().score_clip(unnamed)


def test_the_slower_foot_in_torsos_per_second(tmp_path):
    places = 100 * body(70, dimensions=2, num_joints=17)
    clip = write(tmp_path, "clip", places, COCO17)
    values = FootSliding().score_clip(clip)
    total, torso = 0.0, []
    at = {name: places[:, k].tolist() for k, name in enumerate(COCO17)}
    for t in range(70):
        shoulders = [(a + b) / 2 for a, b in zip(at["left_shoulder"][t], at["right_shoulder"][t])]  # noqa: B905
        hips = [(a + b) / 2 for a, b in zip(at["left_hip"][t], at["right_hip"][t])]  # noqa: B905
        torso.append(math.dist(shoulders, hips))
        if t:
            total += min(math.dist(at[k][t], at[k][t - 1]) for k in ("left_ankle", "right_ankle"))
    expected = total / 69 * 60 / sorted(torso)[34]
    assert values["score"] == pytest.approx(expected, rel=1e-9)
    assert values["shuffled"] > 2 * values["score"]
    # Size in the picture does not matter.
    half = Joints(0.5 * places[None], COCO17)
    assert slower_foot_speed(half, fps=60.0) == pytest.approx(expected)


def test_fid_k_and_div_k_stand_beside_shuffled_frames_and_the_reference_itself(tmp_path):
    clips, vectors = [], {}
    for system, size in (("truth", 1.0), ("near", 1.0), ("still", 0.2)):
        for k in range(6):
            places = body(70, seed=k + (100 if system == "near" else 0))
            places = places.mean(dim=0) + size * (places - places.mean(dim=0))
            clips.append((write(tmp_path, f"{system}{k}", places, SMPL24), entry(system, seed=k)))
            vectors.setdefault(system, []).append(kinetic_features(places, fps=60.0))
    options = {"features": KineticFeatures(), "reference": "truth", "num_resamples": 20}
    fid = FrechetDistance(standardise=True, **options)
    values = {name: combined(fid, clips, name) for name in ("near", "still", "truth")}
    mean, spread = (
        np.stack(vectors["truth"]).mean(axis=0),
        np.stack(vectors["truth"]).std(axis=0),
    )
    scaled = {name: torch.tensor((np.stack(v) - mean) / spread) for name, v in vectors.items()}
    for name in ("near", "still"):
        expected = frechet_distance(scaled[name], scaled["truth"])
        assert values[name]["distance"].mean == pytest.approx(expected, rel=1e-6)
        assert values[name]["shuffled"].mean > 2 * values[name]["distance"].mean
        assert values[name]["reference_to_itself"].num_values == 3
    assert values["truth"]["distance"].mean is None
    div = Diversity(**options)
    apart = [
        math.dist(a, b)
        for i, a in enumerate(scaled["near"].tolist())
        for b in scaled["near"].tolist()[i + 1 :]
    ]
    found = combined(div, clips, "near")
    assert found["distance"].mean == pytest.approx(np.mean(apart), rel=1e-6)
    assert found["distance"].low < found["distance"].mean < found["distance"].high
    assert combined(div, clips, "truth")["distance"].mean > 0
    assert combined(div, clips, "still")["distance"].mean < found["distance"].mean
    plain = combined(Diversity(features=KineticFeatures(), reference=None), clips, "near")
    rows = [row.tolist() for row in vectors["near"]]
    apart = [math.dist(a, b) for i, a in enumerate(rows) for b in rows[i + 1 :]]
    assert plain["distance"].mean == pytest.approx(np.mean(apart), rel=1e-6)
    with pytest.raises(ValueError, match="diversity compares with the system 'truth'"):
        div.require(["near"])


def test_what_never_changes_in_the_reference_is_left_out():
    reference = torch.tensor([[1.0, 5.0], [3.0, 5.0]], dtype=torch.float64)
    first, other = standardised(torch.tensor([[2.0, 9.0], [4.0, 0.0]]).double(), reference)
    assert first.tolist() == [[0.0], [2.0]] and other.tolist() == [[-1.0], [1.0]]
