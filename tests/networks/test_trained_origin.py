"""What tells one audio encoder from another, and what is read of files that do not say it."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    HubertForCTC,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
)

from musicinfuser.errors import UserError
from musicinfuser.networks.audio_encoder import AudioIdentity
from musicinfuser.networks.backbone import BackboneSpec
from musicinfuser.networks.encoders import EncodersSpec
from musicinfuser.networks.origin import Origin
from musicinfuser.networks.transformers_audio import TransformersAudio
from musicinfuser.networks.weights_fingerprint import fingerprint_weights, mapped_weights
from tests.audio_encoders import KINDS, WIDTH, write_audio_encoder


def identity(folder: Path | str, *, layer: int | None = None) -> AudioIdentity:
    return TransformersAudio(str(folder), layer=layer).identity()


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_is_the_same_on_disk_and_in_memory(tmp_path: Path, kind: str) -> None:
    stored = identity(write_audio_encoder(tmp_path / "encoder", kind), layer=2)
    loaded = AutoModel.from_pretrained(tmp_path / "encoder")
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "encoder")
    held = TransformersAudio(layer=2, model=loaded, extractor=extractor)
    assert held.identity() == stored
    assert stored.kind == kind.removesuffix("-ctc") and stored.weights
    assert (stored.rate_hz, stored.width, stored.layer) == (50.0, WIDTH, 2)
    other = identity(write_audio_encoder(tmp_path / "others", kind, seed=2), layer=2)
    assert other.weights != stored.weights and stored.differs_from(other)


def test_it_is_the_same_however_it_is_stored(tmp_path: Path) -> None:
    first = identity(write_audio_encoder(tmp_path / "encoder", "wav2vec2-ctc"))
    with_head = Wav2Vec2ForCTC.from_pretrained(tmp_path / "encoder")
    with_head.save_pretrained(tmp_path / "split", max_shard_size="100KB")
    assert len(list((tmp_path / "split").glob("*.safetensors"))) > 1
    with_head.bfloat16().save_pretrained(tmp_path / "half")
    Wav2Vec2Model.from_pretrained(tmp_path / "encoder").save_pretrained(tmp_path / "headless")
    old = tmp_path / "old"
    shutil.copytree(tmp_path / "encoder", old)
    (old / "model.safetensors").unlink()
    names = {"original0": "weight_g", "original1": "weight_v"}
    weights = {
        name.replace("parametrizations.weight.original0", names["original0"]).replace(
            "parametrizations.weight.original1", names["original1"]
        ): tensor
        for name, tensor in mapped_weights(tmp_path / "encoder").items()
    }
    assert any(name.endswith("weight_g") for name in weights)
    torch.save(weights, old / "pytorch_model.bin")
    for folder in ("split", "half", "headless", "old"):
        assert identity(tmp_path / folder).weights == first.weights, folder


def test_every_value_of_a_small_network_counts() -> None:
    weights = {"a.weight": torch.zeros(300, 300), "b.bias": torch.zeros(3)}
    prints = {fingerprint_weights(weights)}
    weights["a.weight"][150, 7] = 1e-3
    prints.add(fingerprint_weights(weights))
    prints.add(fingerprint_weights({"a.weight": weights["a.weight"], "b.other": torch.zeros(3)}))
    prints.add(fingerprint_weights(weights | {"b.bias": torch.zeros(3, 1)}))
    assert len(prints) == 4
    assert fingerprint_weights(weights | {"masked_spec_embed": torch.ones(1)}) in prints
    assert fingerprint_weights({"a": torch.zeros(3, device="meta")}) is None


def test_of_a_large_network_parts_of_every_tensor_count() -> None:
    large = {"a": torch.zeros(16_000_001), "b": torch.zeros(5_000)}
    prints = [fingerprint_weights(large)]
    for name, place in (("a", 0), ("a", -1), ("b", 2_500)):
        large[name][place] = 1
        prints.append(fingerprint_weights(large))
    assert len(set(prints[:3])) == 3


SAME = AudioIdentity(
    "encoder", None, "facebook/wav2vec2-base-960h", "wav2vec2", "a1", 50.0, 768, True
)


@pytest.mark.parametrize(
    ("changes", "differs", "can_be_told"),
    [
        ({}, False, True),
        ({"layer": 6}, True, True),
        ({"features": "log_mel"}, True, True),
        ({"weights": "b2"}, True, True),
        ({"kind": "hubert"}, True, True),
        ({"rate_hz": 25.0}, True, True),
        ({"width": 1024}, True, True),
        ({"normalises": False}, True, True),
        # Weights that are not on this machine: names of the Hub are all there is.
        ({"weights": None}, False, True),
        ({"weights": None, "encoder": "facebook/wav2vec2-base"}, True, False),
        ({"weights": None, "encoder": "/models/wav2vec2-base-960h"}, False, True),
        ({"weights": None, "encoder": "/models/other"}, False, False),
        ({"encoder": "/models/other"}, False, True),
    ],
)
def test_what_differs(changes: dict, differs: bool, can_be_told: bool) -> None:
    other = replace(SAME, **changes)
    assert SAME.differs_from(other) == other.differs_from(SAME) == differs
    assert SAME.can_be_told_from(other) == can_be_told


def test_sentences_name_both(tmp_path: Path) -> None:
    layer_6 = Origin(replace(SAME, layer=6))
    options = {"path": "x.ckpt", "refuse": UserError, "remedy": "do this"}
    assert Origin(SAME).notes(Origin(SAME), **options) == []
    with pytest.raises(UserError) as refused:
        Origin(SAME).notes(layer_6, **options)
    assert str(refused.value) == (
        "x.ckpt was trained on the last hidden state of facebook/wav2vec2-base-960h (wav2vec2,"
        " weights a1), but would get layer 6 of facebook/wav2vec2-base-960h (wav2vec2, weights "
        "a1); do this."
    )
    small = replace(SAME, weights=None, width=16, rate_hz=25.0)
    large = replace(small, width=1024)
    with pytest.raises(UserError, match=r"\(wav2vec2\), 16 channels, but .*\), 1024 channels; do"):
        Origin(small).notes(Origin(large), **options)
    rhythm = AudioIdentity("rhythm", rate_hz=50.0, width=35)
    with_rhythm = AudioIdentity("encoder, rhythm", parts=(small, rhythm))
    faster = replace(with_rhythm, parts=(replace(small, rate_hz=75.0), rhythm))
    with pytest.raises(UserError, match=r"25 per second, but .* 75 per second; do this"):
        Origin(with_rhythm).notes(Origin(faster), **options)
    old = Origin.assumed(tmp_path / "x.ckpt")
    assert old.notes(Origin(SAME), **options) == [
        "x.ckpt does not say which audio features it was trained on; they are taken to be the last "
        "hidden state of an encoder, according to the default when it was written."
    ]
    with pytest.raises(UserError, match="put its run's configuration beside it as config.yaml"):
        old.notes(layer_6, **options)
    unknown = Origin(replace(SAME, weights=None))
    (note,) = unknown.notes(Origin(replace(SAME, encoder="/models/other")), **options)
    assert "whether /models/other is the same cannot be told" in note


def test_what_is_assumed_of_files_that_do_not_say_it(tmp_path: Path) -> None:
    encoder = write_audio_encoder(tmp_path / "encoder")
    record = tmp_path / "run" / "logs" / "config_fit.yaml"
    record.parent.mkdir(parents=True)
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert Origin.assumed(checkpoint).audio == AudioIdentity()
    assert Origin.assumed(checkpoint).stored() == {}
    # Only a spectrogram is 80 channels wide.
    assert Origin.assumed(checkpoint, audio_width=80).audio.features == "log_mel"
    record.write_text(
        "model:\n  class_path: x\n  init_args:\n    encoders:\n"
        f"      audio: {encoder}\n      audio_subfolder: null\n      audio_layer: 1\n"
    )
    assumed = Origin.assumed(checkpoint)
    assert assumed.audio == identity(encoder, layer=1)
    assert assumed.assumed_from == str(record)
    record.write_text("model: 3")
    assert Origin.assumed(checkpoint).audio == AudioIdentity()


def test_what_travels(small_parts: Path) -> None:
    mochi = str(small_parts)
    encoders = EncodersSpec(mochi=mochi, audio=mochi, audio_subfolder="audio_encoder")
    origin = Origin.of_parts(encoders, BackboneSpec(pretrained=mochi))
    assert Origin.from_stored(origin.stored()) == origin
    assert origin.audio == identity(small_parts / "audio_encoder")
    assert set(origin.weights) == {"transformer", "text_encoder", "vae"}
    assert origin.other_weights(origin) == {}
    random = Origin.of_parts(encoders, BackboneSpec(config="some.json", seed=3))
    assert random.other_weights(origin) == {
        "transformer": f"transformer: weights random, seed 3 in training, "
        f"{origin.weights['transformer']} now"
    }
    # What is not here is not known, and no error.
    nowhere = EncodersSpec(mochi="nobody/mochi", audio="/no/such/folder")
    unknown = Origin.of_parts(nowhere, BackboneSpec(pretrained="nobody/mochi"))
    assert unknown.weights == {} and unknown.audio.weights is None
    assert Origin.from_stored({}) is None
    with pytest.raises(UserError, match="hold no origin as this program writes it"):
        Origin.from_stored({"origin": {"audio": 3}})


def test_a_head_is_not_part_of_the_encoder(tmp_path: Path) -> None:
    folder = write_audio_encoder(tmp_path / "encoder", "hubert-ctc")
    model = HubertForCTC.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight.add_(1)
    model.save_pretrained(tmp_path / "again")
    assert identity(tmp_path / "again").weights == identity(folder).weights
