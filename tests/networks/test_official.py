"""Parity with the authors' model: recorded outputs and gradients, and files in their format."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from musicinfuser.adapters.official import load_official, save_official
from musicinfuser.adapters.official_keys import adapter_rules
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.zica import ZicaSpec, zero_init
from musicinfuser.pretrained_sources import MissingWeightsError


def relative(found, expected):
    difference = ((found - expected).norm() / expected.norm()).item()
    print(f"relative difference {difference:.1e}")  # shown by pytest -s
    return difference


def load(golden, adapter=None, **settings):
    return load_official(golden.dit, adapter or golden.adapter, golden.arch, **settings)


def velocity(model, golden, *, text=None, mask=None):
    text = golden.text if text is None else text
    mask = golden.text_mask if mask is None else mask
    with torch.no_grad():
        return model(golden.latents, text, golden.timestep, mask, golden.audio)


def adapters(model):
    return [p for p in model.parameters() if p.requires_grad]


def take_step(model, golden, *, lr=1e-2):
    optimizer = torch.optim.AdamW(adapters(model), lr=lr)
    out = model(golden.latents, golden.text, golden.timestep, golden.text_mask, golden.audio)
    (0.5 * out.square().mean()).backward()
    optimizer.step()
    return model


def metadata(path):
    with safe_open(str(path), "pt") as file:
        return file.metadata()


# Recorded outputs and gradients


def test_output_equals_the_authors(golden):
    model = load(golden)
    assert relative(velocity(model, golden), golden.out) < 1e-5
    num_tokens = int(golden.text_mask.sum())
    with torch.no_grad():
        by_lengths = model(
            golden.latents, golden.text, golden.timestep, None, golden.audio,
            text_lengths=(num_tokens,),
        )  # fmt: skip
    assert relative(by_lengths, golden.out) < 1e-5


def test_output_for_an_empty_prompt_equals_the_authors(golden):
    model = load(golden)
    zeros = {"text": torch.zeros_like(golden.text), "mask": torch.zeros_like(golden.text_mask)}
    assert relative(velocity(model, golden, **zeros), golden.out_empty_prompt) < 1e-5
    with torch.no_grad():
        no_tokens = model(
            golden.latents, golden.text[:, :0], golden.timestep, None, golden.audio,
            text_lengths=(0,),
        )  # fmt: skip
    assert relative(no_tokens, golden.out_empty_prompt) < 1e-5
    assert relative(golden.out, golden.out_empty_prompt) > 1e-2


def test_output_without_audio_equals_the_authors_with_zeroed_projections(golden):
    model = load(golden)
    with torch.no_grad():
        silent = model(golden.latents, golden.text, golden.timestep, golden.text_mask)
    assert relative(silent, golden.out_zero_to_out) < 1e-5
    for zica in model.zica.values():
        zero_init(zica.to_out)
    assert relative(velocity(model, golden), golden.out_zero_to_out) < 1e-5
    assert relative(golden.out, golden.out_zero_to_out) > 1e-2


@pytest.mark.parametrize("gradient_checkpointing", ["none", "attention", "full"])
@pytest.mark.parametrize("share_qkv_a", [False, True])
def test_gradients_equal_the_authors(golden, gradient_checkpointing, share_qkv_a):
    model = load(golden, gradient_checkpointing=gradient_checkpointing, share_qkv_a=share_qkv_a)
    out = model(golden.latents, golden.text, golden.timestep, golden.text_mask, golden.audio)
    assert relative(out.detach(), golden.out) < 1e-5
    (0.5 * out.square().mean()).backward()
    seen = set()
    for rule in adapter_rules(golden.arch["depth"], model.layers):
        ours = [model.get_parameter(name) for name in rule.ours]
        if rule.kind == "share" and share_qkv_a:
            assert ours[0] is ours[1] and ours[1] is ours[2]
            gradient = ours[0].grad
        elif rule.kind == "share":
            gradient = ours[0].grad + ours[1].grad + ours[2].grad
        else:
            gradient = torch.cat([p.grad for p in ours])
        expected = golden.gradients[rule.official]
        seen.add(rule.official)
        if rule.official.endswith("to_k.bias"):
            assert gradient.norm() < 1e-8 and expected.norm() < 1e-8
        else:
            assert relative(gradient, expected) < 1e-5, rule.official
    assert seen == golden.gradients.keys()


# Their files


@pytest.mark.parametrize("share_qkv_a", [False, True])
def test_a_loaded_model_is_saved_tensor_for_tensor(golden, tmp_path, share_qkv_a):
    path = tmp_path / "saved" / "musicinfuser.safetensors"
    save_official(load(golden, share_qkv_a=share_qkv_a), path)
    saved, original = load_file(path), load_file(golden.adapter)
    assert saved.keys() == original.keys()
    for name, tensor in original.items():
        assert saved[name].dtype == tensor.dtype
        assert torch.equal(saved[name], tensor), name
    theirs = json.loads(metadata(golden.adapter)["kwargs"])
    assert json.loads(metadata(path)["kwargs"]) == theirs
    assert json.loads(metadata(path)["audio_cross_attn_layers"]) == [1, 3]


def test_diverged_a_are_saved_as_a_block_diagonal_of_three_times_the_rank(golden, tmp_path):
    model = take_step(load(golden), golden)
    attention = model.backbone.transformer_blocks[2].attn1
    q, k, v = (getattr(attention, name) for name in ("to_q", "to_k", "to_v"))
    assert not torch.equal(q.lora_A["default"].weight, k.lora_A["default"].weight)
    path = tmp_path / "diverged.safetensors"
    save_official(model, path)
    before, after = (json.loads(metadata(p)["kwargs"]) for p in (golden.adapter, path))
    rank, alpha = before["qkv_proj_lora_rank"], before["qkv_proj_lora_alpha"]
    assert after == before | {"qkv_proj_lora_rank": 3 * rank, "qkv_proj_lora_alpha": 3 * alpha}
    saved = load_file(path)
    a, b = (saved[f"blocks.2.attn.qkv_x.lora_{x}"] for x in "AB")
    width = golden.arch["hidden_size_x"]
    assert a.shape == (3 * rank, width) and b.shape == (3 * width, 3 * rank)
    for i, layer in enumerate((q, k, v)):
        rows, columns = slice(i * width, (i + 1) * width), slice(i * rank, (i + 1) * rank)
        assert torch.equal(a[columns], layer.lora_A["default"].weight)
        assert torch.equal(b[rows, columns], layer.lora_B["default"].weight)
        rest = b[rows].clone()
        rest[:, columns] = 0
        assert not rest.any()
    # In their forward, B A with one fused A gives each projection its own update.
    update = alpha / rank * b @ a
    for i, layer in enumerate((q, k, v)):
        expected = layer.get_delta_weight("default")
        torch.testing.assert_close(update[i * width : (i + 1) * width], expected)
    out_a = saved["blocks.2.attn.proj_x.lora_A"]
    assert out_a.shape == (rank, width)


@pytest.mark.parametrize("share_qkv_a", [False, True])
def test_a_trained_model_comes_back_from_its_file(golden, tmp_path, share_qkv_a):
    model = load(golden, share_qkv_a=share_qkv_a)
    for _ in range(2):
        take_step(model, golden)
    assert relative(velocity(model, golden), golden.out) > 1e-3
    path = tmp_path / "trained.safetensors"
    save_official(model, path)
    rank = json.loads(metadata(path)["kwargs"])["qkv_proj_lora_rank"]
    assert rank == (1 if share_qkv_a else 3) * model.lora.rank
    again = load(golden, path, share_qkv_a=share_qkv_a)
    assert again.lora == model.lora
    assert relative(velocity(again, golden), velocity(model, golden)) < 1e-6
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    save_official(again, tmp_path / "again.safetensors")
    first, second = load_file(path), load_file(tmp_path / "again.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_random_adapters_come_back_from_their_file(golden, tmp_path):
    model = load(golden)
    stream = torch.Generator().manual_seed(0)
    for parameter in adapters(model):
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=stream)
    path = tmp_path / "random.safetensors"
    save_official(model, path)
    again = load(golden, path)
    assert relative(velocity(again, golden), velocity(model, golden)) < 1e-6


def test_architecture_may_be_a_path_and_the_layers_come_from_our_file(golden, tmp_path):
    model = load_official(golden.dit, golden.adapter, golden.arch_path)
    assert relative(velocity(model, golden), golden.out) < 1e-5
    save_official(model, tmp_path / "ours.safetensors")
    arch = {k: v for k, v in golden.arch.items() if k != "audio_cross_attn_layers"}
    again = load_official(golden.dit, tmp_path / "ours.safetensors", arch)
    assert again.layers == (1, 3)
    with pytest.raises(ValueError, match="for a transformer of 4; give their places with audio_c"):
        load_official(golden.dit, golden.adapter, arch)
    with pytest.raises(ValueError, match=r"with audio_cross_attn_layers, which are \[1, 3\]"):
        load_official(
            golden.dit, tmp_path / "ours.safetensors", arch | {"audio_cross_attn_layers": [0, 2]}
        )


# Errors


def rewrite(source, path, change, *, kwargs=None):
    """A copy of an adapter file with its tensors and its settings changed."""
    tensors = load_file(source)
    settings = json.loads((metadata(source) or {}).get("kwargs", "{}"))
    change(tensors)
    stored = {"kwargs": json.dumps(settings | kwargs)} if kwargs is not None else metadata(source)
    save_file(tensors, path, metadata=stored)
    return path


def test_missing_and_unknown_tensors_are_named(golden, tmp_path):
    gone = "audio_cross_attn_blocks.1.to_k.bias"
    path = rewrite(golden.adapter, tmp_path / "a.safetensors", lambda t: t.pop(gone))
    with pytest.raises(ValueError, match=f"has no tensor '{gone}'"):
        load(golden, path)
    path = rewrite(
        golden.adapter, tmp_path / "b.safetensors", lambda t: t.update(extra=torch.ones(1))
    )
    with pytest.raises(ValueError, match="has 1 unknown tensors, e.g. 'extra'"):
        load(golden, path)
    dit = rewrite(golden.dit, tmp_path / "dit.safetensors", lambda t: t.pop("t5_yproj.bias"))
    with pytest.raises(ValueError, match=r"has no tensor 't5_yproj\.bias'"):
        load_official(dit, golden.adapter, golden.arch)


def test_missing_files_are_named(golden, tmp_path):
    missing = tmp_path / "none.safetensors"
    with pytest.raises(MissingWeightsError, match=r"none\.safetensors does not exist"):
        load(golden, missing)
    with pytest.raises(MissingWeightsError, match=r"none\.safetensors does not exist"):
        load_official(missing, golden.adapter, golden.arch)


def test_settings_that_cannot_be_held(golden, tmp_path):
    path = rewrite(
        golden.adapter, tmp_path / "a.safetensors", lambda t: None, kwargs={"qkv_proj_lora_rank": 5}
    )
    with pytest.raises(ValueError, match="LoRA rank 5 on qkv but .* different ranks are not"):
        load(golden, path)
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(golden.adapter), bare)
    with pytest.raises(ValueError, match=r"bare\.safetensors has no LoRA settings in its metadata"):
        load(golden, bare)


def test_three_times_the_rank_must_be_block_diagonal(golden, tmp_path):
    path, broken = tmp_path / "diverged.safetensors", tmp_path / "broken.safetensors"
    save_official(take_step(load(golden), golden), path)
    name = "blocks.0.attn.qkv_y.lora_B"
    rewrite(path, broken, lambda t: t[name][0, -1].fill_(1.0))
    with pytest.raises(ValueError, match=f"{name} has three times .* but is not block-diagonal"):
        load(golden, broken)
    with pytest.raises(ValueError, match="an A matrix each for q, k and v; set share_qkv_a off"):
        load(golden, path, share_qkv_a=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": LoraSpec(rank=2, alpha=2.0, streams="visual")}, "attention of both streams"),
        ({"lora": None}, "attention of both streams"),
        ({"layers": []}, "needs ZICA, and LoRA"),
        ({"zica": ZicaSpec(bias=False)}, "knows zica.bias True only; this adapter has False"),
        ({"zica": ZicaSpec(scale="width")}, "knows zica.scale head only"),
        ({"zica": ZicaSpec(form="feature_addition")}, "knows zica.form cross_attention only"),
    ],
)
def test_models_their_format_cannot_hold(make_model, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        save_official(make_model(**changes), tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_fresh_model_is_saved_with_its_a_matrices_kept(make_model, tmp_path):
    """A fresh model's three A differ from the start unless they are shared."""
    path = tmp_path / "x.safetensors"
    for share_qkv_a, factor in ((False, 3), (True, 1)):
        save_official(make_model(lora=LoraSpec(rank=2, alpha=3.0, share_qkv_a=share_qkv_a)), path)
        kwargs = json.loads(metadata(path)["kwargs"])
        assert kwargs["qkv_proj_lora_rank"] == factor * 2
        assert kwargs["qkv_proj_lora_alpha"] == factor * 3
        assert kwargs["out_proj_lora_rank"] == 2 and kwargs["out_proj_lora_alpha"] == 3
