"""The map between the authors' names and ours, on names, shapes and values."""

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_mochi_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file

from musicinfuser.adapters.official_keys import (
    adapter_rules,
    backbone_rules,
    from_official,
    to_official,
)

SMALL = {"num_heads": 2, "head_width": 8, "text_width": 12, "t5_width": 16, "time_width": 8}


def genmo_shapes(shapes, depth):
    """Genmo's names and shapes, written from the published checkpoint's layout."""
    width = shapes["norm_out.linear.weight"][1]
    text_width = shapes["time_embed.caption_proj.weight"][0]
    official = {"pos_frequencies": shapes["pos_frequencies"]}
    renamed = {
        "x_embedder.proj": "patch_embed.proj",
        "t_embedder.mlp.0": "time_embed.timestep_embedder.linear_1",
        "t_embedder.mlp.2": "time_embed.timestep_embedder.linear_2",
        "t5_y_embedder.to_kv": "time_embed.pooler.to_kv",
        "t5_y_embedder.to_q": "time_embed.pooler.to_q",
        "t5_y_embedder.to_out": "time_embed.pooler.to_out",
        "t5_yproj": "time_embed.caption_proj",
        "final_layer.mod": "norm_out.linear",
        "final_layer.linear": "proj_out",
    }
    for name, ours in renamed.items():
        for kind in ("weight", "bias"):
            official[f"{name}.{kind}"] = shapes[f"{ours}.{kind}"]
    for i in range(depth):
        block, is_last = f"blocks.{i}", i == depth - 1
        rows_y = text_width if is_last else 4 * text_width
        official |= {
            f"{block}.mod_x.weight": (4 * width, width),
            f"{block}.mod_x.bias": (4 * width,),
        }
        official |= {f"{block}.mod_y.weight": (rows_y, width), f"{block}.mod_y.bias": (rows_y,)}
        for stream, size in (("x", width), ("y", text_width)):
            official[f"{block}.attn.qkv_{stream}.weight"] = (3 * width, size)
            for letter in "qk":
                official[f"{block}.attn.{letter}_norm_{stream}.weight"] = shapes[
                    "transformer_blocks.0.attn1.norm_q.weight"
                ]
            if stream == "y" and is_last:
                continue
            official[f"{block}.attn.proj_{stream}.weight"] = (size, width)
            official[f"{block}.attn.proj_{stream}.bias"] = (size,)
            inner = 8 * size // 3
            official[f"{block}.mlp_{stream}.w1.weight"] = (2 * inner, size)
            official[f"{block}.mlp_{stream}.w2.weight"] = (size, inner)
    return official


@pytest.mark.parametrize("depth", [1, 2, 4, 48])
def test_backbone_map_is_a_bijection_on_values(mochi_shapes, depth):
    shapes = mochi_shapes(depth=depth, **SMALL)
    stream = torch.Generator().manual_seed(depth)
    ours = {name: torch.randn(shape, generator=stream) for name, shape in shapes.items()}
    official = to_official(ours, backbone_rules(depth))
    assert {n: tuple(t.shape) for n, t in official.items()} == genmo_shapes(shapes, depth)
    back = from_official(official, backbone_rules(depth))
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_backbone_map_equals_diffusers_conversion(mochi_shapes):
    """diffusers knows 48 blocks only."""
    shapes = genmo_shapes(mochi_shapes(**SMALL), 48)
    stream = torch.Generator().manual_seed(0)
    official = {name: torch.randn(shape, generator=stream) for name, shape in shapes.items()}
    ours = from_official(official, backbone_rules(48))
    theirs = convert_mochi_transformer_checkpoint_to_diffusers(dict(official))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


def test_backbone_map_at_full_size(mochi_shapes):
    shapes = mochi_shapes()
    official = {
        name: torch.empty(shape, device="meta", dtype=torch.bfloat16)
        for name, shape in genmo_shapes(shapes, 48).items()
    }
    assert official["blocks.0.attn.qkv_x.weight"].shape == (9216, 3072)
    assert official["blocks.0.mlp_y.w1.weight"].shape == (8192, 1536)
    ours = from_official(official, backbone_rules(48))
    assert {name: tuple(t.shape) for name, t in ours.items()} == shapes


def test_backbone_map_covers_the_recorded_file(golden, mochi_shapes):
    arch = golden.arch
    shapes = mochi_shapes(
        depth=arch["depth"],
        num_heads=arch["num_heads"],
        head_width=arch["hidden_size_x"] // arch["num_heads"],
        text_width=arch["hidden_size_y"],
        t5_width=arch["t5_feat_dim"],
    )
    recorded = {name: tuple(t.shape) for name, t in load_file(golden.dit).items()}
    assert recorded == genmo_shapes(shapes, arch["depth"])


@pytest.mark.parametrize(("depth", "num_layers"), [(1, 1), (4, 2), (48, 16)])
def test_adapter_map_has_the_authors_names(golden, depth, num_layers):
    layers = tuple(range(depth - num_layers, depth))
    names = {rule.official for rule in adapter_rules(depth, layers)}
    kinds = ("weight", "bias")
    expected = {f"audio_projection.projection.{i}.{k}" for i in (0, 2) for k in kinds}
    expected |= {
        f"audio_cross_attn_blocks.{i}.to_{p}.{k}"
        for i in range(num_layers)
        for p in ("q", "k", "v", "out")
        for k in kinds
    }
    for i in range(depth):
        parts = ["qkv_x", "qkv_y", "proj_x"] + ["proj_y"] * (i < depth - 1)
        expected |= {f"blocks.{i}.attn.{part}.lora_{x}" for part in parts for x in "AB"}
    assert names == expected
    if depth == golden.arch["depth"]:
        assert names == load_file(golden.adapter).keys()
