from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dance_eval.metrics.aesthetic_quality import (
    AestheticQuality,
    HeadError,
    convert_head,
    main,
)
from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.features import scrambled_frame
from dance_eval.metrics.image_encoders import ClipEncoder
from musicinfuser.safetensors_files import save_tensors
from tests.small_encoders import WIDTH, noise

FRAMES = noise(5, 36, 61)


@pytest.fixture
def encoder(clip_folder):
    return ClipEncoder(clip_folder)


@pytest.fixture
def pickled(tmp_path):
    """A linear layer's state dict, as LAION publishes it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(torch.nn.Linear(WIDTH, 1).state_dict(), tmp_path / "linear.pth")
    return tmp_path / "linear.pth"


@pytest.fixture
def head(pickled, tmp_path):
    convert_head(pickled, tmp_path / "head.safetensors")
    return str(tmp_path / "head.safetensors")


def clip_of(frames):
    return ScoredClip(frames=frames, fps=30.0, waveform=None, rate_hz=1, name="a.mp4", seed=0)


def score(metric, frames=FRAMES):
    return metric.score_clip(clip_of(frames))


def test_the_score_is_a_tenth_of_the_layer_on_unit_vectors(encoder, head, pickled):
    layer = torch.load(pickled, weights_only=True)
    weight, bias = layer["weight"][0].double().numpy(), float(layer["bias"])
    slow = []
    for vector in encoder.embed_images(FRAMES, antialias=False).double().numpy():
        unit = vector / np.sqrt((vector**2).sum())
        slow.append((float((weight * unit).sum()) + bias) / 10)
    metric = AestheticQuality(encoder=encoder, head=head)
    found = score(metric)
    assert found["score"] == pytest.approx(np.mean(slow), abs=1e-6)
    # The same colours in another order.
    noise_of_it = scrambled_frame(clip_of(FRAMES))
    assert not torch.equal(noise_of_it, FRAMES[2])
    assert torch.equal(
        noise_of_it.flatten(0, 1).long().sum(dim=0), FRAMES[2].flatten(0, 1).long().sum(dim=0)
    )
    assert found["scrambled"] == pytest.approx(score(metric, noise_of_it[None])["score"], abs=1e-6)
    assert abs(found["scrambled"] - found["score"]) > 1e-4
    assert np.std(slow) > 1e-4
    few = AestheticQuality(encoder=ClipEncoder(encoder.weights, batch_size=2), head=head)
    assert score(few)["score"] == pytest.approx(score(metric)["score"], abs=1e-6)
    metric.update(ScoredClip(FRAMES, 30.0, None, 1, "a.mp4", 0))
    assert metric.compute()["score"] == pytest.approx(np.mean(slow), abs=1e-6)


def test_fingerprints_tell_heads_apart(encoder, head):
    metric = AestheticQuality(encoder=encoder, head=head)
    before = metric.fingerprints()
    assert before["weights"] == encoder.fingerprint()
    save_tensors({"weight": torch.ones(1, WIDTH), "bias": torch.ones(1)}, head)
    after = metric.fingerprints()
    assert after["weights"] == before["weights"] and after["head"] != before["head"]


def test_the_command_converts_a_pickle(pickled, tmp_path, capsys):
    target = tmp_path / "out" / "head.safetensors"
    main(["--convert", str(pickled), str(target)])
    assert str(target) in capsys.readouterr().out
    layer, converted = torch.load(pickled, weights_only=True), load_file(target)
    assert converted.keys() == {"weight", "bias"}
    assert all(torch.equal(converted[name], layer[name]) for name in layer)


def test_only_a_linear_head_is_converted(tmp_path):
    contents = {
        "bytes": lambda path: path.write_bytes(b"<html>not found</html>"),
        "empty": lambda path: path.write_bytes(b""),
        "code": lambda path: torch.save(Fraction(1, 2), path),
        "other": lambda path: torch.save({"weight": torch.zeros(3, 4)}, path),
        "two": lambda path: torch.save({"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, path),
        "missing": lambda path: None,
    }
    for name, write in contents.items():
        write(tmp_path / name)
        with pytest.raises(SystemExit) as stop:
            main(["--convert", str(tmp_path / name), str(tmp_path / "out.safetensors")])
        message = str(stop.value)
        assert message.startswith(f"aesthetic_quality: {tmp_path / name}: is not LAION's linear")
        assert "\n" not in message
    assert not (tmp_path / "out.safetensors").exists()


def test_heads_that_do_not_fit_are_refused(encoder, tmp_path, pickled):
    with pytest.raises(HeadError, match="holds no linear head .* --convert FILE.pth"):
        AestheticQuality(encoder=encoder, head=str(tmp_path / "missing.safetensors"))
    with pytest.raises(HeadError, match="holds no linear head"):
        AestheticQuality(encoder=encoder, head=str(pickled))
    wide = tmp_path / "wide.safetensors"
    save_tensors({"weight": torch.ones(1, 768), "bias": torch.ones(1)}, wide)
    with pytest.raises(HeadError, match=f"768 values, but .* gives {WIDTH}"):
        AestheticQuality(encoder=encoder, head=str(wide))
