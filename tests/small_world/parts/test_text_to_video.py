from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import MochiPipeline, WanTransformer3DModel
from torch.nn.functional import pad

from datamodules import DanceDataModule
from datamodules.batch import ClipBatch, collate
from musicinfuser.keyed_random import generator
from musicinfuser.networks.backbone import BackboneSpec
from musicinfuser.networks.backbones.mochi_block import run_block
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from small_world.parts.text_to_video import TextToVideoModule
from tests.conftest import ROOT
from tests.small_world.parts.part_training import base_arguments, train_part

WAN = f"{ROOT}/configs/small_world/parts/wan.json"


@pytest.fixture
def module(small_parts: Path) -> TextToVideoModule:
    module = TextToVideoModule(
        str(small_parts), "nowhere", partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.0)
    )
    module.configure_model()
    return module


@pytest.fixture
def batch(small_cache: Path) -> ClipBatch:
    data = DanceDataModule(
        str(small_cache), num_frames=7, height=32, width=32, ratio={"aist": 1, "youtube": 1},
        batch_size=2, caption_dropout=0.0, base_prompt_probability=0.0, seed=0, num_workers=0,
    )  # fmt: skip
    data.setup("fit")
    return collate([data.training_clips[data.mixture[i]] for i in range(3)])


def test_trains_and_exports_a_pipeline(
    small_parts: Path, small_cache: Path, tmp_path: Path
) -> None:
    cli = train_part("base", tmp_path, *base_arguments(small_parts, small_cache))
    assert {"val/loss", "val/loss_sigma_0.90"} <= cli.trainer.callback_metrics.keys()
    export = tmp_path / "export"
    for name in ("transformer", "text_encoder", "tokenizer", "scheduler", "model_index.json"):
        assert (export / name).exists()
    assert str(small_parts) not in (export / "transformer" / "config.json").read_text()
    (export / "vae").symlink_to(small_parts / "vae")
    pipeline = MochiPipeline.from_pretrained(export)
    trained = cli.model.model.backbone.state_dict()
    start = TextToVideoModule(str(small_parts), "", cli.model.optimization.make_optimizer)
    start.configure_model()
    for name, weight in pipeline.transformer.state_dict().items():
        assert torch.equal(weight, trained[name])
    moved = [
        n for n, w in start.model.backbone.state_dict().items() if not torch.equal(w, trained[n])
    ]
    assert {"pos_frequencies", "proj_out.weight"} <= set(moved)
    text = start.text_encoder.state_dict()
    assert any(not torch.equal(w, text[n]) for n, w in pipeline.text_encoder.state_dict().items())


def test_loss_recomputed(module: TextToVideoModule, batch: ClipBatch, small_parts: Path) -> None:
    logged = {}
    module.log = lambda name, value, **_: logged.update({name: value})
    loss = module.training_step(batch, 0)
    encoders = Encoders(EncodersSpec(mochi=str(small_parts), dtype="float32"))
    expected = []
    for row, index in enumerate(batch.sample_index):

        def draw(purpose: str, shape=batch.latent_mean.shape[1:], index=index) -> torch.Tensor:
            return torch.randn(shape, generator=generator(42, index, purpose))

        sigma = torch.rand((), generator=generator(42, index, "sigma"))
        std = (0.5 * batch.latent_logvar[row]).exp()
        latents = batch.latent_mean[row] + std * draw("training posterior")
        shape = (-1, 1, 1, 1)
        latents = (latents - batch.latents_mean.view(shape)) / batch.latents_std.view(shape)
        noise = draw("training noise")
        (text,) = encoders.encode_captions([batch.captions[row]], device=torch.device("cpu"))
        predicted = module.model(
            ((1 - sigma) * latents + sigma * noise)[None],
            text[None],
            (1 - sigma)[None] * 1000,
            text_lengths=(len(text),),
        )
        expected.append((predicted[0] - (latents - noise)).square().mean())
    torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)
    loss.backward()
    without = {n for n, p in module.named_parameters() if p.grad is None}
    assert without == set()


def test_noise_levels_are_moved_by_the_shift(
    small_parts: Path, batch: ClipBatch, module: TextToVideoModule
) -> None:
    moved = TextToVideoModule(
        str(small_parts), "", module.optimization.make_optimizer, noise_shift=4.0
    )
    seen = {}

    def velocity_losses(batch: ClipBatch, sigma: torch.Tensor, *, purpose: str) -> torch.Tensor:
        seen[purpose] = sigma
        return sigma

    moved.velocity_losses, moved.log = velocity_losses, lambda *_, **__: None
    moved.training_step(batch, 0)
    u = torch.stack(
        [torch.rand((), generator=generator(42, i, "sigma")) for i in batch.sample_index]
    )
    torch.testing.assert_close(seen["training"], 4 * u / (1 + 3 * u))
    with pytest.raises(ValueError, match="noise_shift is 0"):
        TextToVideoModule(str(small_parts), "", module.optimization.make_optimizer, noise_shift=0)


def test_a_text_encoder_that_is_kept_gets_no_gradient(
    small_parts: Path, batch: ClipBatch, module: TextToVideoModule
) -> None:
    kept = TextToVideoModule(
        str(small_parts), "", module.optimization.make_optimizer, train_text_encoder=False
    )
    kept.configure_model()
    kept.log = lambda *_, **__: None
    kept.training_step(batch, 0).backward()
    assert {n.split(".")[0] for n, p in kept.named_parameters() if p.grad is not None} == {"model"}


@pytest.mark.slow
def test_compiled_blocks_give_the_same_loss(
    small_parts: Path, batch: ClipBatch, module: TextToVideoModule
) -> None:
    compiled = TextToVideoModule(
        str(small_parts), "", module.optimization.make_optimizer, compile_blocks=True
    )
    compiled.configure_model()
    compiled.log = module.log = lambda *_, **__: None
    with torch.no_grad():
        loss, expected = compiled.training_step(batch, 0), module.training_step(batch, 0)
    blocks = compiled.model.backbone.transformer_blocks
    assert all(block.run is blocks[0].run is not run_block for block in blocks)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    assert compiled.state_dict().keys() == module.state_dict().keys()


def test_a_base_of_wans_form_trains_on_the_same_clips(
    small_parts: Path, small_cache: Path, tmp_path: Path
) -> None:
    cli = train_part(
        "base", tmp_path, *base_arguments(small_parts, small_cache),
        "--model.init_args.train_text_encoder=false", f"--model.init_args.backbone.config={WAN}",
        overlay="base_wan",
    )  # fmt: skip
    assert {"val/loss", "val/loss_sigma_0.90"} <= cli.trainer.callback_metrics.keys()
    export = tmp_path / "export"
    assert not (export / "model_index.json").exists()
    read = WanTransformer3DModel.from_pretrained(export / "transformer").state_dict()
    trained = cli.model.model.backbone.state_dict()
    assert all(torch.equal(weight, trained[name]) for name, weight in read.items())


def test_loss_of_wans_form_recomputed_by_diffusers(
    small_parts: Path, batch: ClipBatch, module: TextToVideoModule
) -> None:
    optimizer = module.optimization.make_optimizer
    spec = BackboneSpec(config=WAN, family="wan_on_mochi", dtype="float32")
    ours = TextToVideoModule(
        str(small_parts), "", optimizer, train_text_encoder=False, backbone=spec
    )
    ours.configure_model()
    theirs = WanTransformer3DModel.from_config(ours.model.backbone.config)
    theirs.load_state_dict(ours.model.backbone.state_dict())
    sigma = torch.tensor([0.2, 0.5, 0.9])
    batch = replace(batch, captions=("a", "", "a dancer in red"))
    found = ours.velocity_losses(batch, sigma, purpose="training")

    encoders = Encoders(EncodersSpec(mochi=str(small_parts), dtype="float32"))
    for row, index in enumerate(batch.sample_index):
        shape = batch.latent_mean.shape[1:]
        noise, draw = (
            torch.randn(shape, generator=generator(42, index, f"training {purpose}"))
            for purpose in ("noise", "posterior")
        )
        latents = batch.latent_mean[row] + (0.5 * batch.latent_logvar[row]).exp() * draw
        statistics = (batch.latents_mean, batch.latents_std)
        mean, std = (values.view(-1, 1, 1, 1) for values in statistics)
        latents = (latents - mean) / std
        text = torch.zeros(0, 64)
        if batch.captions[row]:
            (text,) = encoders.encode_captions([batch.captions[row]], device=torch.device("cpu"))
        # Wan predicts what leads from data to noise, of times that rise with noise.
        (away,) = theirs(
            ((1 - sigma[row]) * latents + sigma[row] * noise)[None],
            sigma[row][None] * 1000,
            pad(text, (0, 0, 0, 256 - len(text)))[None],
            return_dict=False,
        )
        expected = (away[0] - (noise - latents)).square().mean()
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)
    found.mean().backward()
    assert {n for n, p in ours.model.named_parameters() if p.grad is None} == set()
    with pytest.raises(ValueError, match="dtype is bfloat16, but all its weights are trained"):
        half = BackboneSpec(config=WAN, family="wan_on_mochi")
        TextToVideoModule(str(small_parts), "", optimizer, backbone=half)
