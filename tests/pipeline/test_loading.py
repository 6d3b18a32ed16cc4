"""Folders that are written and read."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import MochiPipeline, MochiTransformer3DModel
from safetensors.torch import load_file, save_file

from musicinfuser import MusicInfuserPipeline
from musicinfuser.adapters.loading import LORA_FILE, AdapterMismatchError
from musicinfuser.pretrained_sources import MissingWeightsError
from tests.pipeline.conftest import latents_of, quiet

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")


def test_a_saved_pipeline_comes_back_whole(loaded, song, tmp_path):
    names = set(loaded.transformer.state_dict())
    loaded.save_pretrained(tmp_path)
    assert set(loaded.transformer.state_dict()) == names
    again = quiet(MusicInfuserPipeline.from_pretrained(tmp_path))
    assert isinstance(again, MochiPipeline)
    assert again.zica.config == {**loaded.zica.config, "_name_or_path": str(tmp_path / "zica")}
    settings = {"audio": song, "num_inference_steps": 1}
    assert torch.equal(latents_of(again, **settings), latents_of(loaded, **settings))
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "MusicInfuserPipeline" and index["has_lora"]
    assert index["transformer"] == ["diffusers", "MochiTransformer3DModel"]
    plain = MochiTransformer3DModel.from_pretrained(tmp_path / "transformer")
    assert not any("lora" in name for name in plain.state_dict())
    kept = loaded.transformer.transformer_blocks[0].attn1.to_q.base_layer.weight
    assert torch.equal(plain.transformer_blocks[0].attn1.to_q.weight, kept)


def test_a_base_without_adapter_comes_back_without(base, tmp_path):
    base.save_pretrained(tmp_path)
    again = MusicInfuserPipeline.from_pretrained(tmp_path)
    assert again.zica is again.audio_encoder is None and not (tmp_path / LORA_FILE).exists()


def test_mochi_pipeline_takes_the_lora(adapter, loaded, small_parts):
    pipeline = MochiPipeline.from_pretrained(small_parts)
    pipeline.load_lora_weights(adapter, weight_name=LORA_FILE)
    theirs = pipeline.transformer.transformer_blocks[1].attn1.to_q
    ours = loaded.transformer.transformer_blocks[1].attn1.to_q
    assert list(theirs.scaling.values()) == list(ours.scaling.values()) == [3.0]


def test_the_adapter_shares_its_weights_with_the_model(trained):
    adapter = trained.adapter
    assert adapter.config.layers == [0, 2] and adapter.config.backbone_layers == 3
    expected = {n: p for n, p in trained.state_dict().items() if not n.startswith("backbone.")}
    found = adapter.state_dict()
    assert found.keys() == expected.keys()
    assert all(found[name].data_ptr() == expected[name].data_ptr() for name in found)


def changed_adapter(adapter: str, folder: Path, **config) -> str:
    shutil.copytree(adapter, folder)
    path = folder / "zica" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return str(folder)


def test_an_adapter_of_another_base_is_refused(adapter, small_parts, tmp_path):
    other = changed_adapter(adapter, tmp_path / "other", backbone_layers=48)
    with pytest.raises(AdapterMismatchError, match=r"blocks \[0, 2\] of 48, the base has 3"):
        MusicInfuserPipeline.from_pretrained(small_parts, adapter=other)


def test_a_lora_of_another_base_is_refused(adapter, small_parts, tmp_path):
    folder = Path(changed_adapter(adapter, tmp_path / "wide"))
    tensors = load_file(folder / LORA_FILE)
    name = "transformer.transformer_blocks.1.attn1.to_q.lora_A.weight"
    wide = {n: torch.zeros(2, 256) if n == name else t for n, t in tensors.items()}
    save_file(wide, folder / LORA_FILE)
    with pytest.raises(AdapterMismatchError, match=r"1 of \d+ .*to_q.* is \(2, 256\).* takes 128"):
        MusicInfuserPipeline.from_pretrained(small_parts, adapter=folder)
    deep = {n.replace("blocks.1.", "blocks.30."): t for n, t in tensors.items()}
    save_file(deep, folder / LORA_FILE)
    with pytest.raises(AdapterMismatchError, match=r"the base has no transformer_blocks\.30\."):
        MusicInfuserPipeline.from_pretrained(small_parts, adapter=folder)


def test_the_ears_are_those_beside_the_base_where_an_adapter_names_none(
    adapter, small_parts, song, loaded, tmp_path
):
    folder = changed_adapter(adapter, tmp_path / "plain", audio_encoder=None)
    found = quiet(MusicInfuserPipeline.from_pretrained(small_parts, adapter=folder))
    settings = {"audio": song, "num_inference_steps": 1}
    assert torch.equal(latents_of(found, **settings), latents_of(loaded, **settings))


def test_missing_weights_are_named(adapter, small_parts, tmp_path):
    with pytest.raises(MissingWeightsError, match="nowhere does not exist"):
        MusicInfuserPipeline.from_pretrained("./nowhere")
    with pytest.raises(MissingWeightsError, match="nowhere/zica does not exist"):
        MusicInfuserPipeline.from_pretrained(small_parts, adapter="./nowhere")
    silent = changed_adapter(adapter, tmp_path / "silent", audio_encoder="./no-wav2vec")
    with pytest.raises(MissingWeightsError, match="no-wav2vec does not exist"):
        MusicInfuserPipeline.from_pretrained(small_parts, adapter=silent)
    shutil.copytree(small_parts, tmp_path / "base")
    shutil.rmtree(tmp_path / "base" / "vae")
    with pytest.raises(MissingWeightsError, match="nothing could be loaded from .*base"):
        MusicInfuserPipeline.from_pretrained(tmp_path / "base")


def test_several_loras_are_not_saved(fresh, adapter, tmp_path):
    fresh.load_lora_weights(adapter, weight_name=LORA_FILE, adapter_name="second")
    with pytest.raises(ValueError, match="one LoRA"):
        fresh.save_pretrained(tmp_path)
