import math
import re

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from musicinfuser.networks.audio_projector import AudioProjector
from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from musicinfuser.networks.backbones.mochi import MOCHI_HUB_ID
from musicinfuser.networks.layer_selection import LayerStrategy
from musicinfuser.networks.lora import (
    ADAPTER_NAME,
    LoraSpec,
    add_lora,
    is_lora_name,
    target_pattern,
)
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec

Q, K, V = "to_q", "to_k", "to_v"
TEXT_Q, TEXT_K, TEXT_V = "add_q_proj", "add_k_proj", "add_v_proj"


def matrices(layer):
    return layer.lora_A[ADAPTER_NAME].weight, layer.lora_B[ADAPTER_NAME].weight


def lora_layer(attention, name):
    """The peft layer at ``name`` of an attention module, or None where it is not adapted."""
    layers = dict(attention.named_modules())
    return layers[name] if "default" in getattr(layers.get(name), "lora_A", {}) else None


@pytest.mark.parametrize("streams", ["both", "visual"])
def test_pattern_hits_the_attention_projections_and_nothing_else(
    pristine_backbone, adapted_modules, streams
):
    pattern = target_pattern(LoraSpec(rank=2, alpha=2.0, streams=streams))
    names = [name for name, _ in pristine_backbone.named_modules()]
    assert "time_embed.pooler.to_q" in names
    hits = [name for name in names if re.fullmatch(pattern, name)]
    assert sorted(hits) == sorted(adapted_modules(3, streams=streams))


@pytest.mark.parametrize("streams", ["both", "visual"])
def test_layers_and_their_names(backbone, adapted_modules, streams):
    names = add_lora(backbone, LoraSpec(rank=2, alpha=2.0, streams=streams))
    expected = adapted_modules(3, streams=streams)
    assert names == {f"{m}.lora_{x}.{ADAPTER_NAME}.weight" for m in expected for x in "AB"}
    adapted = [name for name, m in backbone.named_modules() if hasattr(m, "lora_A")]
    assert sorted(adapted) == sorted(expected)
    for name in expected:
        layer = backbone.get_submodule(name)
        a, b = matrices(layer)
        rows, columns = layer.base_layer.weight.shape
        assert a.shape == (2, columns) and b.shape == (rows, 2)
        assert not b.any()
        # peft: kaiming uniform with a = sqrt(5), i.e. within 1 / sqrt(columns).
        assert 0 < a.abs().max() <= columns**-0.5


@pytest.mark.parametrize(("rank", "alpha"), [(2, 2.0), (4, 1.0), (3, 12.0)])
def test_update_is_alpha_over_rank_times_b_a(backbone, rank, alpha):
    add_lora(backbone, LoraSpec(rank=rank, alpha=alpha))
    stream = torch.Generator().manual_seed(0)
    for name in ("to_out.0", TEXT_K):
        layer = lora_layer(backbone.transformer_blocks[1].attn1, name)
        a, b = matrices(layer)
        b.data.normal_(generator=stream)
        x = torch.randn(5, a.shape[1], generator=stream)
        base = layer.base_layer
        weight = base.weight.double() + alpha / rank * b.double() @ a.double()
        bias = 0 if base.bias is None else base.bias.double()
        torch.testing.assert_close(
            layer(x).double(), x.double() @ weight.T + bias, rtol=1e-4, atol=1e-5
        )


def test_shared_a_is_one_parameter_per_stream(backbone):
    names = add_lora(backbone, LoraSpec(rank=2, alpha=2.0, share_qkv_a=True))
    for i, block in enumerate(backbone.transformer_blocks):
        layers = {n: lora_layer(block.attn1, n) for n in (Q, K, V, TEXT_Q, TEXT_K, TEXT_V)}
        a = {name: matrices(layer)[0] for name, layer in layers.items()}
        b = {name: matrices(layer)[1] for name, layer in layers.items()}
        assert a[Q] is a[K] and a[K] is a[V]
        assert a[TEXT_Q] is a[TEXT_K] and a[TEXT_K] is a[TEXT_V]
        assert a[Q] is not a[TEXT_Q]
        assert len({id(matrix) for matrix in b.values()}) == 6
        prefix = f"transformer_blocks.{i}.attn1"
        assert f"{prefix}.{Q}.lora_A.{ADAPTER_NAME}.weight" in names
        assert f"{prefix}.{V}.lora_A.{ADAPTER_NAME}.weight" not in names
    assert len(names) == 3 * (2 * 8 - 2 * 2) - 2


def test_shared_a_of_the_visual_stream_alone(backbone):
    names = add_lora(backbone, LoraSpec(rank=2, alpha=2.0, streams="visual", share_qkv_a=True))
    attention = backbone.transformer_blocks[0].attn1
    assert matrices(attention.to_q)[0] is matrices(attention.to_v)[0]
    assert lora_layer(attention, TEXT_Q) is None
    assert len(names) == 3 * (2 * 4 - 2)


def test_lora_layer_finds_adapted_modules_only(backbone):
    add_lora(backbone, LoraSpec(rank=2, alpha=2.0, streams="visual"))
    first, last = backbone.transformer_blocks[0].attn1, backbone.transformer_blocks[-1].attn1
    assert lora_layer(first, Q) is first.to_q
    assert lora_layer(first, "to_out.0") is first.to_out[0]
    assert lora_layer(first, TEXT_Q) is None
    assert lora_layer(last, "to_add_out") is None


def test_names():
    assert is_lora_name("transformer_blocks.0.attn1.to_q.lora_A.default.weight")
    assert is_lora_name("transformer_blocks.0.attn1.to_q.lora_B.default.weight")
    assert not is_lora_name("transformer_blocks.0.attn1.to_q.base_layer.weight")
    assert not is_lora_name("zica.0.to_q.weight")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0, "alpha": 1.0}, r"lora\.rank is 0; it must be at least 1"),
        ({"rank": 4, "alpha": 0.0}, r"lora\.alpha is 0\.0; it must be above 0"),
        ({"rank": 4, "alpha": -1.0}, r"lora\.alpha is -1\.0"),
    ],
)
def test_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        LoraSpec(**settings)


@pytest.mark.parametrize(("streams", "num_lora"), [("visual", 75_497_472), ("both", 131_825_664)])
def test_full_size_counts(streams, num_lora, adapted_modules, mochi_shapes):
    with torch.device("meta"):
        model = MusicModel(
            build_backbone(BackboneSpec(pretrained=MOCHI_HUB_ID)),
            layers=LayerStrategy("adaptability"),
            zica=ZicaSpec(),
            lora=LoraSpec(rank=64, alpha=64.0, streams=streams),
        )
    lora = {n: p for n, p in model.named_parameters() if is_lora_name(n)}
    by_rule = sum(
        64 * sum(mochi_shapes()[f"{name}.weight"]) for name in adapted_modules(48, streams=streams)
    )
    assert sum(p.numel() for p in lora.values()) == num_lora == by_rule
    assert sum(p.numel() for p in model.zica.parameters()) == 604_176_384
    assert math.prod((16, 4, 3072, 3073)) == 604_176_384
    assert isinstance(model.audio_projector, AudioProjector)
    assert sum(p.numel() for p in model.audio_projector.parameters()) == 11_802_624
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trainable) == num_lora + 604_176_384 + 11_802_624
    assert {p.dtype for p in trainable} == {torch.float32}
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert sum(p.numel() for p in frozen) == 10_027_677_744
    assert {p.dtype for p in frozen} == {torch.bfloat16}


class CopiesToFp32(TorchDispatchMode):
    """Shapes of what is copied to fp32 while ``is_inside``."""

    def __init__(self):
        super().__init__()
        self.is_inside = False
        self.shapes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if self.is_inside and func is torch.ops.aten._to_copy.default:
            if out.dtype == torch.float32:
                self.shapes.append(tuple(out.shape))
        return out


@pytest.mark.filterwarnings("ignore:In CPU autocast")
@pytest.mark.parametrize("is_cast_by_peft", [False, True])
def test_under_autocast_adapters_compute_in_bf16_and_learn_in_fp32(
    make_model, randomise, clip, is_cast_by_peft
):
    """No input is copied to fp32, and the numbers are those peft gives with that copy."""
    model = randomise(make_model(dtype=torch.bfloat16))
    layers = [m for m in model.modules() if hasattr(m, "lora_A")]
    copies = CopiesToFp32()
    for layer in layers:
        layer.cast_input_dtype_enabled |= is_cast_by_peft
        layer.register_forward_pre_hook(lambda *_: setattr(copies, "is_inside", True))
        layer.register_forward_hook(lambda *_: setattr(copies, "is_inside", False))
    with torch.autocast("cpu", torch.bfloat16):
        with copies:
            out = model(
                clip.latents, clip.text, clip.timestep, None, clip.audio, text_lengths=(10, 10)
            )
        expected = None
        if not is_cast_by_peft:
            for layer in layers:
                layer.cast_input_dtype_enabled = True
            expected = model(
                clip.latents, clip.text, clip.timestep, None, clip.audio, text_lengths=(10, 10)
            )
    of_tokens = [shape for shape in copies.shapes if len(shape) == 3]
    assert len(of_tokens) == (len(layers) if is_cast_by_peft else 0)
    if expected is not None:
        assert torch.equal(out, expected)
    out.float().square().mean().backward()
    for layer in layers:
        for weight in matrices(layer):
            assert weight.dtype == weight.grad.dtype == torch.float32
        assert layer.base_layer.weight.dtype == torch.bfloat16
