"""The probes that ship, on clips of a world that they were not trained on."""

import json

import pytest
import torch

from dance_eval.commands.options import read_metrics
from dance_eval.metrics.clip import ScoredClip
from datamodules import AISTDataset
from small_world.generator import make_small_world
from small_world.metrics.attributes import AttributeNet
from small_world.metrics.pose import PoseNet
from tests.conftest import ROOT
from tests.datamodules.conftest import cut

FOLDER = ROOT / "assets" / "small-world-probes"


@pytest.fixture(scope="module")
def metrics():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        built, _ = read_metrics(ROOT / "configs" / "small_world" / "metrics.yaml")
    return {metric.name: metric for metric in built}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Ten lone dancers in the studio, a genre each, with the beats of their own clock."""
    root = tmp_path_factory.mktemp("world")
    make_small_world(
        root, seed=78, num_aist=0, num_held_out=10, num_youtube=0, num_silent=0,
        num_without_audio=0, basic_beats=8, audio_rate_hz=8000, show_progress=False,
    )  # fmt: skip
    dataset = cut(AISTDataset, root / "aist", height=64, width=64)
    found = []
    for clip in (dataset[i] for i in range(len(dataset))):
        truth = json.loads((root / "truth" / f"{clip.spec.path.stem}.json").read_text())
        beats = torch.tensor(truth["beats_seconds"]) - clip.spec.start_seconds
        found.append(
            ScoredClip(
                frames=clip.frames,
                fps=30.0,
                waveform=None,
                rate_hz=1,
                name=clip.spec.clip_id,
                seed=0,
                beats_seconds=beats,
                prompt=clip.spec.caption,
            )  # fmt: skip
        )
    assert len(found) == 10
    return found


def means(metric, clips, *names):
    """Means of values over clips, each clip scored once."""
    found = [metric.score_clip(clip) for clip in clips]
    return [sum(values[name] for values in found) / len(found) for name in names]


def other_beats(clip):
    """Half a beat later, where the dancer is on the way."""
    beats = clip.music_beats()
    later = beats[:-1] + beats.diff() / 2
    return ScoredClip(clip.frames, clip.fps, None, 1, clip.name, clip.seed, later, clip.prompt)


def shuffled(clip):
    order = torch.randperm(len(clip.frames), generator=torch.Generator().manual_seed(0))
    return ScoredClip(
        clip.frames[order], clip.fps, None, 1, clip.name, clip.seed, clip.music_beats()
    )


def test_the_folder_is_small_and_has_a_card():
    assert sum(p.stat().st_size for p in FOLDER.rglob("*.safetensors")) < 1.5e6
    assert "small_world.experiments.train_probes" in (FOLDER / "README.md").read_text()
    assert len(PoseNet.load(FOLDER / "pose").joint_names) == 15
    assert len(AttributeNet.load(FOLDER / "attributes").classes["genre"]) == 10


def test_joints_rest_on_the_beats_of_the_dance_only(metrics, clips):
    metric = metrics["pose_beat_alignment"]
    [right], [later], [mixed] = (
        means(metric, group, "score")
        for group in (clips, map(other_beats, clips), map(shuffled, clips))
    )
    assert right > 0.8
    assert later < 0.2
    assert mixed < 0.5


def test_the_torso_sinks_on_the_beats_of_the_dance_only(metrics, clips):
    metric = metrics["torso_beat_correlation"]
    correlation, chance = means(metric, clips, "correlation", "chance")
    assert correlation > 0.7
    assert abs(chance) < 0.15
    assert means(metric, map(other_beats, clips), "correlation")[0] < -0.5


def test_prompts_of_the_dances_are_obeyed(metrics, clips):
    metric = metrics["attribute_accuracy"]
    obeyed, num_named = means(metric, clips, "obeyed", "num_named")
    assert obeyed > 0.9
    assert num_named == 2
    # Each clip under the prompt of the next, which names another genre.
    wrong = [
        ScoredClip(clip.frames, 30.0, None, 1, clip.name, 0, None, after.prompt)
        for clip, after in zip(clips, clips[1:] + clips[:1], strict=True)
    ]
    genre, backdrop = means(metric, wrong, "genre", "backdrop")
    assert genre < 0.3
    assert backdrop > 0.9
