"""The model of a profile is the one that the command line builds."""

from dataclasses import asdict, is_dataclass

import pytest
import torch

from benchmarks.profiles import CONFIGS, build_on_meta, model_options, read_profile
from benchmarks.random_model import SPREAD, random_clip, random_model
from lightning_modules import MusicInfuserModule
from lightning_modules.cli import MusicInfuserCLI
from musicinfuser.setting_differences import laid_over
from tests.conftest import ROOT

PROFILES = sorted(path.stem for path in (CONFIGS / "profiles").glob("*.yaml"))


def command_line(profiles: list[str]) -> MusicInfuserCLI:
    files = [ROOT / "configs" / "base.yaml"]
    files += [ROOT / "configs" / "profiles" / f"{name}.yaml" for name in profiles]
    for package in ("torchao", "bitsandbytes"):
        if any(package in file.read_text() for file in files[1:]):
            pytest.importorskip(package)
    return MusicInfuserCLI([f"--config={f}" for f in files] + ["--trainer.accelerator=cpu"],
                           run=False)  # fmt: skip


@pytest.mark.parametrize("profiles", [[], *([name] for name in PROFILES)])
def test_options_are_those_of_the_command_line(profiles: list[str]) -> None:
    cli, config = command_line(profiles), read_profile("+".join(profiles) or "base")
    assert str(cli.config.trainer.precision) == config["trainer"]["precision"]
    init_args = cli.config.model.init_args.as_dict()
    for name, value in model_options(config).items():
        told = asdict(value) if is_dataclass(value) else value
        assert told == init_args[name], name


def test_the_model_is_that_of_the_command_line() -> None:
    module, config = command_line(["24gb"]).model, read_profile("24gb")
    assert isinstance(module, MusicInfuserModule)
    with torch.device("meta"):
        module.configure_model()
    ours = build_on_meta(config)
    for name in ("memory", "layers", "lora"):
        assert getattr(ours, name) == getattr(module.adapted, name)
    assert len(ours.streamed.parameters()) == len(module.adapted.streamed.parameters()) > 0
    shapes = {name: (p.shape, p.dtype, p.requires_grad) for name, p in ours.named_parameters()}
    assert shapes == {
        name: (p.shape, p.dtype, p.requires_grad) for name, p in module.adapted.named_parameters()
    }


def test_overlays_replace_values_and_merge_mappings() -> None:
    below = {"a": {"b": 1, "c": [1, 2]}, "d": {"e": 1}}
    assert laid_over(below, {"a": {"c": [3]}, "d": None}) == {"a": {"b": 1, "c": [3]}, "d": None}
    assert below["a"]["c"] == [1, 2]


def test_an_unknown_profile_is_named() -> None:
    with pytest.raises(ValueError, match="7gb is no profile"):
        read_profile("7gb")


def test_random_weights_are_nowhere_zero() -> None:
    device = torch.device("cpu")
    model = random_model(read_profile(), device, num_layers=3, size="small", compile_blocks=False)
    assert model.layers == (0,)
    for name, parameter in model.named_parameters():
        is_norm = parameter.dim() == 1 and name.endswith(".weight")
        if is_norm:
            assert (parameter == 1).all(), name
        elif parameter.numel() > 1000:
            assert parameter.float().std().item() == pytest.approx(SPREAD, rel=0.1), name
    adapters = {n for n, p in model.named_parameters() if p.requires_grad}
    assert any("lora_B" in n for n in adapters) and "zica.0.to_out.weight" in adapters
    again = random_model(read_profile(), device, num_layers=3, size="small", compile_blocks=False)
    assert all(map(torch.equal, model.parameters(), again.parameters()))


def test_a_clip_has_the_sizes_of_an_encoded_one() -> None:
    clip = random_clip(73, 480, 848, text_tokens=32, text_width=8, audio_width=768)
    assert clip.latent_mean.shape == clip.latent_logvar.shape == (1, 12, 13, 60, 106)
    assert (clip.text.shape, clip.audio.shape) == ((1, 32, 8), (1, 124, 768))
