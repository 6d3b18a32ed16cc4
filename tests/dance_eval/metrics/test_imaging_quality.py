import json
import pickle
import sys
from contextlib import closing

import numpy as np
import pytest
import torch

from dance_eval.external_worker import ExternalWorker, WorkerError
from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.imaging_quality import ImagingQuality, musiq_scores
from dance_eval.workers import musiq
from tests import slow_resize
from tests.small_encoders import noise

# Speaks as the MUSIQ worker does; its score is a weight times the mean brightness in percent.
SCRIPT = """
import argparse, json, sys
import numpy as np
from dance_eval.workers.serving import serve

parser = argparse.ArgumentParser()
parser.add_argument("--weights", required=True)
parser.add_argument("--cut", type=int, default=0)
parser.add_argument("--value", type=float)
options = parser.parse_args()

def load():
    weight = json.load(open(options.weights))
    def answer(request):
        pixels = np.load(request["pixels"], allow_pickle=False)
        assert pixels.dtype == np.float32 and 0 <= pixels.min() <= pixels.max() <= 1
        scores = [100 * weight * float(frame.mean()) for frame in pixels]
        if options.value is not None:
            scores[0] = options.value
        return {"scores": scores[options.cut :]}
    return answer

serve(load)
"""
FRAMES = noise(3, 40, 600)


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "weights.json").write_text("0.5")
    return str(tmp_path / "weights.json")


@pytest.fixture
def command(tmp_path):
    (tmp_path / "bright.py").write_text(SCRIPT)
    # From the folder of the program, as the shipped command is.
    run = f"import runpy; runpy.run_path({str(tmp_path / 'bright.py')!r})"
    return [sys.executable, "-c", run]


def clip_of(frames):
    return ScoredClip(frames=frames, fps=30.0, waveform=None, rate_hz=1, name="a.mp4", seed=0)


def test_the_score_is_a_hundredth_of_the_mean_over_resized_frames(command, weights):
    metric = ImagingQuality(command=command, weights=weights)
    slow = [
        slow_resize.resize_picture(frame.numpy(), 34, 512, slow_resize.linear_kernel).mean() / 255
        for frame in FRAMES
    ]
    values = metric.score_clip(clip_of(FRAMES))
    assert values["score"] == pytest.approx(0.5 * np.mean(slow), abs=1e-6)
    # As bright as before but for the resizing, which blurs another order of pixels.
    middle = float(FRAMES[1].double().mean()) / 255
    assert values["scrambled"] == pytest.approx(0.5 * middle, abs=1e-3)
    assert values["scrambled"] != pytest.approx(0.5 * slow[1], abs=1e-6)
    whole = ImagingQuality(command=command, weights=weights, resize="shorter", name="whole")
    plain = whole.score_clip(clip_of(FRAMES))["score"]
    assert plain == pytest.approx(0.5 * float(FRAMES.double().mean()) / 255, abs=1e-6)
    assert plain != pytest.approx(values["score"], abs=1e-5)
    with pytest.raises(ValueError, match="no frames"):
        metric.score_clip(clip_of(FRAMES[:0]))
    for one in (metric, whole):
        assert one._worker.num_starts == 1
        one._worker.close()


def test_copies_and_fingerprints(command, weights, tmp_path):
    metric = ImagingQuality(command=command, weights=weights)
    before = metric.fingerprints()
    copy = pickle.loads(pickle.dumps(metric))
    assert copy.score_clip(clip_of(FRAMES))["score"] > 0.1
    copy._worker.close()
    (tmp_path / "weights.json").write_text("0.25")
    assert metric.fingerprints().keys() == {"weights"} and metric.fingerprints() != before


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--cut=1", "gave no list of 3 scores"),
        ("--value=nan", "gave scores that are no finite numbers"),
    ],
)
def test_answers_of_another_form_are_refused(command, weights, option, message):
    with (
        closing(ExternalWorker([*command, "--weights", weights, option], name="musiq")) as worker,
        pytest.raises(WorkerError, match=f"musiq: {message}"),
    ):
        musiq_scores(FRAMES, worker=worker, resize="longer")


def test_what_the_worker_says_is_a_failure_of_the_clip(command, tmp_path):
    (tmp_path / "words.json").write_text(json.dumps("many"))
    metric = ImagingQuality(command=command, weights=str(tmp_path / "words.json"))
    with pytest.raises(ValueError, match="imaging_quality: TypeError: "):
        metric.score_clip(clip_of(FRAMES))
    metric._worker.close()


def test_settings_are_checked_before_anything_starts(weights):
    with pytest.raises(ValueError, match="the weights /no/file.pth do not exist"):
        ImagingQuality(command=["x"], weights="/no/file.pth")
    with pytest.raises(ValueError, match="resize must be 'longer' or 'shorter', not 'wider'"):
        ImagingQuality(command=["x"], weights=weights, resize="wider")
    with pytest.raises(ValueError, match="time_limit_seconds is .*; it must be above 0"):
        ImagingQuality(command=["x"], weights=weights, time_limit_seconds=0)
    metric = ImagingQuality(command=["/no/such/python"], weights=weights)
    with pytest.raises(ValueError, match="imaging_quality: `/no/such/python --weights"):
        metric.score_clip(clip_of(FRAMES))


def test_the_musiq_worker_scores_frames_of_a_file(tmp_path, monkeypatch):
    """With pyiqa, where it is installed, and random weights."""
    arch = pytest.importorskip("pyiqa.archs.musiq_arch")
    torch.manual_seed(0)
    model = arch.MUSIQ(pretrained=False).eval()
    torch.save(model.state_dict(), tmp_path / "musiq.pth")
    pixels = torch.rand(2, 3, 96, 160)
    np.save(tmp_path / "frames.npy", pixels.numpy())
    answer = musiq.load_musiq(str(tmp_path / "musiq.pth"), "cpu")
    scores = answer({"pixels": str(tmp_path / "frames.npy")})["scores"]
    with torch.no_grad():
        expected = [float(model(frame[None])) for frame in pixels]
    assert scores == pytest.approx(expected, abs=1e-5)
