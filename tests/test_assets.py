"""The trained small parts that ship."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLMochi, MochiPipeline, MochiTransformer3DModel
from torch import nn
from transformers import T5EncoderModel, Wav2Vec2BertModel

from datamodules import AISTDataset, YouTubeDataset
from datamodules.batch import collate
from datamodules.cached_clips import ValidationClips
from datamodules.clips import RawClip
from musicinfuser.media.latents import read_headers
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from small_world.data.music_dataset import Excerpts, compose_pieces
from small_world.generator import make_small_world
from small_world.parts import TextToVideoModule
from small_world.parts.autoencoder import psnr
from tests.conftest import ROOT
from tests.datamodules.conftest import cut

CPU = torch.device("cpu")
NUM_STUDIO = 12
FOLDER = ROOT / "assets" / "small-mochi"


@pytest.fixture(scope="module")
def encoders() -> Encoders:
    spec = EncodersSpec(
        mochi=str(FOLDER), audio=str(FOLDER), audio_subfolder="audio_encoder", dtype="float32"
    )
    return Encoders(spec)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[torch.Tensor]:
    """Clips of a world that no part was trained on."""
    root = tmp_path_factory.mktemp("world")
    make_small_world(
        root, seed=77, num_aist=NUM_STUDIO // 2, num_held_out=NUM_STUDIO // 2, num_youtube=10,
        num_silent=0, num_without_audio=0, basic_beats=8, advanced_beats=8, youtube_seconds=4.0,
        audio_rate_hz=8000, show_progress=False,
    )  # fmt: skip
    size = {"height": 64, "width": 64}
    datasets = (
        cut(AISTDataset, root / "aist", cameras=None, **size),
        cut(YouTubeDataset, root / "youtube", **size),
    )
    read = [dataset[i] for dataset in datasets for i in range(len(dataset))]
    return [clip.frames for clip in read if isinstance(clip, RawClip)]


def test_the_folder_is_small() -> None:
    assert sum(p.stat().st_size for p in FOLDER.rglob("*") if p.is_file()) <= 24 * 2**20
    names = {"README.md", "LICENSE", "model_index.json", "vae", "audio_encoder", "transformer"}
    names |= {"text_encoder", "tokenizer", "scheduler"}
    assert names == {p.name for p in FOLDER.iterdir()}


def test_diffusers_reads_the_folder() -> None:
    pipeline = MochiPipeline.from_pretrained(FOLDER)
    assert isinstance(pipeline.transformer, MochiTransformer3DModel)
    assert isinstance(pipeline.vae, AutoencoderKLMochi)
    assert isinstance(pipeline.text_encoder, T5EncoderModel)
    assert isinstance(
        Wav2Vec2BertModel.from_pretrained(FOLDER, subfolder="audio_encoder"), nn.Module
    )


def test_the_base_knows_its_dancers_and_reads_its_prompts() -> None:
    """On the held-out clips that ship, with their prompts and without."""
    plan = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.0)
    module = TextToVideoModule(str(FOLDER), "", plan)
    module.configure_model()
    cache = str(ROOT / "assets" / "small-cache")
    held_out = [h for h in read_headers(cache) if h.split == "held_out"]
    clips = ValidationClips(held_out, cache_dir=cache)
    batch = collate([clips[i] for i in range(len(clips))])
    sigma = torch.full((len(batch),), 0.7)
    with torch.no_grad():
        told = module.velocity_losses(batch, sigma, purpose="test").mean()
        batch = replace(batch, captions=("",) * len(batch))
        untold = module.velocity_losses(batch, sigma, purpose="test").mean()
    print(f"loss at 0.7: {told:.3f} with the prompt, {untold:.3f} without")
    # Normalised latents and noise have variance 1 each, so knowing nothing costs 2.
    assert told < 0.4
    assert untold > 1.05 * told


def test_clips_come_back_and_latents_are_normal(
    encoders: Encoders, clips: list[torch.Tensor]
) -> None:
    assert len(clips) >= NUM_STUDIO + 8
    shape, latents, quality = (1, -1, 1, 1, 1), [], []
    for number, frames in enumerate(clips):
        mean, logvar = encoders.encode_video(frames[None], device=CPU)
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(number))
        sample = mean + (0.5 * logvar).exp() * noise
        latents.append(
            (sample - encoders.latents_mean.view(shape)) / encoders.latents_std.view(shape)
        )
        normal = (mean - encoders.latents_mean.view(shape)) / encoders.latents_std.view(shape)
        decoded = encoders.decode_video(normal)
        quality.append(psnr(decoded / 127.5 - 1, frames[None] / 127.5 - 1).item())
    together = torch.cat(latents)
    assert together.mean().abs() < 0.1
    assert together.std().item() == pytest.approx(1.0, abs=0.05)
    # The first are of the studio half of the world; the wild half is harder.
    studio, wild = quality[:NUM_STUDIO], quality[NUM_STUDIO:]
    print(f"PSNR {sum(studio) / NUM_STUDIO:.1f} dB studio, {sum(wild) / len(wild):.1f} dB wild")
    assert sum(studio) / len(studio) >= 28.0
    assert sum(wild) / len(wild) >= 22.0


def test_a_line_through_the_features_finds_the_beat(encoders: Encoders) -> None:
    """Ridge regression from features to the meter, on pieces of which neither heard any."""
    pieces = compose_pieces(40, name="test of the shipped encoder", seed=77)
    excerpts = Excerpts(pieces, num_samples=40_000, seed=77, window=560)
    features, targets = [], []
    for i in range(96):
        _, waveform, meter = excerpts[i]
        features.append(encoders.encode_audio(waveform[None], device=CPU)[0])
        turns = 2 * torch.pi * meter
        targets.append(torch.cat([turns.cos(), turns.sin()], dim=1))
    x, y = torch.stack(features), torch.stack(targets)
    x = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1).double()
    train_x, train_y = x[:64].flatten(0, 1), y[:64].flatten(0, 1).double()
    gram = train_x.T @ train_x + 1e-3 * torch.eye(x.shape[-1], dtype=torch.double)
    predicted = x[64:] @ torch.linalg.solve(gram, train_x.T @ train_y)
    angle = torch.atan2(predicted[..., 3:], predicted[..., :3])
    true = torch.atan2(y[64:, ..., 3:], y[64:, ..., :3])
    turns = ((angle - true) / (2 * torch.pi) + 0.5) % 1 - 0.5
    beat, pair, bar = turns.abs().mean(dim=(0, 1)).tolist()
    assert (beat, pair, bar) < (0.05, 0.05, 0.05)
    assert max(beat, pair, bar) < 0.05


def test_loudness_does_not_matter(encoders: Encoders) -> None:
    waveform = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0)) * 0.1
    louder = encoders.encode_audio(5 * waveform, device=CPU)
    torch.testing.assert_close(
        louder, encoders.encode_audio(waveform, device=CPU), rtol=1e-3, atol=1e-3
    )


def test_card_names_the_commands() -> None:
    card = Path(FOLDER, "README.md").read_text()
    for part in ("vae", "audio_encoder", "text_encoder", "base"):
        config = f"configs/small_world/parts/{part}.yaml"
        assert config in card and (ROOT / config).is_file()
