"""ViTPose and RT-DETR of the real classes, and MediaPipe's side of the worker."""

import json
import sys

import numpy as np
import pytest
import torch
from transformers import (
    RTDetrForObjectDetection,
    RTDetrImageProcessor,
    VitPoseForPoseEstimation,
    VitPoseImageProcessor,
)

from dance_eval.pose import mediapipe
from dance_eval.pose.mediapipe import MediaPipe
from dance_eval.pose.vitpose import VitPose
from tests.dance_eval.pose_parts import write_small_detector, write_small_vitpose
from tests.small_encoders import noise

FRAMES = noise(3, 96, 80)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pose")
    return write_small_detector(folder / "detr"), write_small_vitpose(folder / "pose")


def test_joints_are_those_of_the_two_networks_one_after_the_other(networks):
    """Random weights find people anywhere with about even odds: all counts."""
    detector, pose = networks
    finder = VitPose(detector=detector, pose=pose, least_confidence=0.3, max_people=3, device="cpu")
    finder.check()
    found = finder.find(FRAMES)
    detr, reader = (
        RTDetrForObjectDetection.from_pretrained(detector).eval(),
        RTDetrImageProcessor.from_pretrained(detector),
    )
    vit, cutter = (
        VitPoseForPoseEstimation.from_pretrained(pose).eval(),
        VitPoseImageProcessor.from_pretrained(pose),
    )
    assert any(found)
    for frame, people in zip(FRAMES, found, strict=True):
        with torch.no_grad():
            seen = detr(**reader(images=[frame.numpy()], return_tensors="pt"))
        probability, place = seen.logits[0].sigmoid().flatten().sort(descending=True)
        boxes = []
        for value, index in zip(probability[:6].tolist(), place[:6].tolist(), strict=True):
            query, label = divmod(index, 2)
            x, y, w, h = (seen.pred_boxes[0, query] * torch.tensor([80, 96, 80, 96])).tolist()
            if label == 0 and value > 0.3:
                boxes.append([x - w / 2, y - h / 2, w, h])
        boxes.sort(key=lambda box: -box[2] * box[3])
        boxes = boxes[:3]
        assert len(people) == len(boxes)
        expected = []
        for box in boxes:
            pixels = cutter(images=[frame.numpy()], boxes=[[box]], return_tensors="pt")
            with torch.no_grad():
                heat = vit(**pixels)
            [[pose_of_box]] = cutter.post_process_pose_estimation(heat, boxes=[[box]])
            expected.append(pose_of_box["keypoints"].numpy())
        for person in people:
            assert person.joints.shape == (17, 2)
            # Random boxes are about equally large, so their order is chance.
            gaps = min((np.abs(person.joints - one) for one in expected), key=np.median)
            assert np.median(gaps) < 0.1


def test_frames_without_people_are_empty_and_weights_are_named(networks, tmp_path):
    detector, pose = networks
    nobody = VitPose(detector=detector, pose=pose, least_confidence=0.999, device="cpu")
    assert nobody.find(FRAMES) == [[], [], []]
    assert VitPose(detector=detector, pose=pose).identity != nobody.identity
    with pytest.raises(ValueError, match="the folder none does not exist"):
        VitPose(detector="./none", pose=pose).check()
    cats = write_small_detector(tmp_path / "cats", label="dog")
    with pytest.raises(ValueError, match="detects dog, cat, but no person"):
        VitPose(detector=cats, pose=pose).check()
    few = write_small_vitpose(tmp_path / "few", num_joints=5)
    with pytest.raises(ValueError, match="finds 5 joints; one that finds COCO's 17"):
        VitPose(detector=detector, pose=few).check()
    with pytest.raises(ValueError, match="least_confidence is 1"):
        VitPose(least_confidence=1.0)


WORKER = """
import numpy as np
from dance_eval.workers.serving import serve

def load(complexity, confidence):
    def answer(request):
        frames = np.load(request["frames"], allow_pickle=False)
        seen = [[[float(f.mean()), t, 0.5]] * JOINTS for t, f in enumerate(frames)]
        return {"people": [None if f.mean() < 50 else p for f, p in zip(frames, seen)]}
    return answer

serve(load, complexity="1", confidence="0.5")
"""


def worker(tmp_path, joints):
    """A program in the place of an environment's Python."""
    script = tmp_path / f"worker{joints}.py"
    script.write_text(WORKER.replace("JOINTS", str(joints)))
    python = tmp_path / f"python{joints}"
    # Called as `python -m module options`, from the checkout as the shipped command is.
    python.write_text(f'#!/bin/sh\nshift 2\nPYTHONPATH=. exec {sys.executable} {script} "$@"\n')
    python.chmod(0o755)
    return python


def test_a_worker_of_another_environment_finds_one_person_or_none(tmp_path):
    finder = MediaPipe(python=worker(tmp_path, 17))
    finder.check()
    frames = torch.full((3, 8, 8, 3), 100, dtype=torch.uint8)
    frames[1] = 0
    found = finder.find(frames)
    assert [len(people) for people in found] == [1, 0, 1]
    assert found[2][0].joints[3].tolist() == [100.0, 2.0]
    assert found[2][0].confidences.tolist() == [0.5] * 17
    assert finder.find(frames[:0]) == []
    assert finder.identity == f"mediapipe {mediapipe.VERSION} full 0.5"
    wrong = MediaPipe(python=worker(tmp_path, 5))
    with pytest.raises(ValueError, match="gave joints that are none"):
        wrong.find(frames)
    with pytest.raises(ValueError, match="could not be started"):
        MediaPipe(python=tmp_path / "none").check()
    with pytest.raises(ValueError, match="'huge'"):
        MediaPipe(python=tmp_path, model="huge")
    assert json.dumps(found[0][0].joints.tolist())
