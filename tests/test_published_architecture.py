"""What `configs/base.yaml` builds, held against the published sizes alone."""

import torch

from lightning_modules import MusicInfuserModule
from lightning_modules.cli import MusicInfuserCLI
from musicinfuser.networks.backbones.mochi import MOCHI_CONFIG
from tests.conftest import ROOT


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of MusicInfuser on Mochi, from the published sizes alone."""
    width, text, t5, depth, rank = 3072, 1536, 4096, 48, 64
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, rows: int, columns: int, *, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (rows, columns)
        if bias:
            shapes[f"{name}.bias"] = (rows,)

    def adapted(name: str, rows: int, columns: int, *, bias: bool) -> None:
        linear(f"{name}.base_layer", rows, columns, bias=bias)
        shapes[f"{name}.lora_A.default.weight"] = (rank, columns)
        shapes[f"{name}.lora_B.default.weight"] = (rows, rank)

    shapes["backbone.pos_frequencies"] = (3, 24, 64)
    shapes["backbone.patch_embed.proj.weight"] = (width, 12, 2, 2)
    shapes["backbone.patch_embed.proj.bias"] = (width,)
    linear("backbone.time_embed.timestep_embedder.linear_1", width, 256)
    linear("backbone.time_embed.timestep_embedder.linear_2", width, width)
    linear("backbone.time_embed.pooler.to_kv", 2 * t5, t5)
    linear("backbone.time_embed.pooler.to_q", t5, t5)
    linear("backbone.time_embed.pooler.to_out", width, t5)
    linear("backbone.time_embed.caption_proj", text, t5)
    for i in range(depth):
        block, is_last = f"backbone.transformer_blocks.{i}", i == depth - 1
        linear(f"{block}.norm1.linear", 4 * width, width)
        if is_last:
            linear(f"{block}.norm1_context.linear_1", text, width)
        else:
            linear(f"{block}.norm1_context.linear", 4 * text, width)
        for norm in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            shapes[f"{block}.attn1.{norm}.weight"] = (128,)
        for name in ("to_q", "to_k", "to_v"):
            adapted(f"{block}.attn1.{name}", width, width, bias=False)
        for name in ("add_q_proj", "add_k_proj", "add_v_proj"):
            adapted(f"{block}.attn1.{name}", width, text, bias=False)
        adapted(f"{block}.attn1.to_out.0", width, width, bias=True)
        linear(f"{block}.ff.net.0.proj", 2 * 8192, width, bias=False)
        linear(f"{block}.ff.net.2", width, 8192, bias=False)
        if not is_last:
            adapted(f"{block}.attn1.to_add_out", text, width, bias=True)
            linear(f"{block}.ff_context.net.0.proj", 2 * 4096, text, bias=False)
            linear(f"{block}.ff_context.net.2", text, 4096, bias=False)
    linear("backbone.norm_out.linear", 2 * width, width)
    linear("backbone.proj_out", 2 * 2 * 12, width)
    for layer in (6, 7, 8, 9, 10, 21, 34, 35, 36, 38, 39, 43, 44, 45, 46, 47):
        for name in ("to_q", "to_k", "to_v", "to_out"):
            linear(f"zica.{layer}.{name}", width, width)
    linear("audio_projector.projection.0", width, 768)
    linear("audio_projector.projection.2", width, width)
    return shapes


def test_base_builds_the_published_architecture_on_the_meta_device() -> None:
    cli = MusicInfuserCLI(
        ["--config", f"{ROOT}/configs/base.yaml", "--trainer.accelerator=cpu"], run=False
    )
    module = cli.model
    assert isinstance(module, MusicInfuserModule)
    with torch.device("meta"):
        module.configure_model()
    model = module.adapted
    found = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert found == published_shapes()
    frozen = {n: p for n, p in model.named_parameters() if not p.requires_grad}
    assert sum(p.numel() for p in frozen.values()) == 10_027_677_744
    assert {p.dtype for p in frozen.values()} == {torch.bfloat16}
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert trained.keys() == {
        n for n in published_shapes() if "lora" in n or not n.startswith("backbone.")
    }
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert sum(p.numel() for n, p in trained.items() if "lora" in n) == 131_825_664
    assert sum(p.numel() for p in model.zica.parameters()) == 604_176_384
    assert model.backbone.config.items() >= MOCHI_CONFIG.items()
