"""Sound around a clip that is encoded with it (`encoders.audio_context_seconds`)."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datamodules import YouTubeDataset
from datamodules.clips import CutSettings
from musicinfuser.clip_size import MOCHI
from musicinfuser.diffusion.windows import Windows
from musicinfuser.errors import UserError
from musicinfuser.generation import (
    audio_by_windows,
    audio_offset_seconds,
    audio_seconds,
    read_track,
)
from musicinfuser.generation_requests import SILENCE, GenerationRequest
from musicinfuser.media.audio import write_wav
from musicinfuser.media.video_writing import write_video
from musicinfuser.networks.audio_encoder import AudioEncoder, AudioIdentity, InContext
from musicinfuser.networks.combined_audio import audio_encoder_again, audio_encoder_of
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.pipelines.conditions import ConditionsMixin, waveforms

CPU = torch.device("cpu")
RATE_HZ, HOP, WINDOW = 16_000, 320, 400
PARTS = {"mochi": "nowhere", "audio": "nowhere", "audio_features": "log_mel"}


class Marks(AudioEncoder):
    """Of each feature: its first sample, and the first and last sample of all that is encoded."""

    rate_hz, hop, window, width = RATE_HZ, HOP, WINDOW, 3

    def encode(self, waveforms: torch.Tensor, *, device: torch.device) -> torch.Tensor:
        num = self.num_features(waveforms.shape[1])
        own = waveforms[:, : num * HOP : HOP]
        ends = waveforms[:, [0, -1]][:, None].expand(-1, num, -1)
        return torch.cat([own[..., None], ends], dim=-1)


def ramp(seconds: float) -> torch.Tensor:
    """Every sample tells its number."""
    return torch.arange(round(seconds * RATE_HZ), dtype=torch.float32)


def features_of(encoder: AudioEncoder, sound: torch.Tensor, first: int, num: int) -> torch.Tensor:
    return encoder.encode_span(sound[None], first, num, device=CPU)[0]


def test_features_keep_their_number_and_times() -> None:
    sound, first, num = ramp(10.0), 3 * RATE_HZ + 7, RATE_HZ
    alone = features_of(Marks(), sound, first, num)
    inside = features_of(InContext(Marks(), 2.0), sound, first, num)
    assert torch.equal(alone[:, 0], first + HOP * torch.arange(len(alone)))
    assert torch.equal(inside[:, 0], alone[:, 0])
    assert alone[0, 1:].tolist() == [first, first + num - 1]
    assert inside[0, 1:].tolist() == [first - 2 * RATE_HZ, first + num + 2 * RATE_HZ - 1]


def test_context_ends_where_the_sound_does() -> None:
    encoder, sound = InContext(Marks(), 2.0), ramp(2.0)
    first = RATE_HZ + 100  # in whole hops before it, 100 samples are left over
    found = features_of(encoder, sound, first, RATE_HZ // 2)
    assert found[0].tolist() == [first, 100, len(sound) - 1]
    own = ramp(1.0)
    assert torch.equal(features_of(encoder, own, 0, RATE_HZ), features_of(Marks(), own, 0, RATE_HZ))


def test_it_is_chosen_in_the_config_and_told_from_none() -> None:
    without, around = EncodersSpec(**PARTS), EncodersSpec(**PARTS, audio_context_seconds=1.5)
    plain, context = Encoders(without).audio, Encoders(around).audio
    assert not isinstance(plain, InContext) and context.context_seconds == 1.5
    assert (context.width, context.times, context.layers) == (80, plain.times, plain.layers)
    identity = context.identity()
    assert identity == replace(plain.identity(), context_seconds=1.5)
    assert str(identity).endswith("of 80 bands, with 1.5 s of context before and after")
    assert identity.differs_from(plain.identity()) and not identity.differs_from(identity)
    assert AudioIdentity.from_stored(identity.stored()) == identity
    assert "context_seconds" not in plain.identity().stored(), "stored as it always was"
    assert context.fingerprint() == f"{plain.fingerprint()}, 1.5 s around"
    assert audio_encoder_again(identity).identity() == identity
    several = audio_encoder_of(PARTS | {"audio_features": ["log_mel", "rhythm"]})
    combined = {"audio_features": ["log_mel", "rhythm"], "audio_context_seconds": 2}
    both = audio_encoder_of(PARTS | combined)
    assert [part.features for part in both.parts] == [part.features for part in several.parts]
    assert audio_encoder_again(both.identity()).identity() == both.identity()
    with pytest.raises(UserError, match=r"audio_context_seconds is -1; it must be at least 0"):
        EncodersSpec(**PARTS, audio_context_seconds=-1)


@pytest.fixture
def song(tmp_path: Path) -> str:
    """Noise of 12 s."""
    noise = 0.1 * torch.randn(12 * RATE_HZ, generator=torch.manual_seed(0))
    write_wav(tmp_path / "song.wav", noise, rate_hz=RATE_HZ)
    return str(tmp_path / "song.wav")


def request(song: str, **changes: object) -> GenerationRequest:
    size = {"num_frames": 13, "height": 32, "width": 48, "track_offset_seconds": 5.0}
    return GenerationRequest(track=song, prompt="a dancer", seed=0, **size | changes)


def test_a_track_is_read_with_what_is_around_the_clip(song: str) -> None:
    span = round(0.5 * RATE_HZ)
    _, own, _, _ = read_track(request(song), fps=30.0)
    _, sound, _, padded = read_track(request(song), fps=30.0, context_seconds=2.0)
    assert len(own) == span and len(sound) == span + 4 * RATE_HZ and padded == 0
    assert torch.equal(sound[2 * RATE_HZ : 2 * RATE_HZ + span], own)
    start = request(song, track_offset_seconds=0.5)
    assert len(read_track(start, fps=30.0, context_seconds=2.0)[1]) == span + 2.5 * RATE_HZ
    # At the end silence fills the clip's own span, and nothing comes after it.
    end = request(song, track_offset_seconds=11.75)
    _, last, _, padded = read_track(end, fps=30.0, context_seconds=2.0)
    assert len(last) == 2 * RATE_HZ + span and not last[-RATE_HZ // 5 :].any() and padded > 0.2
    silent = read_track(request(song, heard=SILENCE), fps=30.0, context_seconds=2.0)[1]
    assert silent.shape == sound.shape and not silent.any()
    other = request(song, heard=song, heard_offset_seconds=1.0)
    assert (audio_offset_seconds(other), audio_offset_seconds(request(song))) == (1.0, 5.0)
    assert len(read_track(other, fps=30.0, context_seconds=2.0)[1]) == span + 3 * RATE_HZ


def test_windows_have_the_context_around_each() -> None:
    encoder, windows, sound = InContext(Marks(), 1.0), Windows(8, length=3, overlap=1), ramp(9.0)
    first, span_seconds = 2 * RATE_HZ, audio_seconds(43, fps=30.0, windows=windows)

    def encode(sound: torch.Tensor, first: int, num: int) -> torch.Tensor:
        return encoder.encode_span(sound, first, num, device=CPU)

    found = audio_by_windows(
        encode, sound[None], windows, fps=30.0, first=first, span_seconds=span_seconds
    )
    for start, features in found.items():
        begin = first + round(start * 0.2 * RATE_HZ)
        assert features[0, 0].tolist() == [begin, begin - RATE_HZ, begin + 1.5 * RATE_HZ - 1]


def test_a_pipeline_conditions_as_a_request_does(song: str) -> None:
    """Sounds that have not the same around them are each encoded as alone."""
    encoder = InContext(Marks(), 2.0)
    size = {
        "rate_hz": RATE_HZ, "num_frames": 13, "start_seconds": 5.0, "context_seconds": 2.0,
        "fps": 30.0, "geometry": MOCHI,
    }  # fmt: skip
    short = (0.1 * torch.randn(6 * RATE_HZ, generator=torch.manual_seed(1)), RATE_HZ)
    sounds = waveforms([song, short], num_clips=2, **size)
    assert [len(sound) / RATE_HZ for sound in sounds] == [4.5, 3.0]
    assert len(waveforms(song, num_clips=3, **size)) == 3

    class Pipeline(ConditionsMixin):
        _execution_device = CPU
        fps = 30.0

    found = Pipeline()._features(encoder, sounds, 2, 13, 5.0, None)
    _, sound, _, _ = read_track(request(song), fps=30.0, context_seconds=2.0)
    expected = features_of(encoder, sound, 2 * RATE_HZ, RATE_HZ // 2)
    assert torch.equal(found[0], expected) and torch.equal(found[1], expected)
    assert found.shape == (4, 24, 3) and not torch.equal(found[2], expected)


def test_clips_of_videos_come_with_the_sound_around_them(tmp_path: Path) -> None:
    seconds = torch.arange(6 * RATE_HZ) / RATE_HZ
    tone = 0.5 * torch.sin(2 * math.pi * (200 + 100 * seconds) * seconds)
    frames = torch.zeros(180, 32, 32, 3, dtype=torch.uint8)
    write_video(tmp_path / "a.mp4", frames, fps=30.0, audio=tone, audio_rate_hz=RATE_HZ)
    settings = CutSettings(num_frames=13, height=32, width=32)
    data = YouTubeDataset(settings, tmp_path, shots=None, crops_per_minute=40.0)
    own = [data[index] for index in range(len(data))]
    data.audio_context_seconds = 1.25
    assert len(own) >= 3
    for clip, alone in zip((data[index] for index in range(len(data))), own, strict=True):
        first, num = clip.own_sound
        assert (alone.own_sound, num) == ((0, len(alone.waveform)), len(alone.waveform))
        assert first == round(min(clip.spec.start_seconds, 1.25) * RATE_HZ)
        assert torch.equal(clip.waveform[first : first + num], alone.waveform)
        left = 6.0 - clip.spec.start_seconds - num / RATE_HZ
        after = len(clip.waveform) - first - num
        assert after / RATE_HZ == pytest.approx(min(left, 1.25), abs=0.1)
