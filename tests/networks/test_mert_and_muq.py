"""Encoders of music: MERT by transformers alone, MuQ by its own package."""

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2ConformerConfig,
    Wav2Vec2FeatureExtractor,
)

from musicinfuser.errors import UserError
from musicinfuser.networks.audio_encoder import AudioTimes, audio_encoder_class
from musicinfuser.networks.combined_audio import audio_encoder_again, audio_encoder_of
from musicinfuser.networks.encoders import EncodersSpec
from musicinfuser.networks.mert import Mert
from musicinfuser.networks.muq import MuQ
from musicinfuser.pretrained_sources import MissingWeightsError
from preflight.report import Report
from preflight.weights import check_companions, check_parts, encoder_parts
from tests.audio_encoders import NUM_LAYERS, SIZES, WIDTH

CPU = torch.device("cpu")
# As in config.json of m-a-p/MERT-v1-95M, beside what HuBERT's has.
OF_MERT = {
    "model_type": "mert_model",
    "architectures": ["MERTModel"],
    "auto_map": {"AutoModel": "modeling_MERT.MERTModel"},
    "attention_relax": -1.0,
    "deepnorm": False,
    "feature_extractor_cqt": False,
    "feature_extractor_cqt_bins": 336,
    "sample_rate": 24_000,
}


@pytest.fixture
def network() -> HubertModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return HubertModel(HubertConfig(**SIZES)).eval()


@pytest.fixture
def folder(network: HubertModel, tmp_path: Path) -> Path:
    """As the repository of a MERT: foreign names in its config, weights as a pickle."""
    path = tmp_path / "mert"
    network.save_pretrained(path)
    Wav2Vec2FeatureExtractor(sampling_rate=24_000).save_pretrained(path)
    change(path)
    old = {".original0": "_g", ".original1": "_v"}
    weights = {}
    for name, tensor in network.state_dict().items():
        for new, short in old.items():
            name = name.replace(f".parametrizations.weight{new}", f".weight{short}")
        weights[name] = tensor
    (path / "model.safetensors").unlink()
    torch.save(weights, path / "pytorch_model.bin")
    return path


def change(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | OF_MERT | values
    (folder / "config.json").write_text(json.dumps(config))


def test_mert_is_a_hubert_at_24_khz(network: HubertModel, folder: Path) -> None:
    encoder = Mert(str(folder), layer=1)
    assert (encoder.rate_hz, encoder.hop, encoder.width) == (24_000, 320, WIDTH)
    assert encoder.times == AudioTimes(1 / 75, 400 / 24_000)
    sound = 0.1 * torch.randn(2, 24_000, generator=torch.Generator().manual_seed(1))
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=24_000)
    values = extractor(list(sound.numpy()), sampling_rate=24_000, return_tensors="pt").input_values
    with torch.no_grad():
        expected = network(values, output_hidden_states=True).hidden_states
        torch.testing.assert_close(encoder.encode(sound, device=CPU), expected[1])
        last = Mert(str(folder)).encode(sound, device=CPU)
        every = Mert(str(folder), layer="all").encode(sound, device=CPU)
    torch.testing.assert_close(last, network(values).last_hidden_state.detach())
    torch.testing.assert_close(every, torch.cat(expected, dim=-1))
    assert last.shape[1] == encoder.num_features(24_000) == 74
    identity = encoder.identity()
    assert (identity.features, identity.kind, identity.rate_hz) == ("mert", "mert_model", 75.0)
    assert identity.weights and str(identity).startswith(f"layer 1 of {folder} (mert_model, ")
    assert audio_encoder_again(identity).identity() == identity
    report = Report()
    spec = EncodersSpec(audio=str(folder), audio_features="mert")
    parts, _ = check_parts(encoder_parts(spec)[2:], report)
    check_companions(parts, report)
    assert report.problems == []


def test_what_is_no_mert_is_refused(folder: Path) -> None:
    for name in ("feature_extractor_cqt", "deepnorm"):
        change(folder, **{name: True})
        with pytest.raises(UserError, match=f"{name}: true in its config.json, which HuBERT can"):
            Mert(str(folder)).module  # noqa: B018
    change(folder, model_type="hubert")
    with pytest.raises(UserError, match="is a hubert, no MERT"):
        Mert(str(folder)).module  # noqa: B018
    change(folder)
    with pytest.raises(UserError, match=f"audio_layer is 9, but .* has {NUM_LAYERS} layers"):
        Mert(str(folder), layer=9).module  # noqa: B018
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    del weights["encoder.layer_norm.weight"]
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="not hold the weights of a MERT: e.g. encoder.layer_norm"):
        Mert(str(folder)).module  # noqa: B018
    with pytest.raises(MissingWeightsError, match="nobody/mert.*hf download nobody/mert"):
        Mert("nobody/mert").module  # noqa: B018


def test_muq_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "muq", None)
    encoder = audio_encoder_of({"audio": "OpenMuQ/MuQ-large-msd-iter", "audio_features": "muq"})
    assert isinstance(encoder, MuQ) and audio_encoder_class("muq") is MuQ
    # Centred at 40, 80, ... ms: the one on the beginning is left out.
    assert encoder.times == AudioTimes(0.04, 0.08)
    assert encoder.num_features(60_000) == 61
    with pytest.raises(UserError, match="needs the package muq; pip install muq"):
        encoder.encode(torch.zeros(1, 24_000), device=CPU)
    assert audio_encoder_again(encoder.identity()).identity() == encoder.identity()


def test_the_width_of_a_muq_on_this_machine_is_that_of_its_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"encoder_dim": 16, "encoder_depth": 2}')
    sizes = [(m.width, m.layers) for m in (MuQ(str(tmp_path), layer=k) for k in (None, 1, "all"))]
    assert sizes == [(16, ((1, 16),)), (16, ((1, 16),)), (48, ((3, 16),))]
    assert [MuQ("nobody/muq", layer=k).width for k in (None, "all")] == [1024, 13 * 1024]


def test_muq_is_the_package_s(tmp_path: Path) -> None:
    """Against its layers one by one: under transformers 5 the package finds no hidden states."""
    muq = pytest.importorskip("muq", reason="the optional package muq is not installed")
    stat = {"melspec_2048_mean": 0.0, "melspec_2048_std": 10.0}
    attention = Wav2Vec2ConformerConfig(
        num_attention_heads=2, intermediate_size=16, hidden_size=16, num_hidden_layers=2,
        position_embeddings_type="rotary", conv_depthwise_kernel_size=5,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
    ).to_dict()  # fmt: skip
    # The package turns names to attributes, which numbers cannot be.
    attention = {k: v for k, v in attention.items() if k not in ("id2label", "label2id")}
    config = muq.MuQConfig(
        encoder_dim=16, encoder_depth=2, conv_dim=8, stat=stat, w2v2_config=attention
    )
    muq.MuQ(config).save_pretrained(tmp_path)
    network = muq.MuQ.from_pretrained(tmp_path).eval().model
    network.conformer.config._attn_implementation = "eager"
    sound = 0.1 * torch.randn(2, 60_000, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        spectra = network.normalize(network.preprocessing(sound, features=["melspec_2048"]))
        hidden = network.conv(spectra["melspec_2048"])
        positions, states = network.conformer.embed_positions(hidden), []
        for layer in network.conformer.layers:
            states.append(hidden)
            hidden = layer(hidden, relative_position_embeddings=positions)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        states.append(network.conformer.layer_norm(hidden))
    for layer, expected in {None: states[-1], 1: states[1], "all": torch.cat(states, -1)}.items():
        encoder = MuQ(str(tmp_path), layer=layer)
        with torch.no_grad():
            features = encoder.encode(sound, device=CPU)
        assert features.shape[1] == encoder.num_features(60_000) == 61
        torch.testing.assert_close(features, expected[:, 1:62])
        assert features.shape[2] == encoder.width
    identity = encoder.identity()
    assert identity.weights and str(identity).startswith("all hidden states of")
