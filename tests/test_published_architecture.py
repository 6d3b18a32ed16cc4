"""What `configs/base.yaml` builds, held against the published sizes alone."""

import torch

from lightning_modules import MusicInfuserModule
from lightning_modules.cli import MusicInfuserCLI
from musicinfuser.networks.backbones.mochi import MOCHI_CONFIG
from tests import published_mochi
from tests.conftest import ROOT


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of MusicInfuser on Mochi, from the published sizes alone."""
    width, rank = 3072, 64
    shapes: dict[str, tuple[int, ...]] = {}
    adapted = set(published_mochi.lora_modules())
    for name, shape in published_mochi.shapes().items():
        module, parameter = name.rsplit(".", 1) if "." in name else ("", name)
        if module not in adapted:
            shapes[f"backbone.{name}"] = shape
            continue
        shapes[f"backbone.{module}.base_layer.{parameter}"] = shape
        if parameter == "weight":
            rows, columns = shape
            shapes[f"backbone.{module}.lora_A.default.weight"] = (rank, columns)
            shapes[f"backbone.{module}.lora_B.default.weight"] = (rows, rank)
    for layer in (6, 7, 8, 9, 10, 21, 34, 35, 36, 38, 39, 43, 44, 45, 46, 47):
        for name in ("to_q", "to_k", "to_v", "to_out"):
            shapes[f"zica.{layer}.{name}.weight"] = (width, width)
            shapes[f"zica.{layer}.{name}.bias"] = (width,)
    for layer, columns in ((0, 768), (2, width)):
        shapes[f"audio_projector.projection.{layer}.weight"] = (width, columns)
        shapes[f"audio_projector.projection.{layer}.bias"] = (width,)
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
