"""Audio features of several encoders side by side."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from musicinfuser.errors import UserError
from musicinfuser.media.audio import resample
from musicinfuser.networks.audio_encoder import AudioEncoder, AudioIdentity, AudioPart, AudioTimes
from musicinfuser.networks.backbone import BackboneSpec
from musicinfuser.networks.combined_audio import (
    CombinedAudio,
    at_times,
    audio_encoder_again,
    audio_encoder_of,
    chosen_parts,
)
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.networks.log_mel import LogMel
from musicinfuser.networks.origin import Origin
from musicinfuser.networks.transformers_audio import TransformersAudio
from tests.audio_encoders import WIDTH, write_audio_encoder

CPU = torch.device("cpu")


class Clock(AudioEncoder):
    """The second at which each feature is centred, at a rate and hop of its own."""

    width = 1

    def __init__(self, rate_hz: int, hop: int, window: int, width: int = 1) -> None:
        super().__init__()
        self.rate_hz, self.hop, self.window, self.width = rate_hz, hop, window, width
        self.heard: list[torch.Tensor] = []

    def encode(self, waveforms: torch.Tensor, *, device: torch.device) -> torch.Tensor:
        self.heard.append(waveforms)
        num = self.num_features(waveforms.shape[1])
        seconds = torch.arange(num) * self.times.hop_seconds + self.times.window_seconds / 2
        return seconds.float()[None, :, None].expand(len(waveforms), -1, self.width)


def seconds_of(times: AudioTimes, num: int) -> torch.Tensor:
    return torch.arange(num) * times.hop_seconds + times.window_seconds / 2


def encoders(folder: Path, *features: object, **changes: object) -> Encoders:
    settings = {"mochi": str(folder), "audio": str(folder / "encoder"), "dtype": "float32"}
    return Encoders(EncodersSpec(**settings | {"audio_features": list(features)} | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_audio_encoder(tmp_path / "encoder")
    write_audio_encoder(tmp_path / "hubert", "hubert")
    return tmp_path


@pytest.mark.parametrize(
    "others", [[(24_000, 320, 400)], [(16_000, 640, 2048), (22_050, 512, 2048)], [(8_000, 80, 80)]]
)
def test_every_part_is_at_the_seconds_of_the_first(others: list) -> None:
    first, *rest = [Clock(*numbers) for numbers in [(16_000, 320, 400), *others]]
    combined = CombinedAudio([first, *rest])
    assert combined.rate_hz == max(part.rate_hz for part in (first, *rest))
    num_samples = 2 * combined.rate_hz
    sound = torch.rand(2, num_samples, generator=torch.Generator().manual_seed(1)) - 0.5
    features = combined.encode(sound, device=CPU)
    expected = seconds_of(AudioTimes(), 99)
    assert combined.times == AudioTimes() and combined.num_features(num_samples) == 99
    assert features.shape == (2, 99, 1 + len(rest))
    for channel, part in enumerate((first, *rest)):
        own = seconds_of(part.times, part.num_features(2 * part.rate_hz))
        clock = expected.clamp(own[0].item(), own[-1].item())
        torch.testing.assert_close(features[0, :, channel], clock.float(), rtol=0, atol=1e-6)
        [heard] = part.heard
        assert heard.shape == (2, 2 * part.rate_hz)
        if part.rate_hz != combined.rate_hz:
            again = resample(sound[1], from_hz=combined.rate_hz, to_hz=part.rate_hz)
            assert torch.equal(heard[1], again)


def test_interpolation_is_linear_and_holds_its_ends() -> None:
    have, want = AudioTimes(0.04, 0.08), AudioTimes(0.015, 0.01)
    features = torch.randn(1, 9, 3, generator=torch.Generator().manual_seed(0))
    found = at_times(features, have, want, 40)
    x, known = seconds_of(want, 40).numpy(), seconds_of(have, 9).numpy()
    for channel in range(3):
        expected = np.interp(x, known, features[0, :, channel].numpy())
        assert found[0, :, channel].numpy() == pytest.approx(expected, abs=1e-5)
    assert at_times(features, have, have, 9) is features
    assert torch.equal(at_times(features[:, :1], have, want, 4), features[:, :1].expand(1, 4, 3))


@pytest.mark.slow  # librosa compiles itself on first use
def test_channels_are_those_of_the_parts_in_order(folder: Path) -> None:
    sound = 0.1 * torch.randn(2, 40_000, generator=torch.Generator().manual_seed(2))
    both = encoders(folder, "encoder", "rhythm", AudioPart("encoder", str(folder / "hubert")))
    features = both.encode_audio(sound, device=CPU)
    assert features.shape == (2, 124, both.audio.width) == (2, 124, WIDTH + 35 + WIDTH)
    with torch.no_grad():
        first = TransformersAudio(str(folder / "encoder")).encode(sound, device=CPU)
        last = TransformersAudio(str(folder / "hubert")).encode(sound, device=CPU)
    assert torch.equal(features[..., :WIDTH], first) and torch.equal(features[..., -WIDTH:], last)
    assert features[:, :, WIDTH:-WIDTH].any()
    assert both.audio.fingerprint().count(" + ") == 2
    assert len(list(both.audio.module)) == 2


def test_what_a_list_means(folder: Path) -> None:
    entries = ["encoder", {"features": "encoder", "layer": 0}, "log_mel"]
    config = {"audio": str(folder / "encoder"), "audio_layer": 2, "audio_features": entries}
    parts = audio_encoder_of(config).parts
    assert [(p.features, p.layer) for p in parts] == [
        ("encoder", 2), ("encoder", 0), ("log_mel", None),
    ]  # fmt: skip
    assert {p.source for p in parts} == {str(folder / "encoder")}
    # A folder of its own within the source of all.
    elsewhere = [{"features": "encoder", "subfolder": "encoder"}, "log_mel"]
    (place, *_) = chosen_parts({"audio": str(folder), "audio_features": elsewhere})
    assert (place.source, place.subfolder) == (str(folder), "encoder")
    alone = audio_encoder_of(config | {"audio_features": ["log_mel"], "audio_layer": None})
    assert isinstance(alone, LogMel)
    for features, changes, said in (
        ([], {}, "audio_features names nothing"),
        (["rhythm", "log_mel"], {"audio_layer": 1}, "audio_layer has no effect with rhythm, log"),
        ([AudioPart("log_mel", layer=1)], {}, "the layer of log_mel has no effect"),
        ([AudioPart("encoder", layer=-1)], {}, "the layer of encoder is -1"),
        (["rhythm", "no.such"], {}, "'no.such' cannot be imported"),
        (
            [AudioPart("encoder"), "rhythm"],
            {"audio_layer": "beats"},
            "audio_layer has no effect with encoder, rhythm; set it to null, and layer of the part",
        ),
    ):
        with pytest.raises(UserError, match=said):
            encoders(folder, *features, **changes)
    with pytest.raises(UserError, match="is a list of names, and of groups with features and, if"):
        chosen_parts({"audio": "x", "audio_features": "[{'features': 'encoder', 'layers': 2}]"})
    with pytest.raises(UserError, match=r"0\.01 s of sound are too short for log_mel"):
        encoders(folder, "log_mel", "rhythm").encode_audio(torch.zeros(1, 200), device=CPU)


def test_an_identity_says_every_part(folder: Path) -> None:
    made = encoders(folder, "encoder", "rhythm")
    origin = Origin.of_parts(made.spec, BackboneSpec(config="x"))
    assert origin.audio == made.audio.identity()
    first, second = origin.audio.parts
    assert first == TransformersAudio(str(folder / "encoder")).identity()
    assert (origin.audio.width, origin.audio.rate_hz) == (WIDTH + 35, 50.0)
    assert str(origin.audio) == f"{first} with rhythm (50 Hz, 35 channels)"
    assert not origin.audio.is_authors and origin.audio.of_transformers == first
    stored = json.loads(json.dumps(origin.stored()))
    assert Origin.from_stored(stored) == origin
    # One encoder is stored as it was before there were parts.
    assert "parts" not in first.stored() and AudioIdentity.from_stored(first.stored()) == first
    again = audio_encoder_again(origin.audio)
    assert not origin.audio.differs_from(again.identity())
    given = TransformersAudio(str(folder / "hubert"))
    other = audio_encoder_again(origin.audio, given=given)
    assert other.parts[0] is given and origin.audio.differs_from(other.identity())
    for changed in (
        replace(origin.audio, parts=(second, first)),
        replace(origin.audio, parts=(first,)),
        replace(origin.audio, parts=(replace(first, layer=1), second)),
        first,
    ):
        assert origin.audio.differs_from(changed) and changed.differs_from(origin.audio)
    unknown = replace(first, weights=None, encoder="/elsewhere")
    moved = replace(origin.audio, parts=(unknown, second))
    assert not origin.audio.differs_from(moved) and not origin.audio.can_be_told_from(moved)
    assert origin.audio.can_be_told_from(origin.audio)
