"""The pipeline hears as `predict` does, whatever an adapter was trained on, or refuses."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import MochiPipeline
from peft import get_peft_model_state_dict
from transformers import AutoModel, Wav2Vec2FeatureExtractor

from musicinfuser import MusicInfuserPipeline, keyed_random
from musicinfuser.adapters.loading import AdapterMismatchError
from musicinfuser.app.generator import Generator
from musicinfuser.app.options import parse
from musicinfuser.generation import SamplingSpec, generate
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.networks.audio_encoder import AudioPart, mixed_layers
from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.origin import Origin
from musicinfuser.networks.zica import ZicaSpec
from tests.adapted import with_trained_values
from tests.audio_encoders import write_audio_encoder
from tests.pipeline.conftest import SIZE, latents_of, quiet

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return write_audio_encoder(tmp_path_factory.mktemp("encoder") / "hubert", "hubert")


@pytest.fixture
def train(small_parts: Path, tmp_path: Path):
    """``train(name, audio=..., ...)``: model, encoders and exported folder."""

    def make(name: str, **heard):
        mochi = str(small_parts)
        given = {"audio": mochi, "audio_subfolder": "audio_encoder"} | heard
        spec = EncodersSpec(mochi=mochi, dtype="float32", **given)
        backbone = BackboneSpec(pretrained=mochi, dtype="float32")
        ears = Encoders(spec).audio
        model = MusicModel(
            build_backbone(backbone), layers=[0, 2], zica=ZicaSpec(num_heads=4),
            lora=LoraSpec(rank=2, alpha=6.0),
            audio_width=ears.width, audio_layers=mixed_layers(ears),
        )  # fmt: skip
        with_trained_values(model)
        folder = tmp_path / name
        origin = Origin.of_parts(spec, backbone)
        model.adapter.register_to_config(**origin.stored())
        model.adapter.save_pretrained(folder / "zica")
        MochiPipeline.save_lora_weights(
            folder,
            transformer_lora_layers=get_peft_model_state_dict(model.backbone),
            transformer_lora_adapter_metadata=model.backbone.peft_config["default"].to_dict(),
        )
        return model, Encoders(spec), folder

    return make


@pytest.mark.parametrize(
    "heard",
    [
        {},
        {"audio_layer": 0},
        {"audio_layer": 2},
        {"audio_features": "log_mel"},
        {"audio": "encoder"},
        {"audio_layer": "all"},
        {"audio_features": ["encoder", "log_mel"]},
        {"audio_features": ["log_mel", AudioPart("encoder", layer=1)], "audio": "encoder"},
        {"audio_layer": "beats"},
    ],
    ids=[
        "last",
        "layer 0",
        "layer 2",
        "log-mel",
        "hubert",
        "all layers",
        "both",
        "both, hubert",
        "beats",
    ],
)
def test_it_hears_what_the_adapter_was_trained_on(
    train, small_parts: Path, song: str, encoder: Path, tmp_path: Path, heard: dict
) -> None:
    if "audio" in heard:
        heard = {"audio": str(encoder), "audio_subfolder": None}
    if heard.get("audio_layer") == "beats":
        with_head = write_audio_encoder(tmp_path / "with_head", "wav2vec2-bert", head=True)
        heard |= {"audio": str(with_head), "audio_subfolder": None}
    model, encoders, folder = train("adapter", **heard)
    request = GenerationRequest(track=song, prompt="a dancer", seed=4, **SIZE)
    expected = generate(model, encoders, request, SamplingSpec(1, 3.0), device=torch.device("cpu"))
    pipeline = quiet(MusicInfuserPipeline.from_pretrained(small_parts, adapter=folder))
    pipeline.save_pretrained(tmp_path / "whole")
    again = quiet(MusicInfuserPipeline.from_pretrained(tmp_path / "whole"))
    stream = keyed_random.generator(request.seed, 0, "sampling noise")
    noise = torch.randn(1, 12, 3, 4, 6, generator=stream)
    for found in (pipeline, again):
        video = found(
            "a dancer", song, **SIZE, num_inference_steps=1, guidance_scale=3.0,
            latents=noise, output_type="pt",
        ).frames  # fmt: skip
        difference = (video[0].permute(0, 2, 3, 1) * 255).round() - expected.frames.float()
        assert difference.abs().max() <= 1 and difference.abs().mean() < 0.01


def test_other_ears_are_refused(train, small_parts: Path, encoder: Path, tmp_path: Path) -> None:
    _, _, folder = train("adapter")
    same = AutoModel.from_pretrained(small_parts / "audio_encoder")
    MusicInfuserPipeline.from_pretrained(small_parts, adapter=folder, audio_encoder=same)
    twin = write_audio_encoder(tmp_path / "twin", seed=2)
    for other, kind in (
        (str(encoder), "hubert"),
        (AutoModel.from_pretrained(twin), "wav2vec2"),
    ):
        with pytest.raises(
            AdapterMismatchError,
            match=rf"was trained on the last hidden .*, but would get .*\({kind}, weights",
        ):
            MusicInfuserPipeline.from_pretrained(small_parts, adapter=folder, audio_encoder=other)
    pipeline = MusicInfuserPipeline.from_pretrained(small_parts, adapter=folder)
    parts = pipeline.components | {"audio_encoder": AutoModel.from_pretrained(twin)}
    with pytest.raises(AdapterMismatchError, match="was trained on"):
        MusicInfuserPipeline(**parts)


def test_other_frozen_weights_are_named(train, small_parts: Path, tmp_path: Path) -> None:
    _, _, folder = train("adapter")
    config = folder / "zica" / "config.json"
    settings = json.loads(config.read_text())
    settings["origin"]["weights"]["text_encoder"] = "0123456789abcdef"
    config.write_text(json.dumps(settings))
    with pytest.warns(
        UserWarning, match=r"other frozen weights than those of .*\(text_encoder: we"
    ):
        MusicInfuserPipeline.from_pretrained(small_parts, adapter=folder)


def test_an_old_folder_is_read_by_the_record_beside_it(
    train, small_parts: Path, song: str, tmp_path: Path
) -> None:
    _, _, layer_1 = train("layer_1", audio_layer=1)
    told = quiet(MusicInfuserPipeline.from_pretrained(small_parts, adapter=layer_1))
    expected = latents_of(told, audio=song, num_inference_steps=1)
    config = layer_1 / "zica" / "config.json"
    settings = json.loads(config.read_text())
    del settings["origin"]
    config.write_text(json.dumps(settings))
    (layer_1 / "config.yaml").write_text(
        "model:\n  init_args:\n    encoders:\n      audio_subfolder: audio_encoder\n"
        f"      audio: {small_parts}\n      audio_layer: 1\n"
    )
    with pytest.warns(UserWarning, match=r"according to .*config\.yaml they are layer 1 of"):
        pipeline = quiet(MusicInfuserPipeline.from_pretrained(small_parts, adapter=layer_1))
    assert torch.equal(latents_of(pipeline, audio=song, num_inference_steps=1), expected)
    (layer_1 / "config.yaml").unlink()
    with pytest.warns(UserWarning, match="does not say which audio features it was trained on"):
        pipeline = quiet(MusicInfuserPipeline.from_pretrained(small_parts, adapter=layer_1))
    assert not torch.equal(latents_of(pipeline, audio=song, num_inference_steps=1), expected)


def test_the_app_refuses_adapters_of_different_ears(
    train, small_parts: Path, encoder: Path, song: str
) -> None:
    _, _, last = train("last")
    _, _, mel = train("mel", audio_features="log_mel")
    _, _, other = train("other", audio=str(encoder), audio_subfolder=None)

    def load(*folders: Path) -> Generator:
        options = ["--height=32", "--width=48", "--num_steps=1", "--device=cpu"]
        named = [f"{folder.name}={folder}" for folder in folders]
        return Generator(parse([f"--model={small_parts}", *options, "--adapter", *named]))

    generator = load(mel, last)
    assert generator.pipeline.audio_encoder is not None
    found = {}
    for name in ("mel", "last"):
        generator.choose(name)
        found[name] = latents_of(generator.pipeline, audio=song, num_inference_steps=1)
    assert not torch.equal(found["mel"], found["last"])
    with pytest.raises(AdapterMismatchError, match=r"was trained on .* \(hubert, weights"):
        load(last, other)


def test_waveforms_prepared_otherwise_are_refused(train, small_parts: Path, tmp_path: Path) -> None:
    _, _, folder = train("adapter")
    plain = Wav2Vec2FeatureExtractor(do_normalize=False)
    with pytest.raises(AdapterMismatchError, match=r"would get .*, waveforms as they are\)"):
        MusicInfuserPipeline.from_pretrained(small_parts, adapter=folder, feature_extractor=plain)


def test_a_layer_that_the_ears_lack_is_refused(train, small_parts: Path) -> None:
    _, _, folder = train("adapter")
    config = folder / "zica" / "config.json"
    settings = json.loads(config.read_text())
    settings["origin"]["audio"] |= {"layer": 12, "weights": None}
    config.write_text(json.dumps(settings))
    with pytest.raises(AdapterMismatchError, match="it takes layer 12, the audio encoder has 3"):
        MusicInfuserPipeline.from_pretrained(small_parts, adapter=folder)
