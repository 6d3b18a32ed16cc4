import json
import math
import re
from collections import Counter

import pytest
import torch
from diffusers import MochiTransformer3DModel
from torch.utils._python_dispatch import TorchDispatchMode

from musicinfuser.networks.backbone import (
    BackboneSpec,
    backbone_config,
    build_backbone,
    initialise_randomly,
)
from musicinfuser.networks.backbones.mochi import MOCHI_HUB_ID
from musicinfuser.pretrained_sources import MissingWeightsError


@pytest.fixture(scope="module")
def full_size():
    with torch.device("meta"):
        return build_backbone(BackboneSpec(pretrained=MOCHI_HUB_ID))


@pytest.fixture
def config_path(small_parts):
    return str(small_parts / "transformer" / "config.json")


def parameters(backbone):
    return dict(backbone.named_parameters())


def test_full_size_has_every_published_parameter_and_no_other(full_size, mochi_shapes):
    found = {name: tuple(p.shape) for name, p in full_size.named_parameters()}
    assert found == mochi_shapes()
    assert not list(full_size.buffers())
    assert {p.dtype for p in full_size.parameters()} == {torch.bfloat16}
    assert all(p.is_meta and not p.requires_grad for p in full_size.parameters())


def test_full_size_parameter_counts(full_size, mochi_shapes):
    def count(prefix):
        return sum(p.numel() for n, p in full_size.named_parameters() if n.startswith(prefix))

    assert count("") == 10_027_677_744
    assert sum(math.prod(shape) for shape in mochi_shapes().values()) == 10_027_677_744
    assert {count(f"transformer_blocks.{i}.") for i in range(47)} == {207_641_600}
    assert count("transformer_blocks.47.") == 169_886_720


def test_small_size_follows_the_same_rule(pristine_backbone, mochi_shapes):
    found = {name: tuple(p.shape) for name, p in pristine_backbone.named_parameters()}
    assert found == mochi_shapes(
        depth=3, num_heads=2, head_width=64, text_width=96, t5_width=64, time_width=64
    )


def test_pretrained_weights_are_those_on_disk_and_frozen(small_parts):
    saved = parameters(MochiTransformer3DModel.from_pretrained(small_parts / "transformer"))
    for dtype in ("float32", "bfloat16"):
        backbone = build_backbone(BackboneSpec(pretrained=str(small_parts), dtype=dtype))
        built = parameters(backbone)
        assert built.keys() == saved.keys()
        for name, parameter in built.items():
            assert torch.equal(parameter, saved[name].to(getattr(torch, dtype))), name
            assert parameter.dtype == getattr(torch, dtype) and not parameter.requires_grad
    inner = BackboneSpec(pretrained=str(small_parts / "transformer"), subfolder=None)
    assert parameters(build_backbone(inner)).keys() == saved.keys()


def test_random_weights_depend_on_the_seed_alone(config_path):
    def build(seed, global_seed):
        torch.manual_seed(global_seed)
        spec = BackboneSpec(config=config_path, dtype="float32", seed=seed)
        return parameters(build_backbone(spec))

    first, again, other = build(0, 1), build(0, 2), build(1, 1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    differing = {name for name in first if not torch.equal(first[name], other[name])}
    norms = re.compile(r"\.norm(_added)?_[qk]\.weight$")
    assert differing == {name for name in first if not norms.search(name)}


def test_random_weights_have_the_spread_of_linear_layers(config_path):
    built = parameters(build_backbone(BackboneSpec(config=config_path, dtype="float32")))
    for name, parameter in built.items():
        if name == "pos_frequencies":
            # Time, height and width in Mochi's units: the latter two span about 192.
            turns = (parameter * torch.tensor([1, 48, 48])[:, None, None]).norm(dim=0)
            assert 0.08 <= turns.min() < 0.4 and 0.8 < turns.max() <= 2.0
            assert (parameter[0].abs().mean() > 10 * parameter[1:].abs().mean()).item()
        elif parameter.dim() > 1:
            # U(-1/sqrt(n), 1/sqrt(n)) has the variance 1 / (3 n).
            expected = (3 * parameter[0].numel()) ** -0.5
            assert parameter.std().item() == pytest.approx(expected, rel=0.15), name
        elif name.endswith("bias"):
            assert 0 < parameter.abs().max() < 0.1, name
        else:
            assert (parameter == 1).all(), name
    first, second = (built[f"transformer_blocks.{i}.attn1.to_q.weight"] for i in (0, 1))
    assert not torch.equal(first, second)


def test_initialising_again_restores_the_weights(backbone):
    before = {name: p.clone() for name, p in backbone.named_parameters()}
    for parameter in backbone.parameters():
        if parameter.dim() > 1:
            parameter.zero_()
    initialise_randomly(backbone, seed=0)
    assert all(torch.equal(p, before[name]) for name, p in backbone.named_parameters())


def test_meta_builds_need_a_config_only(small_parts, tmp_path):
    (tmp_path / "transformer").mkdir()
    config = small_parts / "transformer" / "config.json"
    (tmp_path / "transformer" / "config.json").write_text(config.read_text())
    with torch.device("meta"):
        for spec in (BackboneSpec(pretrained=str(tmp_path)), BackboneSpec(config=str(config))):
            backbone = build_backbone(spec)
            assert len(backbone.transformer_blocks) == 3
            assert all(p.is_meta for p in backbone.parameters())


def test_config_is_read_without_weights(small_parts, config_path):
    expected = json.loads((small_parts / "transformer" / "config.json").read_text())
    assert backbone_config(BackboneSpec(pretrained=str(small_parts))) == expected
    assert backbone_config(BackboneSpec(config=config_path)) == expected
    assert backbone_config(BackboneSpec(pretrained=MOCHI_HUB_ID))["num_layers"] == 48


def test_files_name_the_family_where_it_is_not_mochi():
    kept = {"pretrained": "a", "subfolder": "t", "config": None, "dtype": "float32", "seed": 3}
    assert BackboneSpec(**kept).stored() == kept
    assert BackboneSpec(**kept, family="wan").stored() == kept | {"family": "wan"}


def test_errors(tmp_path):
    for spec in ({}, {"pretrained": "a", "config": "b"}):
        with pytest.raises(ValueError, match="exactly one of `pretrained` .* and `config`"):
            BackboneSpec(**spec)
    missing = str(tmp_path / "missing")
    with pytest.raises(MissingWeightsError, match="config names .*missing, which does not exist"):
        build_backbone(BackboneSpec(config=missing))
    with pytest.raises(MissingWeightsError, match="missing/transformer does not exist; give a"):
        build_backbone(BackboneSpec(pretrained=missing))
    with torch.device("meta"), pytest.raises(MissingWeightsError, match="architecture is unknown"):
        build_backbone(BackboneSpec(pretrained=missing))


class Writes(TorchDispatchMode):
    """How often memory was written to by operations in place."""

    def __init__(self):
        super().__init__()
        self.number = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__.endswith("_") and torch.is_tensor(args[0]):
            if not args[0].is_meta:
                self.number[args[0].untyped_storage().data_ptr()] += 1
        return out


@pytest.mark.parametrize("source", ["config", "pretrained"])
def test_no_weight_is_written_twice(small_parts, config_path, source):
    """Neither by torch, which would draw each for nothing, nor in another type first."""
    given = {"config": config_path} if source == "config" else {"pretrained": str(small_parts)}
    for dtype in ("float32", "bfloat16"):
        with Writes() as writes:
            backbone = build_backbone(BackboneSpec(**given, dtype=dtype))
        for name, parameter in backbone.named_parameters():
            assert writes.number[parameter.data_ptr()] <= 1, name
            assert parameter.is_contiguous()
        if source == "config":
            assert all(writes.number[p.data_ptr()] == 1 for p in backbone.parameters())
