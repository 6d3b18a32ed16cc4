import runpy
import sys

import pytest
import torch
from diffusers import AutoencoderKLMochi, MochiPipeline, MochiTransformer3DModel
from safetensors.torch import load_file
from transformers import T5EncoderModel, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from small_world.parts.random_parts import write_small_parts

TEXT_WIDTH, AUDIO_WIDTH = 64, 96
WEIGHTS = {
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "audio_encoder": "model.safetensors",
}


def weights(folder):
    return {
        f"{part}/{name}": tensor
        for part, file in WEIGHTS.items()
        for name, tensor in load_file(folder / part / file).items()
    }


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "parts"
    torch.manual_seed(1)
    write_small_parts(folder, num_layers=1)
    return folder


def test_is_a_folder_diffusers_opens_as_a_pipeline(parts):
    pipeline = MochiPipeline.from_pretrained(parts)
    assert type(pipeline.transformer) is MochiTransformer3DModel
    assert type(pipeline.vae) is AutoencoderKLMochi
    assert type(pipeline.text_encoder) is T5EncoderModel
    assert pipeline.scheduler.config.invert_sigmas is True
    assert pipeline.text_encoder.config.d_model == TEXT_WIDTH
    assert pipeline.transformer.config.text_embed_dim == TEXT_WIDTH
    assert pipeline.transformer.config.num_layers == 1


def test_parts_fit_each_other(parts):
    vae = AutoencoderKLMochi.from_pretrained(parts / "vae")
    assert (vae.temporal_compression_ratio, vae.spatial_compression_ratio) == (6, 8)
    audio = Wav2Vec2Model.from_pretrained(parts / "audio_encoder").eval()
    assert audio.config.hidden_size == AUDIO_WIDTH
    assert Wav2Vec2FeatureExtractor.from_pretrained(parts / "audio_encoder").do_normalize
    with torch.no_grad():
        assert audio(torch.zeros(1, 40_000)).last_hidden_state.shape == (1, 124, AUDIO_WIDTH)
        mean = vae.encode(torch.zeros(1, 3, 13, 16, 16)).latent_dist.mean
        assert mean.shape == (1, 12, 3, 2, 2)
        assert vae.decode(mean).sample.shape == (1, 3, 13, 16, 16)


def test_weights_depend_on_the_seed_alone(parts, tmp_path):
    torch.manual_seed(2)
    expected = torch.get_rng_state()
    write_small_parts(tmp_path / "same", num_layers=1)
    assert torch.equal(torch.get_rng_state(), expected), "the global stream is left alone"
    write_small_parts(tmp_path / "other", num_layers=1, seed=1)
    first, same, other = weights(parts), weights(tmp_path / "same"), weights(tmp_path / "other")
    assert first.keys() == same.keys() == other.keys()
    assert all(torch.equal(first[name], same[name]) for name in first)
    for part in WEIGHTS:
        differing = [n for n in first if n.startswith(part) and not torch.equal(first[n], other[n])]
        assert differing, part


def test_a_complete_folder_is_kept(tmp_path):
    folder = tmp_path / "new" / "parts"
    write_small_parts(folder, num_layers=1)
    weight = folder / "transformer" / WEIGHTS["transformer"]
    before = weight.stat().st_mtime_ns
    write_small_parts(folder, num_layers=1, seed=5)
    assert weight.stat().st_mtime_ns == before
    assert [p.name for p in folder.parent.iterdir()] == ["parts"], "nothing is left beside it"


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else; name a folder that does not"):
        write_small_parts(tmp_path, num_layers=1)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    empty = tmp_path / "empty"
    empty.mkdir()
    write_small_parts(empty, num_layers=1)
    assert (empty / "model_index.json").is_file()


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["small_parts", str(tmp_path / "cli")])
    monkeypatch.delitem(sys.modules, "small_world.parts.random_parts")
    runpy.run_module("small_world.parts.random_parts", run_name="__main__")
    assert str(tmp_path / "cli") in capsys.readouterr().out
    transformer = MochiTransformer3DModel.from_pretrained(tmp_path / "cli" / "transformer")
    assert transformer.config.num_layers == 6
    monkeypatch.setattr(sys, "argv", ["small_parts"])
    with pytest.raises(SystemExit, match="usage"):
        runpy.run_module("small_world.parts.random_parts", run_name="__main__")
