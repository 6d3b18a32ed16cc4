"""Songs on a CUDA device: ``pytest -m gpu``."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from musicinfuser.diffusion.windows import Windows
from musicinfuser.generation import SamplingSpec, generate, sample_latents
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec
from tests.test_predict import write_tone

pytestmark = pytest.mark.gpu
SAMPLING = SamplingSpec(2, 3.0, window_frames=13, window_overlap_frames=6)


@pytest.fixture
def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.fail("these tests need a CUDA device")
    return torch.device("cuda")


@pytest.fixture
def parts(small_parts: Path, cuda: torch.device) -> tuple[MusicModel, Encoders]:
    folder = str(small_parts)
    backbone = build_backbone(BackboneSpec(pretrained=folder, dtype="float32"))
    model = MusicModel(
        backbone, layers=[0, 2], zica=ZicaSpec(num_heads=4), lora=None, audio_width=96
    )
    spec = EncodersSpec(
        mochi=folder, audio=folder, audio_subfolder="audio_encoder", dtype="float32"
    )
    return model.to(cuda), Encoders(spec)


def test_memory_does_not_grow_with_the_song(parts, cuda, tmp_path: Path) -> None:
    model, encoders = parts
    track = write_tone(tmp_path / "song.wav", seconds=11.0)
    peaks = []
    for num_frames in (61, 61, 301):
        request = GenerationRequest(str(track), "a dancer", 0, num_frames, 64, 96, in_windows=True)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        clip = generate(model, encoders, request, SAMPLING, device=cuda)
        assert sum(len(part) for part in [clip.frames, *clip.more_frames]) == num_frames
        peaks.append(torch.cuda.max_memory_allocated())
    # The first also set libraries up. A latent of the longer song takes 74 kB.
    assert peaks[2] <= peaks[1] + 50_000


def test_one_window_is_one_pass_to_the_bit(parts, cuda) -> None:
    model, _ = parts
    text = torch.randn(5, model.backbone.config.text_embed_dim)
    audio = torch.randn(1, 20, 96, device=cuda)
    request = GenerationRequest("a.wav", "p", 0, 31, 64, 96)

    def latents(heard, windows):
        return sample_latents(
            model, text=text, negative=text[:0], audio=heard, request=request, windows=windows,
            sampling=replace(SAMPLING, music_guidance_scale=2.0), device=cuda,
        )  # fmt: skip

    one_pass, one_window = latents(audio, None), latents({0: audio.cpu()}, Windows(6, 6, 1))
    assert one_window.device.type == "cpu" and torch.equal(one_window, one_pass.cpu())
