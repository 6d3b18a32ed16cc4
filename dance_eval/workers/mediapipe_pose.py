"""MediaPipe's pose as a worker in an environment of its own: numpy below 2, and Python up to 3.12.

The package brings its model up to this version; nothing is downloaded:

    python3.11 -m venv ENV
    ENV/bin/pip install mediapipe==0.10.21

`dance_eval.pose.mediapipe.MediaPipe` starts it, by hand it is

    ENV/bin/python -m dance_eval.workers.mediapipe_pose

A request ``{"frames": FILE.npy}`` names uint8 RGB frames of one clip, shape (T, H, W, 3); the
answer is ``{"people": [...]}`` with null for a frame in which nobody was found, else 17 joints as
COCO has them, ``[x, y, visibility]`` each, in pixels.
"""

from __future__ import annotations

from typing import Any

from dance_eval.workers.serving import Answer, serve

# Nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles, among MediaPipe's 33.
COCO_OF_33 = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)


def load_pose(complexity: str, confidence: str) -> Answer:
    """What turns a request into joints.

    Args:
        complexity: 0, 1 or 2: which model.
        confidence: Of a person, in (0, 1).
    """
    import mediapipe
    import numpy as np

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        frames = np.load(request["frames"], mmap_mode="r", allow_pickle=False)
        height, width = frames.shape[1:3]
        people: list[list[list[float]] | None] = []
        # It remembers the frame before, so every clip has its own.
        with mediapipe.solutions.pose.Pose(
            model_complexity=int(complexity), min_detection_confidence=float(confidence)
        ) as pose:
            # Its first look at a video is often off, so the first frame is looked at twice.
            pose.process(np.ascontiguousarray(frames[0]))
            for frame in frames:
                marks = pose.process(np.ascontiguousarray(frame)).pose_landmarks
                if marks is None:
                    people.append(None)
                    continue
                found = [marks.landmark[index] for index in COCO_OF_33]
                people.append([[m.x * width, m.y * height, m.visibility] for m in found])
        return {"people": people}

    return answer


if __name__ == "__main__":
    serve(load_pose, complexity="1", confidence="0.5")
