"""All hidden states of an encoder, mixed by the audio projector."""

import warnings
from pathlib import Path

import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModel

from musicinfuser.adapters.card import CardFacts, model_card
from musicinfuser.adapters.folder import read_folder, write_folder
from musicinfuser.adapters.official import write_official_adapter
from musicinfuser.adapters.settings import Adapter, AdapterFileError, AdapterSettings
from musicinfuser.errors import UserError
from musicinfuser.networks.audio_encoder import mixed_layers
from musicinfuser.networks.audio_projector import AudioProjector
from musicinfuser.networks.combined_audio import CombinedAudio
from musicinfuser.networks.log_mel import LogMel
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.origin import Origin
from musicinfuser.networks.transformers_audio import TransformersAudio
from musicinfuser.networks.zica import ZicaSpec
from tests.audio_encoders import NUM_LAYERS, WIDTH, write_audio_encoder

CPU = torch.device("cpu")
STATES = NUM_LAYERS + 1
GROUPS = [[STATES, WIDTH], [1, 80]]


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm", "data2vec-audio"])
def test_all_hidden_states_lie_side_by_side(tmp_path: Path, kind: str) -> None:
    folder = str(write_audio_encoder(tmp_path / "encoder", kind))
    sound = 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    encoder = TransformersAudio(folder, layer="all")
    assert (encoder.width, encoder.layers) == (STATES * WIDTH, ((STATES, WIDTH),))
    with torch.no_grad():
        features = encoder.encode(sound, device=CPU)
        each = [TransformersAudio(folder, layer=n).encode(sound, device=CPU) for n in range(STATES)]
    assert torch.equal(features, torch.cat(each, dim=-1))
    identity = encoder.identity()
    assert (identity.layer, identity.width) == ("all", STATES * WIDTH)
    assert str(identity).startswith("all hidden states of ")
    assert encoder.fingerprint().endswith(", layer all")
    assert identity.differs_from(TransformersAudio(folder, layer=0).identity())
    held = TransformersAudio(
        layer="all",
        model=AutoModel.from_pretrained(folder),
        extractor=AutoFeatureExtractor.from_pretrained(folder),
    )
    assert held.identity() == identity
    assert mixed_layers(CombinedAudio([encoder, LogMel()])) == GROUPS
    assert mixed_layers(CombinedAudio([LogMel(), TransformersAudio(folder)])) is None


def test_the_mixture_starts_as_the_mean_and_is_learned() -> None:
    width = STATES * WIDTH + 80
    torch.manual_seed(0)
    projector = AudioProjector(width, 12, layers=GROUPS)
    torch.manual_seed(0)
    plain = AudioProjector(WIDTH + 80, 12)
    assert projector.state_dict().keys() - plain.state_dict().keys() == {"layer_logits.0"}
    assert all(torch.equal(projector.state_dict()[n], t) for n, t in plain.state_dict().items())
    features = torch.randn(2, 20, width)
    states = features[..., :-80].unflatten(-1, (STATES, WIDTH))
    mean = torch.cat([states.mean(dim=-2), features[..., -80:]], dim=-1)
    torch.testing.assert_close(projector(features, 5), plain(mean, 5))
    projector(features, 5).square().sum().backward()
    [logits] = projector.layer_logits
    assert logits.shape == (STATES,) and logits.grad.abs().min() > 0
    with torch.no_grad():
        logits.copy_(torch.tensor([0.0, 50.0, 0.0, 0.0]))
    second = torch.cat([states[..., 1, :], features[..., -80:]], dim=-1)
    torch.testing.assert_close(projector(features, 5), plain(second, 5))
    with pytest.raises(UserError, match=f"all hidden states together have {width} channels"):
        AudioProjector(768, 12, layers=GROUPS)


def test_it_travels_with_an_adapter(make_model, tmp_path: Path) -> None:
    encoder = TransformersAudio(str(write_audio_encoder(tmp_path / "encoder")), layer="all")
    layers = mixed_layers(encoder)
    model = make_model(audio_width=encoder.width, audio_layers=layers)
    name = "audio_projector.layer_logits.0"
    assert name in model.trainable_names()
    with torch.no_grad():
        model.audio_projector.layer_logits[0].copy_(torch.arange(STATES))
    settings = AdapterSettings(
        width=128, num_layers=3, layers=(0, 2), audio_width=encoder.width,
        audio_resampling="nearest", zica=ZicaSpec(num_heads=4),
        lora=LoraSpec(rank=2, alpha=2.0), audio_layers=tuple(map(tuple, layers)),
    )  # fmt: skip
    tensors = {
        n: p.detach().clone()
        for n, p in model.named_parameters(remove_duplicate=False)
        if p.requires_grad
    }
    adapter = Adapter(settings, tensors, Origin(encoder.identity()))
    write_folder(tmp_path / "shared", adapter, facts=CardFacts(), config="{}\n")
    found = read_folder(tmp_path / "shared")
    assert found.settings == settings and found.origin.audio.layer == "all"
    assert torch.equal(found.tensors[name], tensors[name])
    loaded = type(model.adapter).from_pretrained(tmp_path / "shared" / "zica")
    features = torch.randn(1, 30, encoder.width)
    expected = model.audio_projector(features, 3)
    torch.testing.assert_close(loaded.audio_projector(features, 3), expected)
    assert "a learned mixture of all hidden states" in model_card(adapter, CardFacts())
    with warnings.catch_warnings(), pytest.raises(AdapterFileError, match="mixes all layers"):
        warnings.simplefilter("ignore")
        write_official_adapter(adapter, tmp_path / "authors.safetensors")


def test_without_a_mixture_nothing_is_stored(make_model) -> None:
    settings = AdapterSettings(128, 3, (0,), 96, "nearest", ZicaSpec(num_heads=4), None)
    assert "audio_layers" not in settings.music_config()
    assert "audio_layers" not in settings.as_yaml()
    assert "layer_logits" not in "".join(make_model().trainable_names())
