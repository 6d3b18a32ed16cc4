"""A stand-in of what of ComfyUI the nodes touch, which calls them as ComfyUI does."""

import copy
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from musicinfuser.diffusion.windows import Windows
from musicinfuser.networks.backbones import backbone_of


class Network(nn.Module):
    """diffusers' transformer, its blocks replaced where ComfyUI would let them be."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer, self.kind = transformer, backbone_of(transformer)
        self.kind.adapt_blocks()
        self.blocks = self.kind.blocks
        self.dim = self.hidden_size_x = self.kind.width
        self.in_dim, self.model_type, self.ref_conv = transformer.config.in_channels, "t2v", None

    def forward(
        self, x: Tensor, sigma: Tensor, text: Tensor, mask: Tensor, options: dict
    ) -> Tensor:
        replaced = options.get("patches_replace", {}).get("dit", {})
        time = self.kind.timestep(sigma)
        (visual, *rest), given = self.kind.embed(x, text, time, mask, None)

        def block(index: int, arguments: dict) -> dict:
            streams = (arguments["img"], *arguments["txt"], None)
            visual, *rest = self.kind.run_block(index, None, None, given, "none", *streams)
            return {"img": visual, "txt": rest}

        for i in range(len(self.blocks)):
            arguments, original = {"img": visual, "txt": rest}, partial(block, i)
            if ("double_block", i) in replaced:
                out = replaced["double_block", i](arguments, {"original_block": original})
            else:
                out = original(arguments)
            visual, rest = out["img"], out["txt"]
        return self.kind.head(visual, given)


class Patcher:
    """What the nodes ask of ComfyUI's ModelPatcher."""

    def __init__(self, model: Any, load_device: Any = None, offload_device: Any = None) -> None:
        self.model, self.wrappers, self.lora = model, {}, None
        self.more: dict[str, list[Patcher]] = {}
        self.model_options: dict[str, Any] = {"transformer_options": {}}

    def clone(self) -> "Patcher":
        return copy.copy(self)

    def add_wrapper_with_key(self, kind: str, key: str, wrapper: Callable[..., Tensor]) -> None:
        assert (kind, key) == ("apply_model", "musicinfuser")
        self.wrappers = {key: [*self.wrappers.get(key, []), wrapper]}

    def set_model_sampler_post_cfg_function(
        self, post_cfg_function: Callable[[dict], Tensor], disable_cfg1_optimization: bool = False
    ) -> None:
        earlier = self.model_options.get("sampler_post_cfg_function", [])
        added = {"sampler_post_cfg_function": [*earlier, post_cfg_function]}
        self.model_options = {**self.model_options, **added}

    def get_additional_models_with_key(self, key: str) -> list["Patcher"]:
        return self.more.get(key, [])

    def set_additional_models(self, key: str, models: list["Patcher"]) -> None:
        self.more = {**self.more, key: models}


def loaded(transformer: Any, family: str) -> Patcher:
    """Under the name of ComfyUI's class, by which the nodes know it."""
    name = "AsymmDiTJoint" if family == "mochi" else "WanModel"
    return Patcher(SimpleNamespace(diffusion_model=type(name, (Network,), {})(transformer)))


def velocity(model: Patcher, x: Tensor, sigma: Tensor, clip: Any, options: dict) -> Tensor:
    def call(x, t, c_concat, c_crossattn, control, options, attention_mask):  # noqa: ANN202
        assert c_concat is control is None
        return model.model.diffusion_model(x, t, c_crossattn, attention_mask, options)

    for wrapper in model.wrappers.get("musicinfuser", []):
        call = partial(wrapper, call)
    return call(x, sigma, None, clip.text, None, options, attention_mask=clip.text_mask)


class Base:
    """What ComfyUI's samplers call: a network that gives denoised latents, in its wrappers."""

    def __init__(self, patcher: Patcher) -> None:
        self.patcher = patcher

    def apply_model(
        self, x: Tensor, t: Tensor, c_concat: Any = None, c_crossattn: Any = None,
        control: Any = None, transformer_options: dict | None = None, **given: Any,
    ) -> Tensor:  # fmt: skip
        def call(x, t, c_concat, c_crossattn, control, options, attention_mask):  # noqa: ANN202
            network = self.patcher.model.diffusion_model
            return x + t[:, None, None, None, None] * network(
                x, t, c_crossattn, attention_mask, options
            )

        for wrapper in transformer_options["wrappers"]["apply_model"].get("musicinfuser", []):
            call = partial(wrapper, call)
        return call(x, t, c_concat, c_crossattn, control, transformer_options, **given)


def calc_cond_batch(
    model: Base, conds: list, x_in: Tensor, timestep: Tensor, model_options: dict
) -> list[Tensor]:
    """Of comfy/samplers.py: all conditions in one batch, and in the windows of a handler."""
    handler = model_options.get("context_handler")
    if handler is not None:
        return handler(_calc_cond_batch, model, conds, x_in, timestep, model_options)
    return _calc_cond_batch(model, conds, x_in, timestep, model_options)


def _calc_cond_batch(model, conds, x_in, timestep, model_options):  # noqa: ANN202
    given = [cond["model_conds"] for parts in conds if parts is not None for cond in parts]
    batch = {name: torch.cat([each[name] for each in given]) for name in given[0]}
    num = len(given)
    found = model.apply_model(
        torch.cat([x_in] * num), torch.cat([timestep] * num),
        transformer_options=dict(model_options["transformer_options"]), **batch,
    ).chunk(num)  # fmt: skip
    each = iter(found)
    return [torch.zeros_like(x_in) if parts is None else next(each) for parts in conds]


def sampling_function(
    patcher: Patcher, x: Tensor, timestep: Tensor, uncond: Any, cond: Any, cond_scale: float,
    **options: Any,
) -> Tensor:  # fmt: skip
    """Of comfy/samplers.py: denoised latents, with what ComfyUI gives each function in between."""
    model, options = Base(patcher), {**patcher.model_options, **options}
    options["transformer_options"] = {"wrappers": {"apply_model": patcher.wrappers}}
    uncond = None if cond_scale == 1 else uncond
    of_cond, of_uncond = calc_cond_batch(model, [cond, uncond], x, timestep, options)
    result = of_uncond + (of_cond - of_uncond) * cond_scale
    for function in options.get("sampler_post_cfg_function", []):
        result = function(
            {
                "denoised": result, "cond": cond, "uncond": uncond, "cond_scale": cond_scale,
                "model": model, "uncond_denoised": of_uncond, "cond_denoised": of_cond,
                "sigma": timestep, "model_options": options, "input": x,
            }
        )  # fmt: skip
    return result


def in_context_windows(
    windows: Windows, *, causal_window_fix: bool = False
) -> Callable[..., list[Tensor]]:
    """As `IndexListContextHandler.execute` of comfy/context_windows.py, blended by our weights."""

    def execute(calc_cond_batch, model, conds, x_in, timestep, model_options):  # noqa: ANN202
        found = [torch.zeros_like(x_in) for _ in conds]
        for start, weights in zip(windows.starts, windows.weights, strict=True):
            frames = list(range(start, start + windows.length))
            window = SimpleNamespace(index_list=frames, dim=2)
            if causal_window_fix and start > 0:
                window.causal_anchor_index = start - 1
                frames = [start - 1, *frames]
            model_options["transformer_options"]["context_window"] = window
            parts = calc_cond_batch(model, conds, x_in[:, :, frames], timestep, model_options)
            for whole, part in zip(found, parts, strict=True):
                whole[:, :, window.index_list] += (
                    weights[:, None, None] * part[:, :, -windows.length :]
                )
        return found

    return execute


@pytest.fixture
def comfy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules with what the nodes import."""

    def load_lora_for_models(model, clip, lora, strength_model, strength_clip):  # noqa: ANN202
        model = model.clone()
        model.lora = (lora, strength_model)
        return model, None

    cpu = torch.device("cpu")
    parts: dict[str, dict[str, Any]] = {
        "comfy": {},
        "comfy.model_management": {
            "get_torch_device": lambda: cpu, "unet_offload_device": lambda: cpu,
        },
        "comfy.model_patcher": {"ModelPatcher": Patcher},
        "comfy.patcher_extension": {"WrappersMP": SimpleNamespace(APPLY_MODEL="apply_model")},
        "comfy.samplers": {"calc_cond_batch": calc_cond_batch},
        "comfy.sd": {"load_lora_for_models": load_lora_for_models},
    }  # fmt: skip
    for name, contents in parts.items():
        module = ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], own, module)
