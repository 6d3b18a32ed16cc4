"""Audio features other than wav2vec 2.0's last hidden state."""

from types import SimpleNamespace

import pytest
import torch
from transformers import (
    AutoFeatureExtractor,
    AutoModelForAudioFrameClassification,
    HubertConfig,
    HubertModel,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertModel,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

from musicinfuser.errors import UserError
from musicinfuser.networks.beat_positions import SPEEDS, at_own_speed, at_speed, follow_beats
from musicinfuser.networks.combined_audio import chosen_parts
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.networks.log_mel import LogMel
from musicinfuser.networks.transformers_audio import TransformersAudio
from tests.audio_encoders import write_audio_encoder

CPU = torch.device("cpu")
SECONDS_OF_A_CLIP = 2.5


@pytest.fixture(scope="module")
def sound():
    seconds = torch.arange(int(16_000 * SECONDS_OF_A_CLIP)) / 16_000
    return 0.3 * torch.sin(2 * torch.pi * 440 * seconds)[None]


def encoders(parts, **changes):
    settings = {"audio": str(parts), "audio_subfolder": "audio_encoder", "dtype": "float32"}
    return Encoders(EncodersSpec(mochi=str(parts), **(settings | changes)))


def test_a_hidden_layer_is_the_library_s(small_parts, sound):
    model = Wav2Vec2Model.from_pretrained(small_parts / "audio_encoder").eval()
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(small_parts / "audio_encoder")
    values = extractor(sound[0].numpy(), sampling_rate=16_000, return_tensors="pt").input_values
    with torch.no_grad():
        states = model(values, output_hidden_states=True).hidden_states
    for layer in (0, 1):
        features = encoders(small_parts, audio_layer=layer).encode_audio(sound, device=CPU)
        torch.testing.assert_close(features, states[layer])
    assert not torch.equal(states[0], states[1])
    prints = [encoders(small_parts, audio_layer=n).fingerprints() for n in (None, 0, 1)]
    assert len({p["audio_encoder"] for p in prints}) == 3
    assert len({p["vae"] for p in prints}) == 1


def test_log_mel_has_a_frame_per_token_and_hears_pitch(small_parts, sound):
    tokens = encoders(small_parts).encode_audio(sound, device=CPU).shape[1]
    mel = encoders(small_parts, audio_features="log_mel")
    features = mel.encode_audio(sound, device=CPU)
    assert features.shape == (1, tokens, 80)
    higher = LogMel().encode(0.3 * torch.sin(torch.arange(40_000)[None] / 2), device=CPU)
    assert features[0, 50].argmax() < higher[0, 50].argmax()
    assert LogMel().encode(torch.zeros(1, 16_000), device=CPU).unique().tolist() == [-1.0]
    assert mel.fingerprints()["audio_encoder"] == "log-mel, 80 bands"


def test_another_encoder_of_transformers(small_parts, sound, tmp_path):
    config = Wav2Vec2Model.from_pretrained(small_parts / "audio_encoder").config.to_dict()
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
             "conv_dim", "conv_kernel", "conv_stride", "num_conv_pos_embeddings",
             "num_conv_pos_embedding_groups")  # fmt: skip
    hubert = HubertModel(HubertConfig(**{name: config[name] for name in names})).eval()
    hubert.save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path)
    features = encoders(small_parts, audio=str(tmp_path), audio_subfolder=None)
    with torch.no_grad():
        expected = hubert(sound).last_hidden_state
    torch.testing.assert_close(features.encode_audio(sound, device=CPU), expected)


@pytest.mark.parametrize("seconds", [2.5, 2.515, 3.1])
def test_w2v_bert_takes_spectra(small_parts, tmp_path, seconds):
    write_audio_encoder(tmp_path, "wav2vec2-bert")
    noise = torch.randn(1, round(16_000 * seconds), generator=torch.Generator().manual_seed(1)) / 9
    encoder = encoders(small_parts, audio=str(tmp_path), audio_subfolder=None)
    features = encoder.encode_audio(noise, device=CPU)
    extractor = SeamlessM4TFeatureExtractor()
    # 25 ms every 10 ms, two to a token: what is left over makes none.
    num_tokens = (noise.shape[1] - 560) // 320 + 1
    used = noise[0, : 560 + 320 * (num_tokens - 1)].numpy()
    spectra = extractor(used, sampling_rate=16_000, return_tensors="pt")
    assert spectra.input_features.shape[1] == num_tokens and spectra.attention_mask.all()
    with torch.no_grad():
        expected = Wav2Vec2BertModel.from_pretrained(tmp_path).eval()(**spectra).last_hidden_state
    torch.testing.assert_close(features, expected)
    assert encoder.audio.num_features(noise.shape[1]) == num_tokens
    assert encoder.audio.times.window_seconds == 0.035


def test_what_cannot_be_is_refused(small_parts):
    with pytest.raises(ValueError, match="audio_layer is -1"):
        EncodersSpec(audio_layer=-1)
    with pytest.raises(ValueError, match="no effect with log_mel"):
        EncodersSpec(audio_layer=1, audio_features="log_mel")
    with pytest.raises(ValueError, match="audio_layer is 99, but"):
        encoders(small_parts, audio_layer=99).audio.module  # noqa: B018
    with pytest.raises(ValueError, match="takes input_ids, no waveforms"):
        encoders(small_parts, audio_subfolder="text_encoder").audio.module  # noqa: B018


@pytest.mark.parametrize("kind", ["wav2vec2", "wav2vec2-bert"])
def test_positions_in_the_beat_are_read_by_the_head(tmp_path, kind):
    folder = write_audio_encoder(tmp_path / "encoder", kind, head=True)
    encoder = TransformersAudio(str(folder), layer="beats")
    assert (encoder.width, encoder.layers) == (6, ((1, 6),))
    noise = 0.3 * torch.randn(1, 48_000, generator=torch.Generator().manual_seed(0))
    num_tokens = encoder.num_features(48_000)
    model = AutoModelForAudioFrameClassification.from_pretrained(folder).eval()
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    mean = 0
    for speed in SPEEDS:
        heard = at_speed(noise, speed, rate_hz=16_000)
        num_heard = encoder.num_features(heard.shape[1])
        heard = heard[0, : encoder.window + (num_heard - 1) * encoder.hop]
        values = extractor(heard.numpy(), sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            points = model(values[model.main_input_name]).logits.unflatten(-1, (3, 2))
        own = at_own_speed(points, speed, num_tokens, first=encoder.window / 640)
        mean = mean + own / len(SPEEDS)
    with torch.no_grad():
        features = encoder.encode(noise, device=CPU)
    torch.testing.assert_close(features, follow_beats(mean, 0.02))
    assert features.shape == (1, num_tokens, 6)

    identity = encoder.identity()
    assert (identity.layer, identity.width) == ("beats", 6)
    assert str(identity).startswith("positions in beat and bar of ")
    held = TransformersAudio(layer="beats", model=model, extractor=extractor)
    assert held.identity() == identity
    with torch.no_grad():
        model.classifier.weight.add_(1.0)
    assert held.identity().weights != identity.weights  # the head is part of what it is

    plain = TransformersAudio(str(folder))
    without = TransformersAudio(model=model, extractor=extractor)
    assert without.identity() == plain.identity() and plain.identity().differs_from(identity)
    with torch.no_grad():
        last = plain.encode(noise, device=CPU)
        assert torch.equal(without.encode(noise, device=CPU), last)
    assert last.shape[-1] == 96


def test_an_error_at_one_speed_is_outvoted(tmp_path, monkeypatch):
    """Music of 120 per minute; at its own speed the head is half a beat off."""
    encoder = TransformersAudio(
        str(write_audio_encoder(tmp_path / "encoder", "wav2vec2-bert", head=True)), layer="beats"
    )
    music = torch.zeros(1, 16_000 * 8)
    middles = (torch.arange(encoder.num_features(music.shape[1])) * 320 + encoder.window / 2) / 16e3

    def logits(values):
        speed = music.shape[1] / values.shape[1]
        heard = torch.arange(encoder.num_features(values.shape[1])) * 320 + encoder.window / 2
        beats = heard / 16e3 * speed * 2 + (0.5 if speed == 1 else 0)
        angles = 2 * torch.pi * beats[:, None] / torch.tensor([1, 2, 4])
        return SimpleNamespace(
            logits=torch.stack([angles.cos(), angles.sin()], -1).flatten(1)[None]
        )

    monkeypatch.setattr(TransformersAudio, "module", staticmethod(logits))
    monkeypatch.setattr(encoder, "_values", lambda waveforms, device: waveforms)
    found = encoder.encode(music, device=CPU)[0, :, :2]
    angles = 2 * torch.pi * 2 * middles
    agreement = (found * torch.stack([angles.cos(), angles.sin()], -1)).sum(-1)
    assert agreement.min() > 0.98


def test_of_sound_too_short_for_the_faster_speeds_the_others_say(tmp_path):
    folder = write_audio_encoder(tmp_path / "encoder", "wav2vec2", head=True)
    encoder = TransformersAudio(str(folder), layer="beats")
    with torch.no_grad():
        assert encoder.encode(torch.zeros(1, encoder.window), device=CPU).shape == (1, 1, 6)
        assert encoder.encode(torch.zeros(1, 100), device=CPU).shape == (1, 0, 6)


def test_positions_in_the_beat_need_a_head(tmp_path):
    folder = write_audio_encoder(tmp_path / "encoder", "wav2vec2-bert")
    with pytest.raises(UserError, match="has no head for positions in beat"):
        TransformersAudio(str(folder), layer="beats").module  # noqa: B018
    other = write_audio_encoder(tmp_path / "ctc", "wav2vec2-ctc")
    with pytest.raises(UserError, match="has no head for positions in beat"):
        TransformersAudio(str(other), layer="beats").module  # noqa: B018
    # transformers has no head for these at all.
    hubert = write_audio_encoder(tmp_path / "hubert", "hubert")
    encoder = TransformersAudio(str(hubert), layer="beats")
    for build in (lambda: encoder.module, lambda: encoder.skeleton(encoder._config)):
        with pytest.raises(UserError, match="has no head for positions in beat"):
            build()
    with pytest.raises(UserError, match=r"audio_layer is beats, which only an encoder .* not mert"):
        chosen_parts({"audio": "x", "audio_features": "mert", "audio_layer": "beats"})
