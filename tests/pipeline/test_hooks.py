"""Offloading and LoRA scale, although the transformer's own ``forward`` is never called."""

import collections

import pytest
import torch
from accelerate.hooks import CpuOffload
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.group_offloading import GroupOffloadingHook

from musicinfuser.pipelines import model_offload
from musicinfuser.pipelines.model_offload import offload_in_turn
from tests.pipeline.conftest import distance, latents_of

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")
NUM_PASSES = 4  # two steps with text guidance
CPU = torch.device("cpu")


class Away(ModelHook):
    """The weights of some modules are no numbers but while one of them runs."""

    def __init__(self, parameters):
        self.parameters = list(parameters)
        self.kept = [p.detach().clone() for p in self.parameters]
        self.num_runs = 0

    def initialize_hook(self, module):
        self.post_forward(module, None)
        return module

    def pre_forward(self, module, *args, **kwargs):
        self.num_runs += 1
        for parameter, kept in zip(self.parameters, self.kept, strict=True):
            parameter.data = kept.clone()
        return args, kwargs

    def post_forward(self, module, output):
        for parameter in self.parameters:
            parameter.data = torch.full_like(parameter, torch.nan)
        return output


def send_away(module, parameters):
    hook = Away(parameters)
    HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, "away")
    return hook


@pytest.mark.parametrize("level", ["blocks", "leaves"])
def test_weights_may_be_elsewhere_but_while_their_hooks_run(loaded, fresh, song, level):
    transformer, zica = fresh.transformer, fresh.zica
    if level == "blocks":
        hooks = [send_away(block, block.parameters()) for block in transformer.transformer_blocks]
        rest = [p for n, p in transformer.named_parameters() if "transformer_blocks" not in n]
        hooks += [send_away(transformer, rest), send_away(zica, zica.parameters())]
    else:
        modules = [*transformer.modules(), *zica.modules()]
        own = [(m, list(m.parameters(recurse=False))) for m in modules]
        hooks = [send_away(module, parameters) for module, parameters in own if parameters]
        assert len(hooks) > 100
    assert torch.equal(latents_of(fresh, audio=song), latents_of(loaded, audio=song))
    if level == "blocks":
        assert [hook.num_runs for hook in hooks] == [NUM_PASSES] * len(hooks)
    assert transformer.pos_frequencies.isnan().all()


@pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
def test_group_offload_of_diffusers(loaded, fresh, song, monkeypatch, kind):
    counts = collections.Counter()
    pre_forward = GroupOffloadingHook.pre_forward

    def counted(self, module, *args, **kwargs):
        counts[module] += 1
        return pre_forward(self, module, *args, **kwargs)

    monkeypatch.setattr(GroupOffloadingHook, "pre_forward", counted)
    settings = {"offload_type": kind, "num_blocks_per_group": 1}
    fresh.enable_group_offload(CPU, exclude_modules=["vae"], **settings)
    assert torch.equal(latents_of(fresh, audio=song), latents_of(loaded, audio=song))
    blocks = fresh.transformer.transformer_blocks
    places = (
        [fresh.transformer, fresh.zica, *blocks]
        if kind == "block_level"
        else [blocks[0].norm1.linear, blocks[1].attn1.to_q.base_layer, fresh.zica.zica["2"].to_v]
    )
    assert [counts[module] for module in places] == [NUM_PASSES] * len(places)


def test_model_offload(loaded, fresh, song, monkeypatch):
    ran, sent_away = [], []
    pre_forward, init_hook = CpuOffload.pre_forward, CpuOffload.init_hook

    def counted(self, module, *args, **kwargs):
        ran.append(module)
        return pre_forward(self, module, *args, **kwargs)

    def noted(self, module):
        sent_away.append(module)
        return init_hook(self, module)

    fresh.enable_model_cpu_offload(device="cpu")
    monkeypatch.setattr(CpuOffload, "pre_forward", counted)
    settings = {"audio": song, "output_type": "pt"}
    video = latents_of(fresh, **settings)
    assert torch.equal(video, latents_of(loaded, **settings))
    passes = [fresh.transformer, fresh.zica] * NUM_PASSES
    assert [m for m in ran if m not in (fresh.text_encoder, fresh.audio_encoder)] == [
        *passes,
        fresh.vae,
    ]
    assert ran.count(fresh.text_encoder) == 2 and ran.count(fresh.audio_encoder) == 1
    # What works at the same time stays until the VAE needs the room.
    monkeypatch.setattr(CpuOffload, "init_hook", noted)
    encoders = [fresh.text_encoder, fresh.audio_encoder]
    fresh.transformer._hf_hook.prev_module_hook.offload()
    assert sent_away == encoders
    fresh.vae._hf_hook.prev_module_hook.offload()
    assert sent_away[2:] == [*encoders, fresh.zica, fresh.transformer]


def test_model_offload_asks_a_model_that_is_on_the_device():
    """A model that did not run hides no other that did."""
    models = [torch.nn.Linear(1, 1, device=device) for device in ("meta", "cpu", "cpu")]
    for model in models:
        model._hf_hook = CpuOffload("meta")
    offload_in_turn([[models[0]], [models[1]], [None, models[2]]])
    assert models[2]._hf_hook.prev_module_hook.model is models[0]


def test_a_vae_that_encoded_a_picture_does_not_wait_on_the_device(monkeypatch):
    """It is sent away as its own hook does it; a model without one is left alone."""
    hooked, plain, sent = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), []
    hooked._hf_hook = CpuOffload("meta")
    monkeypatch.setattr(CpuOffload, "init_hook", lambda self, module: sent.append(module))
    for model in (plain, hooked):
        model_offload.send_away(model)
    assert sent == [hooked]


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["model", "block_level", "leaf_level"])
def test_offloaded_on_a_gpu(loaded, fresh, song, kind):
    device = torch.device("cuda")
    if kind == "model":
        fresh.enable_model_cpu_offload()
    else:
        settings = {"offload_type": kind, "num_blocks_per_group": 1}
        fresh.enable_group_offload(device, use_stream=kind == "leaf_level", **settings)
    settings = {"audio": song, "output_type": "latent"}
    offloaded = latents_of(fresh, **settings)
    assert offloaded.device.type == "cuda"
    assert next(fresh.transformer.transformer_blocks[0].parameters()).device.type == "cpu"
    assert distance(offloaded.cpu(), latents_of(loaded, **settings)) < 1e-2


def test_scale_zero_is_no_lora(fresh, song):
    def of(scale=None):
        kwargs = None if scale is None else {"scale": scale}
        settings = {"num_inference_steps": 1, "guidance_scale": 1.0}
        return latents_of(fresh, audio=song, attention_kwargs=kwargs, **settings)

    whole, zero, half = of(), of(0.0), of(0.5)
    layer = fresh.transformer.transformer_blocks[0].attn1.to_q
    assert layer.scaling == {"musicinfuser": 3.0}
    fresh.set_adapters("musicinfuser", 0.5)
    assert torch.equal(of(), half)
    fresh.set_adapters("musicinfuser", 0.0)
    assert torch.equal(of(), zero)
    fresh.set_adapters("musicinfuser", 0.5)
    of(0.0)
    assert layer.scaling == {"musicinfuser": 1.5}
    fresh.unload_lora_weights()
    assert torch.equal(of(), zero)
    assert distance(whole, zero) > 1e-4 and distance(half, whole) > 1e-5
