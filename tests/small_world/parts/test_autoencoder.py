import json
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLMochi

from musicinfuser.networks.encoders import Encoders, EncodersSpec
from small_world.data.frames import FrameBatch
from small_world.parts.autoencoder import (
    AutoencoderModule,
    moving_pixels,
    psnr,
    to_pixels,
)
from tests.conftest import ROOT
from tests.small_world.parts.part_training import train_part, vae_arguments

CONFIG = f"{ROOT}/configs/small_world/parts/vae.json"
OPTIMIZER = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.0)


def make_module(**options) -> AutoencoderModule:
    settings = {"config": CONFIG, "export_dir": "nowhere"} | options
    module = AutoencoderModule(OPTIMIZER, **settings)
    module.configure_model()
    return module


def test_trains_and_exports_what_the_encoders_load(media: Path, tmp_path: Path) -> None:
    cli = train_part(
        "vae", tmp_path, "--trainer.log_every_n_steps=1", *vae_arguments(media), steps=4
    )
    assert cli.trainer.callback_metrics["val/psnr"] > 0

    # What it wrote loads where every VAE is loaded, with its own statistics.
    parts = Encoders(EncodersSpec(mochi=f"{tmp_path}/export", dtype="float32"))
    trained = cli.model.vae.state_dict()
    assert all(torch.equal(v, trained[k]) for k, v in parts.vae.state_dict().items())
    samples, generator = [], torch.Generator().manual_seed(0)
    # As many clips of each source.
    aist, youtube = cli.datamodule.training_clips
    assert (len(aist), len(youtube)) == (5, 3)
    for clip in [*aist, *youtube]:
        posterior = parts.vae.encode(to_pixels(clip[None])).latent_dist
        samples += [posterior.sample(generator) for _ in range(40)]
    latents = torch.cat(samples)
    normal = (latents - parts.latents_mean.view(1, -1, 1, 1, 1)) / parts.latents_std.view(
        1, -1, 1, 1, 1
    )
    assert normal.mean(dim=(0, 2, 3, 4)).abs().max() < 0.05
    assert normal.std(dim=(0, 2, 3, 4)).sub(1).abs().max() < 0.05


def test_loss_recomputed() -> None:
    module = make_module()
    frames = torch.randint(0, 256, (2, 7, 32, 32, 3), dtype=torch.uint8)
    logged = {}
    module.log_dict = lambda values, **_: logged.update(values)
    loss = module.training_step(FrameBatch((5, 6), frames), 0)
    pixels = frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    posterior = module.vae.encode(pixels).latent_dist
    latents = posterior.mean + posterior.std * module._noise(
        FrameBatch((5, 6), frames), posterior.mean.shape
    )
    error = module.vae.decode(latents).sample - pixels
    weight = 1 + 5.0 * moving_pixels(pixels)
    kl = -0.5 * (1 + posterior.logvar - posterior.mean**2 - posterior.logvar.exp()).mean()
    reconstruction = (weight * (error.abs() + error**2)).mean()
    temporal = (weight[:, :, 1:] * error.diff(dim=2).abs()).mean()
    torch.testing.assert_close(loss, reconstruction + 2.0 * temporal + 3e-4 * kl)
    torch.testing.assert_close(logged["train/kl"], kl)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.vae.parameters())


def test_noise_belongs_to_the_sample() -> None:
    module = make_module()
    shape = torch.Size([2, 12, 2, 4, 4])
    frames = torch.zeros(2, 7, 32, 32, 3, dtype=torch.uint8)
    one = module._noise(FrameBatch((1, 2), frames), shape)
    other = module._noise(FrameBatch((2, 1), frames), shape)
    assert torch.equal(one, other.flip(0))
    assert not torch.equal(one[0], one[1])


def test_weights_follow_the_seed(tmp_path: Path) -> None:
    torch.manual_seed(1)
    one = make_module(seed=7).vae.state_dict()
    torch.manual_seed(2)
    again, other = make_module(seed=7).vae.state_dict(), make_module(seed=8).vae.state_dict()
    assert all(torch.equal(one[k], again[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)
    make_module(seed=8).vae.save_pretrained(tmp_path / "vae")
    warm = make_module(config=None, pretrained=str(tmp_path)).vae
    assert isinstance(warm, AutoencoderKLMochi)
    assert all(torch.equal(other[k], v) for k, v in warm.state_dict().items())
    assert all(p.requires_grad for p in warm.parameters())


def test_exactly_one_source() -> None:
    for options in ({"config": None}, {"pretrained": "somewhere"}):
        with pytest.raises(ValueError, match="exactly one of `config` and `pretrained`"):
            make_module(**options)


def test_pixels_motion_and_psnr() -> None:
    frames = torch.zeros(1, 3, 5, 5, 3, dtype=torch.uint8)
    frames[0, 2, 2, 2, 1] = 255
    pixels = to_pixels(frames)
    assert (pixels.shape, pixels.min(), pixels.max()) == ((1, 3, 3, 5, 5), -1, 1)
    moving = moving_pixels(pixels)
    assert moving[0, 0, :2].sum() == 0
    assert moving[0, 0, 2, 1:4, 1:4].eq(1).all() and moving[0, 0, 2].sum() == 9
    noisy = pixels + 0.02
    assert psnr(noisy, pixels).item() == pytest.approx(40.0, abs=1e-3)  # 0.01 of the range


def test_the_config_is_six_by_eight_by_eight() -> None:
    config = json.loads((ROOT / "configs" / "small_world" / "parts" / "vae.json").read_text())
    vae = AutoencoderKLMochi.from_config(config)
    assert (vae.temporal_compression_ratio, vae.spatial_compression_ratio) == (6, 8)
    assert vae.config.latent_channels == 12
