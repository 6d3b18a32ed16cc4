"""The probability of what a prompt names, by the probe that ships."""

from itertools import pairwise

import pytest
import torch

from dance_eval.metrics.clip import ScoredClip
from musicinfuser.keyed_random import generator
from musicinfuser.media.latents import read_clip, read_headers
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from small_world.metrics.attribute_accuracy import PromptCertainty
from tests.conftest import ROOT

PROMPT = "a woman in a red shirt dancing Krump in front of a green wall"


@pytest.fixture(scope="module")
def metric():
    return PromptCertainty(weights=f"{ROOT}/assets/small-world-probes/attributes")


def clip_of(frames, prompt):
    return ScoredClip(
        frames=frames, fps=30.0, waveform=None, rate_hz=16_000, name="clip", seed=0, prompt=prompt
    )


def noise(num_frames=4):
    stream = generator(0, 0, "test frames")
    return torch.randint(256, (num_frames, 64, 64, 3), generator=stream, dtype=torch.uint8)


def test_equals_the_probabilities_written_out(metric):
    frames = noise()
    [network] = metric._networks
    logits = network.read(frames)

    def probability(attribute, wanted):
        values = logits[attribute].exp() / logits[attribute].exp().sum()
        return values[network.classes[attribute].index(wanted)].item()

    backdrop = probability("backdrop_kind", "plain") * probability("backdrop_colour", "green")
    expected = (probability("top", "red") + probability("genre", "KR") + backdrop) / 3
    found = metric.score_clip(clip_of(frames, PROMPT))
    assert found == {"certainty": pytest.approx(expected, rel=1e-4), "num_named": 3.0}
    assert metric.score_clip(clip_of(frames, "a dance video")) == {"num_named": 0.0}
    assert metric.is_complete({"num_named": 0.0})
    with pytest.raises(ValueError, match="has no prompt to compare with"):
        metric.score_clip(clip_of(frames, None))


def test_tells_good_clips_from_bad_ones(metric):
    """Clips of the world, their still pictures' noise, and prompts of other clips."""
    headers = [h for h in read_headers(ROOT / "assets" / "small-cache") if h.source == "youtube"]
    encoders = Encoders(EncodersSpec(mochi=f"{ROOT}/assets/small-mochi", dtype="float32"))
    chosen = headers[:3]
    own, noisy, wrong = [], [], []
    for header, other in pairwise([*chosen, chosen[0]]):
        mean = read_clip(header.path)["latent_mean"].float()[None]
        std, middle = (
            v.view(1, -1, 1, 1, 1) for v in (encoders.latents_std, encoders.latents_mean)
        )
        latents = (mean - middle) / std
        frames = encoders.decode_video(latents)[0]
        stream = generator(0, header.clip_id, "test latents")
        worse = encoders.decode_video(0.3 * latents + torch.randn(latents.shape, generator=stream))
        own.append(metric.score_clip(clip_of(frames, header.caption))["certainty"])
        noisy.append(metric.score_clip(clip_of(worse[0], header.caption))["certainty"])
        wrong.append(metric.score_clip(clip_of(frames, other.caption))["certainty"])
    print(f"own {own}, noisy {noisy}, another's prompt {wrong}")
    assert min(own) > 0.9
    assert max(noisy) < 0.6 and max(wrong) < 0.6
