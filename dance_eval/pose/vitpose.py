"""ViTPose behind an RT-DETR detector, by transformers."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dance_eval.pose.finder import Person, PoseFinder
from musicinfuser.errors import UserError
from musicinfuser.fingerprint import fingerprint_folder
from musicinfuser.pretrained_sources import find_local, load_pretrained
from musicinfuser.setting_checks import check_number

PERSON = "person"


@dataclass(frozen=True)
class VitPose(PoseFinder):
    """ViTPose (Xu et al. 2022, arXiv 2204.12484) on the people that RT-DETR finds.

    Args:
        detector: RT-DETR (Zhao et al. 2023, arXiv 2304.08069), a folder in transformers' layout or
            a Hub id.
        pose: ViTPose with COCO's 17 joints, likewise.
        least_confidence: Of a person, for the detector, in (0, 1).
        max_people: The largest in each frame.
        device: As torch names it; ``auto`` is the first GPU, or the CPU where there is none.
        batch_size: Frames at once.
    """

    detector: str = "PekingU/rtdetr_r50vd_coco_o365"
    pose: str = "usyd-community/vitpose-base-simple"
    least_confidence: float = 0.5
    max_people: int = 8
    device: str = "auto"
    batch_size: int = 8

    def __post_init__(self) -> None:
        """Check ranges."""
        check_number("least_confidence", self.least_confidence, above=0, below=1)
        check_number("max_people", self.max_people, at_least=1)
        check_number("batch_size", self.batch_size, at_least=1)

    @property
    def identity(self) -> str:
        """Both networks' weights and what is taken for a person."""
        parts = [_weights(source) for source in (self.detector, self.pose)]
        return f"vitpose {parts[0]} {parts[1]} {self.least_confidence:g} {self.max_people}"

    def check(self) -> None:
        """Load both networks."""
        self._networks()

    def find(self, frames: torch.Tensor) -> list[list[Person]]:
        """As in `PoseFinder`."""
        return [
            people
            for part in frames.split(self.batch_size)
            for people in self._find_in(list(part.numpy()))
        ]

    @torch.no_grad()
    def _find_in(self, frames: list[np.ndarray]) -> list[list[Person]]:
        networks = self._networks()
        boxes = self._boxes(frames, networks)
        # In frames without people there is nothing to look at.
        full = [number for number, own in enumerate(boxes) if len(own)]
        people: list[list[Person]] = [[] for _ in frames]
        if not full:
            return people
        pictures, wanted = [frames[n] for n in full], [boxes[n] for n in full]
        device = networks.pose.device
        pixels = networks.pose_processor(images=pictures, boxes=wanted, return_tensors="pt")
        inputs = {"pixel_values": pixels["pixel_values"].to(device)}
        if getattr(networks.pose.config.backbone_config, "num_experts", 1) > 1:
            # ViTPose++ has a head per data set; COCO's is the first.
            inputs["dataset_index"] = torch.zeros(len(inputs["pixel_values"]), device=device).long()
        found = networks.pose_processor.post_process_pose_estimation(
            networks.pose(**inputs), boxes=wanted
        )
        for number, poses in zip(full, found, strict=True):
            people[number] = [
                Person(
                    pose["keypoints"].double().numpy(),
                    pose["scores"].double().numpy().reshape(-1).clip(0, 1),
                )
                for pose in poses
            ]
        return people

    def _boxes(self, frames: list[np.ndarray], networks: "_Networks") -> list[np.ndarray]:
        """Of people, the largest first: left, top, width and height in px, shape (P, 4)."""
        device = networks.detector.device
        inputs = networks.detector_processor(images=frames, return_tensors="pt").to(device)
        sizes = [frame.shape[:2] for frame in frames]
        found = networks.detector_processor.post_process_object_detection(
            networks.detector(**inputs), threshold=self.least_confidence, target_sizes=sizes
        )
        boxes = []
        for one in found:
            corners = one["boxes"][one["labels"] == networks.person].cpu().double().numpy()
            own = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
            own = own[(own[:, 2] > 0) & (own[:, 3] > 0)]
            boxes.append(own[np.argsort(-own[:, 2] * own[:, 3])][: self.max_people])
        return boxes

    def _networks(self) -> "_Networks":
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return _loaded(self.detector, self.pose, device)


@dataclass(frozen=True)
class _Networks:
    detector: Any
    detector_processor: Any
    pose: Any
    pose_processor: Any
    person: int


@functools.cache
def _loaded(detector: str, pose: str, device: str) -> _Networks:
    # Here, since every command of evaluate.py knows this finder by its name.
    from transformers import (
        RTDetrForObjectDetection,
        RTDetrImageProcessor,
        VitPoseForPoseEstimation,
        VitPoseImageProcessor,
    )

    networks = [
        load_pretrained(kind, source, None).eval().requires_grad_(False).to(device)
        for kind, source in (
            (RTDetrForObjectDetection, detector),
            (VitPoseForPoseEstimation, pose),
        )
    ]
    labels = {name: number for number, name in networks[0].config.id2label.items()}
    if PERSON not in labels:
        raise UserError(f"{detector}: detects {', '.join(labels)}, but no {PERSON}.")
    found = len(VitPose.joint_names)
    if (number := networks[1].config.num_labels) != found:
        raise UserError(f"{pose}: finds {number} joints; one that finds COCO's {found} is needed.")
    return _Networks(
        networks[0],
        load_pretrained(RTDetrImageProcessor, detector, None),
        networks[1],
        load_pretrained(VitPoseImageProcessor, pose, None),
        labels[PERSON],
    )


def _weights(source: str) -> str:
    """A hash of a folder, or id and commit on the Hub."""
    folder = find_local(source, None)
    if folder is None:
        return source
    is_cached = folder.parent.name == "snapshots"
    return f"{source}@{folder.name}" if is_cached else fingerprint_folder(folder)
