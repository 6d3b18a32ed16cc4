"""RT-DETR and ViTPose of the real classes with random weights, and people who need no network."""

from pathlib import Path

import numpy as np
import torch
from transformers import (
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrImageProcessor,
    VitPoseConfig,
    VitPoseForPoseEstimation,
    VitPoseImageProcessor,
)
from transformers.models.rt_detr.configuration_rt_detr_resnet import RTDetrResNetConfig
from transformers.models.vitpose_backbone.configuration_vitpose_backbone import (
    VitPoseBackboneConfig,
)

from dance_eval.metrics.skeletons import COCO17
from dance_eval.pose.finder import Person, PoseFinder
from musicinfuser.errors import UserError

SIDE = 64


def write_small_detector(folder: Path, *, seed: int = 0, label: str = "person") -> str:
    """An RT-DETR of one layer each that knows people and cats."""
    backbone = RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = RTDetrConfig(
        backbone_config=backbone,
        encoder_hidden_dim=16,
        encoder_in_channels=[8, 16, 16],
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        encoder_layers=1,
        decoder_in_channels=[16, 16, 16],
        d_model=16,
        num_queries=6,
        decoder_layers=1,
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
        num_denoising=0,
        id2label={0: label, 1: "cat"},
        label2id={label: 0, "cat": 1},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = RTDetrForObjectDetection(config).eval()
        for name, weights in network.named_parameters():
            # Made so that at first nothing is detected.
            if name.endswith("bias") and ("class_embed" in name or "score_head" in name):
                torch.nn.init.zeros_(weights)
        network.save_pretrained(folder)
    RTDetrImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return str(folder)


def write_small_vitpose(folder: Path, *, seed: int = 0, num_joints: int = 17) -> str:
    """A ViTPose of two layers that reads pictures of 64x48."""
    backbone = VitPoseBackboneConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=[64, 48],
        patch_size=[16, 16],
        out_indices=[2],
    )
    config = VitPoseConfig(backbone_config=backbone, num_labels=num_joints, use_simple_decoder=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        VitPoseForPoseEstimation(config).eval().save_pretrained(folder)
    VitPoseImageProcessor(size={"height": 64, "width": 48}).save_pretrained(folder)
    return str(folder)


def body_at(x, y, *, size=100.0, wobble=0.0, seed=0) -> Person:
    """A person whose joints fill a box around a place."""
    stream = np.random.default_rng(seed)
    shape = stream.uniform(-0.5, 0.5, (17, 2)) * [0.4 * size, size]
    moved = np.random.default_rng(1000 + int(1e6 * wobble)).normal(size=(17, 2)) * wobble
    return Person(np.array([x, y]) + shape + moved, np.full(17, 0.9))


class Scripted(PoseFinder):
    """Finds whoever a frame's brightness says: 0 nobody, 1 one, 2 two; a body per level."""

    joint_names = COCO17

    def __init__(self, *, broken: bool = False, mark: str = "a") -> None:
        self.broken = broken
        self.mark = mark

    @property
    def identity(self) -> str:
        return f"scripted {self.mark}"

    def check(self) -> None:
        pass

    def find(self, frames):
        if self.broken:
            raise UserError("broken")
        found = []
        for number, frame in enumerate(frames):
            level = int(frame.float().mean())
            people = [body_at(100 + number, 100), body_at(400 - number, 100, size=80)]
            found.append(people[: 0 if level < 60 else 1 if level < 160 else 2])
        return found
