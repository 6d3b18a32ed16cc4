"""What training may touch, and what it must not."""

import pytest
import torch

from musicinfuser.memory.settings import MemorySettings
from musicinfuser.networks.backbone import BackboneSpec
from musicinfuser.networks.lora import LoraSpec, is_lora_name
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec

# diffusers asks for fp32 autocast, which torch has on CUDA only.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")
FORMS = ["cross_attention", "feature_addition"]
PROJECTOR = {
    f"audio_projector.projection.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")
}


def zica_names(layers, projections=("to_q", "to_k", "to_v", "to_out"), kinds=("weight", "bias")):
    return {f"zica.{i}.{p}.{k}" for i in layers for p in projections for k in kinds}


def lora_names(modules):
    return {f"backbone.{m}.lora_{x}.default.weight" for m in modules for x in "AB"}


def loss(model, clip):
    out = model(
        clip.latents, clip.text, clip.timestep, None, clip.audio, text_lengths=clip.text_lengths
    )
    return out.float().square().mean()


def gradients(model, clip):
    loss(model, clip).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def test_trainable_names(make_model, adapted_modules):
    def names(**changes):
        model = make_model(**changes)
        assert model.trainable_names() == {
            n for n, p in model.named_parameters() if p.requires_grad
        }
        return model.trainable_names()

    both = lora_names(adapted_modules(3, streams="both"))
    visual = lora_names(adapted_modules(3, streams="visual"))
    audio = zica_names([0, 2]) | PROJECTOR
    assert len(both) == 2 * (3 * 8 - 1) and len(visual) == 2 * 3 * 4
    assert names() == both | audio
    assert names(lora=LoraSpec(rank=2, alpha=2.0, streams="visual")) == visual | audio
    assert names(lora=None) == audio
    assert names(layers=[]) == both
    assert names(layers=[], lora=None) == set()
    assert names(zica=ZicaSpec(bias=False)) == (
        both | zica_names([0, 2], kinds=("weight",)) | PROJECTOR
    )
    assert names(zica=ZicaSpec(form="feature_addition"), layers=[1]) == (
        both | zica_names([1], projections=("to_out",)) | PROJECTOR
    )
    tied = {f"{n}.lora_A.default.weight" for n in ("to_k", "to_v", "add_q_proj", "add_v_proj")}
    shared = LoraSpec(rank=2, alpha=2.0, share_qkv_a=True)
    assert names(lora=shared) == {n for n in both | audio if n.split("attn1.")[-1] not in tied}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_are_fp32_and_the_backbone_keeps_its_type(make_model, dtype):
    model = make_model(dtype=dtype, lora=LoraSpec(rank=2, alpha=2.0, share_qkv_a=True))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.dtype == torch.float32, name
        else:
            assert parameter.dtype == dtype and name.startswith("backbone."), name


def test_shared_a_stays_shared_when_cast_from_bf16(make_model):
    model = make_model(dtype=torch.bfloat16, lora=LoraSpec(rank=2, alpha=2.0, share_qkv_a=True))
    attention = model.backbone.transformer_blocks[0].attn1
    a = [getattr(attention, n).lora_A["default"].weight for n in ("to_q", "to_k", "to_v")]
    assert a[0] is a[1] and a[1] is a[2] and a[0].dtype == torch.float32


def test_three_steps_move_the_adapters_and_nothing_else(make_model, clip, adapted_modules):
    model = make_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0
    )
    for _ in range(3):
        optimizer.zero_grad()
        loss(model, clip).backward()
        optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    # Queries of the text go nowhere in the last block, whose text output is dropped.
    dead = {f"backbone.transformer_blocks.2.attn1.add_q_proj.lora_{x}.default.weight" for x in "AB"}
    assert moved == model.trainable_names() - dead
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_a_step_lowers_the_loss(make_model, clip):
    model = make_model()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0
    )
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        losses.append(loss(model, clip))
        losses[-1].backward()
        optimizer.step()
    assert losses[0] > losses[1] > losses[2] > losses[3]


@pytest.mark.parametrize("form", FORMS)
def test_only_the_output_projections_learn_from_the_first_step(make_model, clip, form):
    found = gradients(make_model(zica=ZicaSpec(form=form, num_heads=4)), clip)
    learning = {name for name, gradient in found.items() if gradient is not None and gradient.any()}
    audio = {name for name in learning if not name.startswith("backbone.")}
    assert audio == zica_names([0, 2], projections=("to_out",))
    lora = learning - audio
    assert lora and all(is_lora_name(name) and "lora_B" in name for name in lora)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_by_finite_differences(make_model, randomise, clip, form):
    model = randomise(make_model(zica=ZicaSpec(form=form, num_heads=4)))
    weights = torch.randn(clip.latents.shape, generator=torch.Generator().manual_seed(1))

    def value():
        out = model(
            clip.latents, clip.text, clip.timestep, None, clip.audio, text_lengths=clip.text_lengths
        )
        return (out * weights).double().sum()

    value().backward()
    for name in (
        "zica.0.to_out.weight",
        "zica.2.to_out.bias",
        "audio_projector.projection.0.weight",
        "backbone.transformer_blocks.1.attn1.to_k.lora_A.default.weight",
        "backbone.transformer_blocks.0.attn1.to_add_out.lora_B.default.weight",
    ):
        parameter = model.get_parameter(name)
        # Along the gradient the slope is its norm.
        direction = parameter.grad / parameter.grad.norm()
        start, step = parameter.detach().clone(), 1e-2
        with torch.no_grad():
            parameter.copy_(start + step * direction)
            above = value()
            parameter.copy_(start - step * direction)
            below = value()
            parameter.copy_(start)
        slope = ((above - below) / (2 * step)).item()
        assert slope == pytest.approx(parameter.grad.norm().item(), rel=2e-2), name


def test_initialisation_depends_on_the_seed_alone(make_model):
    def adapters(seed, global_seed):
        torch.manual_seed(global_seed)
        expected = torch.get_rng_state()
        model = make_model(seed=seed, lora=LoraSpec(rank=2, alpha=2.0))
        assert torch.equal(torch.get_rng_state(), expected), "the global stream is left alone"
        return {n: p for n, p in model.named_parameters() if p.requires_grad}

    first, again, other = adapters(0, 1), adapters(0, 2), adapters(1, 1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    zeros = {n for n in first if "lora_B" in n or ".to_out." in n and n.startswith("zica")}
    assert all(torch.equal(first[n], other[n]) == (n in zeros) for n in first)


@pytest.mark.slow
def test_one_block_of_full_width_forward_and_backward():
    """24 heads of 128, text 1536, T5 4096, ZICA 8 heads at 3072, LoRA rank 64: about 2 GB."""
    import json
    from copy import deepcopy

    from diffusers import MochiTransformer3DModel

    from musicinfuser.networks.backbone import initialise_randomly
    from musicinfuser.networks.backbones.mochi import MOCHI_CONFIG, MOCHI_HUB_ID

    assert BackboneSpec(pretrained=MOCHI_HUB_ID).subfolder == "transformer"
    config = json.loads(json.dumps(MOCHI_CONFIG)) | {"num_layers": 1}
    backbone = MochiTransformer3DModel.from_config(config)
    initialise_randomly(backbone, seed=0)
    stream = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 12, 3, 4, 4, generator=stream)
    text = torch.randn(1, 5, 4096, generator=stream)
    timestep = torch.tensor([400.0])
    with torch.no_grad():
        expected = backbone(latents, text, timestep, torch.ones(1, 5), return_dict=False)[0]
    expected = deepcopy(expected)
    model = MusicModel(
        backbone, layers=[0], zica=ZicaSpec(), lora=LoraSpec(rank=64, alpha=64.0),
        memory=MemorySettings("full"),
    )  # fmt: skip
    audio = torch.randn(1, 124, 768, generator=stream)
    out = model(latents, text, timestep, None, audio, text_lengths=(5,))
    assert torch.equal(out, expected)
    assert model.zica["0"].num_heads == 8 and model.zica["0"].to_q.weight.shape == (3072, 3072)
    out.square().mean().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        else:
            assert parameter.grad is None, name
    assert model.zica["0"].to_out.weight.grad.any()
    lora_b = model.backbone.transformer_blocks[0].attn1.to_v.lora_B["default"].weight
    assert lora_b.shape == (3072, 64) and lora_b.grad.any()
