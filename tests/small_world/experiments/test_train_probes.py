"""The command that trains the probes, on a tiny world and a few steps."""

import json

import numpy as np
import pytest
import torch

from datamodules import AISTDataset
from datamodules.aist import AIST_BASE_CAPTION, AIST_TEMPLATES, aist_caption
from datamodules.aist_names import AISTName, tables
from musicinfuser.errors import UserError
from musicinfuser.keyed_random import generator
from small_world.experiments.probe_clips import (
    CLASSES,
    UNKNOWN,
    CutOptions,
    labels_of,
    open_clips,
)
from small_world.experiments.probe_training import moved_joints, softened
from small_world.experiments.train_probes import main, prompt_phrases
from small_world.generator import make_small_world
from small_world.generator.test_clips import joints_in_clip
from small_world.generator.wild import draw_wild
from small_world.metrics.attribute_accuracy import AttributeAccuracy, named_in
from small_world.metrics.attributes import AttributeNet
from small_world.metrics.pose import PoseNet
from tests.conftest import ROOT
from tests.datamodules.conftest import cut

VAE = ROOT / "assets" / "small-mochi"
OPTIONS = CutOptions(num_frames=7, num_held_out_wild=2, vae_share=2)


def test_captions_of_the_wild_name_what_they_were_made_from():
    phrases = prompt_phrases()
    for index in range(300):
        dance = draw_wild(index, seed=3)
        kind, first, _ = dance.backdrop
        assert named_in(dance.caption, phrases) == {
            "genre": {"genre": dance.genre},
            "top": {"top": dance.top},
            "bottom": {"bottom": dance.bottom},
            "backdrop": {"backdrop_kind": kind, "backdrop_colour": first},
        }, dance.caption


@pytest.mark.parametrize("template", range(len(AIST_TEMPLATES)))
def test_captions_of_aist_name_genre_and_studio(template):
    studio = {"backdrop": {"backdrop_kind": "studio"}}
    for genre in tables().genres:
        name = AISTName(genre, "BM", "c01", ("d01",), f"m{genre}0", "ch01", None)
        caption = aist_caption(name, template_index=template)
        found = named_in(caption, prompt_phrases())
        assert found == {"genre": {"genre": genre}, **studio}, caption
    assert named_in(AIST_BASE_CAPTION, prompt_phrases()) == studio


def test_phrases_stand_for_classes():
    for meanings in prompt_phrases().values():
        for classes in meanings.values():
            assert all(value in CLASSES[name] for name, value in classes.items())


def test_softened_pictures_move_with_their_joints():
    place = torch.tensor([[0.3, 0.6]])
    line = (torch.arange(64) + 0.5) / 64
    far = (line[None, :] - 0.3) ** 2 + (line[:, None] - 0.6) ** 2
    spot = torch.exp(-far / (2 * 0.06**2)).expand(16, 3, 64, 64)
    soft, move = softened(spot, generator(0, 0, "test"))
    joints = moved_joints(place.expand(16, 1, 2), move)
    for picture, joint in zip(soft, joints[:, 0], strict=True):
        weights = (picture.mean(dim=0) - 0.3).clamp_min(0)
        weights = weights / weights.sum()
        found = torch.stack([(weights.sum(dim=0) * line).sum(), (weights.sum(dim=1) * line).sum()])
        torch.testing.assert_close(found, joint, rtol=0, atol=0.01)
    assert (joints[:, 0] - place).abs().max() > 0.03
    assert 0 <= soft.min() and soft.max() <= 1
    alike, _ = softened(spot, generator(0, 0, "test"), are_one_clip=True)
    assert alike.mean(dim=(1, 2, 3)).std() < 0.002 < soft.mean(dim=(1, 2, 3)).std()


def test_labels_of_what_no_caption_names_are_unknown():
    truth = {"genre": "PO", "num_dancers": 3}
    labels = labels_of(truth)
    assert labels["genre"] == CLASSES["genre"].index("PO")
    assert labels["backdrop_kind"] == CLASSES["backdrop_kind"].index("studio")
    assert labels["num_dancers"] == 2
    assert {labels[name] for name in ("top", "bottom", "backdrop_colour")} == {UNKNOWN}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("probes") / "world"
    make_small_world(
        root, seed=11, num_aist=3, num_held_out=1, num_youtube=4, num_silent=1, basic_beats=4,
        advanced_beats=4, num_without_audio=0, youtube_seconds=1.5, show_progress=False,
    )  # fmt: skip
    return root


def test_joints_lie_on_the_dancer_of_the_clip(world):
    dataset = cut(AISTDataset, world / "aist", num_frames=7, height=64, width=64)
    checked = 0
    for clip in (dataset[i] for i in range(len(dataset))):
        truth = json.loads((world / "truth" / f"{clip.spec.path.stem}.json").read_text())
        if truth["num_dancers"] > 1:
            continue
        [joints] = joints_in_clip(truth, clip.spec, fps=30.0)
        for frame, places in zip(clip.frames, joints, strict=True):
            names = dict(zip(truth["joint_names"], places, strict=True))
            head = (64 * names["head"]).astype(int)
            assert frame[head[1], head[0]].min() < 215, "the wall, not the head"
            middle = 0.5 * (names["pelvis"] + names["neck"])
            shirt = frame[int(64 * middle[1]), int(64 * middle[0])].float()
            assert shirt.max() - shirt.min() > 60, "no shirt is grey"
        checked += 1
    assert checked >= 2


def test_the_command_trains_judges_and_writes(world, tmp_path):
    out, cache = tmp_path / "probes", tmp_path / "cache"
    arguments = [
        f"--world={world}", f"--vae={VAE}", f"--out={out}", f"--cache={cache}", "--num-frames=7",
        "--num-held-out-wild=2", "--vae-share=2", "--pose-steps=2", "--look-steps=2",
        "--move-steps=2",
    ]  # fmt: skip
    main(arguments)
    pose, looks = PoseNet.load(out / "pose"), AttributeNet.load(out / "attributes")
    assert len(pose.joint_names) == 15
    assert {name: tuple(classes) for name, classes in looks.classes.items()} == CLASSES
    AttributeAccuracy(weights=str(out / "attributes"))
    card = (out / "README.md").read_text()
    assert "studio, through the VAE" in card and "{" not in card
    assert "pose_beat_alignment/score" in card and "small_world.generator" in card

    clips = open_clips(world, VAE, cache, OPTIONS)
    sources = [record["source"] for record in clips.records]
    assert (sources.count("aist"), sources.count("youtube")) == (4, 4)
    assert [record["held_out"] for record in clips.records].count(True) >= 2
    assert all("silence" != record["clip_id"] for record in clips.records)
    solo = np.isfinite(clips.joints).all(axis=(1, 2, 3))
    one = clips.labels["num_dancers"] == CLASSES["num_dancers"].index("1")
    assert (solo == one).all() and solo.any()
    held_out = clips.where(held_out=True)
    assert set(held_out) <= set(clips.decoded_index.tolist())
    [place] = np.flatnonzero(clips.decoded_index == held_out[0])
    difference = np.abs(clips.frames[held_out[0]].astype(int) - clips.decoded[place]).mean()
    assert 0 < difference < 15, "a clip and what the VAE makes of it"

    # A second time nothing is cut again.
    [file] = cache.iterdir()
    touched = file.stat().st_mtime_ns
    open_clips(world, VAE, cache, OPTIONS)
    assert file.stat().st_mtime_ns == touched
    with pytest.raises(UserError, match="does not describe a small world"):
        main([f"--world={tmp_path}/gone", *arguments[1:]])
