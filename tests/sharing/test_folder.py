"""The folder that is shared: read back by this program, by diffusers and by peft."""

import copy
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from diffusers import MochiPipeline
from huggingface_hub import ModelCard
from peft import PeftModel
from safetensors.torch import load_file

from lightning_modules.checkpointing import architecture
from musicinfuser.adapters import folder as folder_module
from musicinfuser.adapters.card import CardFacts
from musicinfuser.adapters.folder import read_folder, write_folder
from musicinfuser.adapters.initial import load_adapter
from musicinfuser.adapters.settings import Adapter, AdapterFileError, adapter_of_model
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.music_adapter import MusicAdapter
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec
from musicinfuser.safetensors_files import WeightsFileError

ZICA = ZicaSpec(num_heads=4, positions="rotary")


def settings(model: MusicModel, zica: ZicaSpec = ZICA) -> dict:
    return {
        "backbone": architecture(model),
        "layers": list(model.layers),
        "zica": asdict(zica),
        "lora": asdict(model.lora) if model.lora else None,
        "audio_width": 96,
        "audio_resampling": "centre",
    }


def share(model: MusicModel, path: Path, **facts: str) -> Adapter:
    adapter = adapter_of_model(model, settings(model))
    write_folder(path, adapter, facts=CardFacts(**facts), config="seed_everything: 5\n")
    return adapter


def velocity(model, clip, audio=None) -> torch.Tensor:
    with torch.no_grad():
        return model(clip.latents, clip.text, clip.timestep, clip.text_mask, audio)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lora": LoraSpec(rank=2, alpha=5.0, share_qkv_a=True)},
        {"lora": LoraSpec(rank=3, alpha=1.5, streams="visual")},
        {"lora": None},
        {"layers": []},
    ],
    ids=["both", "shared A", "visual", "no LoRA", "no audio"],
)
def test_gives_the_same_outputs_bit_for_bit(make_model, randomise, clip, tmp_path, changes):
    changes = {"zica": ZICA, "audio_resampling": "centre"} | changes
    model = randomise(make_model(**changes))
    adapter = share(model, tmp_path / "adapter")
    again = make_model(**changes)
    load_adapter(tmp_path / "adapter", again, settings(again))
    assert torch.equal(velocity(again, clip, clip.audio), velocity(model, clip, clip.audio))
    read = read_folder(tmp_path / "adapter")
    assert read.tensors.keys() == adapter.tensors.keys()
    for part in ("lora", "layers"):
        assert getattr(read.settings, part) == getattr(adapter.settings, part)


def test_files_are_named_as_others_look_for_them(make_model, tmp_path) -> None:
    model = make_model(zica=ZICA, audio_resampling="centre")
    share(model, tmp_path / "a", base_model="genmo/mochi-1-preview", license="mit")
    found = {str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*.*")}
    assert found == {
        "pytorch_lora_weights.safetensors", "adapter_config.json", "adapter_model.safetensors",
        "zica/config.json", "zica/diffusion_pytorch_model.safetensors", "config.yaml", "README.md",
    }  # fmt: skip
    music = load_file(tmp_path / "a" / "zica" / "diffusion_pytorch_model.safetensors")
    assert music.keys() == {
        n for n in model.state_dict() if n.startswith(("zica.", "audio_projector."))
    }
    config = json.loads((tmp_path / "a" / "zica" / "config.json").read_text())
    assert config.items() >= {
        "layers": [0, 2], "num_heads": 4, "scale": "head", "positions": "rotary",
        "audio_resampling": "centre", "audio_width": 96, "width": 128,
    }.items()  # fmt: skip
    card = ModelCard.load(tmp_path / "a" / "README.md")
    assert card.data.base_model == "genmo/mochi-1-preview" and card.data.license == "mit"
    assert card.data.to_dict()["library_name"] == "diffusers"
    assert card.data.pipeline_tag == "text-to-video"
    assert "rank 2, alpha 2" in card.text and "0, 2" in card.text
    assert 'MusicInfuserPipeline.from_pretrained("genmo/mochi-1-preview", adapter=' in card.text
    assert (tmp_path / "a" / "config.yaml").read_text() == "seed_everything: 5\n"


@pytest.mark.parametrize("weight_name", [None, "pytorch_lora_weights.safetensors"])
def test_diffusers_loads_the_lora(
    make_model, randomise, clip, pristine_backbone, small_parts, tmp_path, weight_name
) -> None:
    model = randomise(make_model(lora=LoraSpec(rank=2, alpha=6.0), zica=ZICA))
    share(model, tmp_path / "a")
    pipe = MochiPipeline.from_pretrained(
        small_parts, transformer=copy.deepcopy(pristine_backbone), vae=None, text_encoder=None,
        tokenizer=None,
    )  # fmt: skip
    bare = velocity(pipe.transformer, clip)[0]
    pipe.load_lora_weights(tmp_path / "a", weight_name=weight_name)
    found, expected = velocity(pipe.transformer, clip)[0], velocity(model, clip)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert (found - bare).abs().max() > 0.01


def test_peft_loads_the_lora(make_model, randomise, clip, pristine_backbone, tmp_path) -> None:
    model = randomise(make_model(lora=LoraSpec(rank=2, alpha=6.0), zica=ZICA))
    share(model, tmp_path / "a")
    plain = PeftModel.from_pretrained(copy.deepcopy(pristine_backbone), tmp_path / "a")
    found, expected = velocity(plain, clip)[0], velocity(model, clip)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_written_whole_or_not_at_all(make_model, randomise, tmp_path, monkeypatch) -> None:
    model = make_model(zica=ZICA)
    share(model, tmp_path / "a")
    before = {p: p.read_bytes() for p in (tmp_path / "a").rglob("*.*")}
    randomise(model)

    def refuse(*_: object) -> str:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "model_card", refuse)
        with pytest.raises(OSError, match="No space"):
            share(model, tmp_path / "a")
        with pytest.raises(OSError, match="No space"):
            share(model, tmp_path / "b")
    assert {p: p.read_bytes() for p in (tmp_path / "a").rglob("*.*")} == before
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    share(model, tmp_path / "a")
    lora = tmp_path / "a" / "pytorch_lora_weights.safetensors"
    assert lora.read_bytes() != before[lora]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_with_something_else_stays(make_model, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(AdapterFileError, match="is there already and holds no adapter"):
        share(make_model(zica=ZICA), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_what_does_not_fit_is_named(make_model, tmp_path: Path) -> None:
    share(make_model(zica=ZICA, audio_resampling="centre"), tmp_path / "a")
    other = make_model(zica=ZICA, layers=[1], lora=LoraSpec(rank=4, alpha=2.0))
    with pytest.raises(
        AdapterFileError, match=r"layers: \(0, 2\) in the folder, \(1,\) in the config"
    ):
        load_adapter(tmp_path / "a", other, settings(other))
    with pytest.raises(AdapterFileError, match="holds no adapter: neither pytorch_lora_weights"):
        read_folder(tmp_path)
    weights = tmp_path / "a" / "zica" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-10])
    with pytest.raises(WeightsFileError, match=r"diffusion_pytorch_model\.safetensors cannot be"):
        read_folder(tmp_path / "a")
    weights.write_bytes(content)
    config = tmp_path / "a" / "zica" / "config.json"
    config.write_text(config.read_text().replace("128", "64"))
    with pytest.raises(AdapterFileError, match="different widths, 64 and 128"):
        read_folder(tmp_path / "a")


def test_what_listens_is_what_the_pipeline_loads(make_model, randomise, tmp_path: Path) -> None:
    model = randomise(make_model(zica=ZICA, audio_resampling="centre"))
    share(model, tmp_path / "adapter")
    loaded = MusicAdapter.from_pretrained(tmp_path / "adapter" / "zica")
    expected = model.adapter
    given = {"audio_encoder", "_class_name", "_name_or_path", "_use_default_values"}
    assert {k: v for k, v in loaded.config.items() if k not in given} == {
        k: v for k, v in expected.config.items() if k not in given
    }
    tensors = expected.state_dict()
    assert loaded.state_dict().keys() == tensors.keys()
    assert all(torch.equal(tensors[n], tensor) for n, tensor in loaded.state_dict().items())
