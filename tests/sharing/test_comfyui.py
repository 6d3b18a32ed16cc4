"""LoRA for ComfyUI: its names of weights, and what its rule makes of them."""

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import MochiTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from musicinfuser.adapters.folder import LORA_FILE
from musicinfuser.convert import main
from musicinfuser.networks.lora import LoraSpec
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.safetensors_files import read_tensors
from tests import small_wan
from tests.adapted import with_trained_values
from tests.sharing.test_folder import share
from tests.sharing.test_lora_reach import BOTH, FAMILIES, REACHES, adapted, base, velocity

__all__ = ["base"]

ATTENTION = LoraSpec(rank=2, alpha=3.0)
CASES = {
    "attention": ATTENTION,
    "visual": LoraSpec(rank=3, alpha=1.5, streams="visual"),
    "shared A": LoraSpec(rank=2, alpha=5.0, share_qkv_a=True),
    "feed-forward": REACHES["feed-forward"],
    "ranks": REACHES["ranks"],
}
OF_BOTH = [case for case in CASES if case != "shared A"]
# ComfyUI's names within a block (asymm_models_joint.py, wan/model.py), and diffusers'.
MOCHI = {
    "attn.qkv_x": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "attn.qkv_y": ("attn1.add_q_proj", "attn1.add_k_proj", "attn1.add_v_proj"),
    "attn.proj_x": ("attn1.to_out.0",),
    "attn.proj_y": ("attn1.to_add_out",),
    "mlp_x.w1": ("ff.net.0.proj",),
    "mlp_x.w2": ("ff.net.2",),
    "mlp_y.w1": ("ff_context.net.0.proj",),
    "mlp_y.w2": ("ff_context.net.2",),
}
WAN = {
    f"{theirs}.{letter}": (f"{ours}.{name}",)
    for theirs, ours in (("self_attn", "attn1"), ("cross_attn", "attn2"))
    for letter, name in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"))
} | {"ffn.0": ("ffn.net.0.proj",), "ffn.2": ("ffn.net.2",)}


def trained(backbone: Any, lora: LoraSpec) -> MusicModel:
    """With multiples of 1/256, whose products of low rank are exact."""
    model = with_trained_values(adapted(backbone, lora), seed=3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = (256 * parameter.data).round() / 256
    return model


def convert(folder: Path, file: Path) -> None:
    main(["to-comfyui", str(folder), str(file)])


def as_comfyui_adds(file: Path) -> dict[str, Tensor]:
    """By name of the weight what ComfyUI adds to it; no tensor is left unread."""
    tensors = load_file(file)
    added = {}
    for name in [n.removesuffix(".lora_B.weight") for n in tensors if "lora_B" in n]:
        up, down = (tensors.pop(f"{name}.lora_{matrix}.weight") for matrix in "BA")
        alpha = tensors.pop(f"{name}.alpha").item()
        added[f"{name}.weight"] = alpha / down.shape[0] * torch.mm(up, down)
    assert not tensors
    return added


def by_their_names(model: MusicModel, family: str) -> dict[str, Tensor]:
    """By name of the weight in ComfyUI what LoRA adds to it here, as peft says."""
    blocks = getattr(model.backbone, FAMILIES[family][1])
    expected = {}
    for i, block in enumerate(blocks):
        layers = {n: m for n, m in block.named_modules() if hasattr(m, "get_delta_weight")}
        for theirs, ours in (MOCHI if family == "mochi" else WAN).items():
            found = [layers.pop(n).get_delta_weight("default") for n in ours if n in layers]
            if not found:
                continue
            added = torch.cat(found).detach()
            if theirs.endswith("w1"):  # SwiGLU: the gate comes first there
                added = torch.cat(added.chunk(2)[::-1])
            expected[f"diffusion_model.blocks.{i}.{theirs}.weight"] = added
        assert not layers
    return expected


@pytest.mark.parametrize(("family", "case"), [("mochi", "shared A"), *product(FAMILIES, OF_BOTH)])
def test_weights_are_those_of_our_lora(family, case, base, tmp_path, capsys) -> None:
    model = trained(base(family), CASES[case])
    share(model, tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "lora.safetensors")
    said = capsys.readouterr().out
    assert "ZICA and the audio projector" in said and "written: " in said
    found = as_comfyui_adds(tmp_path / "lora.safetensors")
    expected = by_their_names(model, family)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensor.any() and torch.equal(found[name], tensor), name


@pytest.mark.parametrize(("case", "rank"), [("shared A", 2), ("attention", 6), ("ranks", 13)])
def test_rank_of_fused_layers(case, rank, base, tmp_path) -> None:
    """Of q, k and v with one A it is theirs, else the sum."""
    share(trained(base("mochi"), CASES[case]), tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "lora.safetensors")
    tensors = load_file(tmp_path / "lora.safetensors")
    assert len(tensors["diffusion_model.blocks.0.attn.qkv_x.lora_A.weight"]) == rank


def test_genmos_file_with_it_is_our_transformer(golden, tmp_path) -> None:
    """ComfyUI loads Genmo's file as it is: all names are in it, and the sums are ours."""
    main(["backbone", str(golden.dit), str(tmp_path / "t")])
    backbone = MochiTransformer3DModel.from_pretrained(tmp_path / "t").float()
    model = trained(backbone, LoraSpec(rank=2, alpha=3.0, targets=BOTH))
    share(model, tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "lora.safetensors")
    weights = {name: tensor.float() for name, tensor in load_file(golden.dit).items()}
    for name, added in as_comfyui_adds(tmp_path / "lora.safetensors").items():
        weights[name.removeprefix("diffusion_model.")] += added
    save_file(weights, tmp_path / "sum.safetensors")
    main(["backbone", str(tmp_path / "sum.safetensors"), str(tmp_path / "sum")])
    found = load_file(tmp_path / "sum" / "diffusion_pytorch_model.safetensors")
    checked = 0
    for name, layer in model.backbone.named_modules():
        if hasattr(layer, "get_delta_weight"):
            expected = layer.base_layer.weight + layer.get_delta_weight("default")
            assert torch.equal(found[f"{name}.weight"], expected), name
            checked += 1
    assert checked == 4 * 12 - 3  # the last block does not change the text


@pytest.mark.parametrize("case", ["attention", "feed-forward", "ranks"])
def test_diffusers_reads_wans_too(case, base, clip, tmp_path) -> None:
    """Its own key map of ComfyUI's files."""
    model = trained(base("wan"), CASES[case])
    share(model, tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "lora.safetensors")
    transformer = base("wan")
    parts = dict.fromkeys(("tokenizer", "text_encoder", "vae", "scheduler"))
    pipeline = FAMILIES["wan"][0](transformer=transformer, **parts)
    pipeline.load_lora_weights(tmp_path / "lora.safetensors")
    expected = velocity(model, clip, "wan")
    assert (expected - velocity(base("wan"), clip, "wan")).abs().max() > 0.01
    torch.testing.assert_close(velocity(transformer, clip, "wan"), expected, rtol=1e-4, atol=1e-5)


def drop(tensors: dict[str, Tensor]) -> None:
    del tensors["transformer.blocks.1.attn2.to_k.lora_B.weight"]


def add(tensors: dict[str, Tensor]) -> None:
    tensors["transformer.blocks.1.attn2.add_k_proj.lora_A.weight"] = torch.ones(2, 4)


def cut(tensors: dict[str, Tensor]) -> None:
    name = "transformer.blocks.1.attn2.to_k.lora_A.weight"
    tensors[name] = tensors[name][:1].clone()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop, "has no backbone.blocks.1.attn2.to_k.lora_B.default.weight"),
        (add, "has 1 tensors that its settings do not name, e.g. backbone.blocks.1.attn2.add_k"),
        (cut, "lora_A.default.weight (1, 128) and .* are of different rank"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(change, said, tmp_path) -> None:
    share(adapted(small_wan.transformer(), ATTENTION), tmp_path / "a")
    tensors, metadata = read_tensors(tmp_path / "a" / LORA_FILE)
    change(tensors)
    save_file(tensors, tmp_path / "a" / LORA_FILE, metadata=metadata)
    with pytest.raises(ValueError, match=re.sub(r"([()])", r"\\\1", said)):
        convert(tmp_path / "a", tmp_path / "lora.safetensors")
    assert not (tmp_path / "lora.safetensors").exists()


def test_what_comfyui_cannot_hold_is_refused(make_model, tmp_path) -> None:
    file = tmp_path / "lora.safetensors"
    share(make_model(lora=REACHES["DoRA"]), tmp_path / "dora")
    with pytest.raises(ValueError, match="is a DoRA, which ComfyUI scales by other lengths"):
        convert(tmp_path / "dora", file)
    share(make_model(lora=None), tmp_path / "music")
    with pytest.raises(ValueError, match="this adapter has no LoRA"):
        convert(tmp_path / "music", file)
    with pytest.raises(ValueError, match="holds no adapter"):
        convert(tmp_path / "nothing", file)
    with pytest.raises(ValueError, match=r"lora\.bin must end in \.safetensors"):
        convert(tmp_path / "dora", tmp_path / "lora.bin")
    assert not file.exists()
