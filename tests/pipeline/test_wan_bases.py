"""Which bases a pipeline of Wan takes, and in which types it holds them."""

import json
import shutil

import pytest
import torch
from transformers import T5EncoderModel

from musicinfuser import MusicInfuserPipeline, MusicInfuserWanPipeline
from musicinfuser.errors import UserError
from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec
from tests import small_wan


@pytest.mark.parametrize(
    "changes",
    [{"in_channels": 36}, {"image_dim": 1280}, {"_class_name": "WanVACETransformer3DModel"}],
)
def test_a_base_that_cannot_be_adapted_is_refused_before_it_is_read(wan_parts, tmp_path, changes):
    folder = tmp_path / "base"
    shutil.copytree(wan_parts, folder)
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    for file in folder.glob("*/*.safetensors"):
        file.unlink()
    for kind in (MusicInfuserWanPipeline, MusicInfuserPipeline):
        with pytest.raises(UserError) as refused:
            kind.from_pretrained(folder)
        said = str(refused.value)
        if kind is MusicInfuserWanPipeline:
            assert f"of {folder} (in_channels" in said and "Wan2.1-T2V-14B-Diffusers" in said
            assert "wan_on_mochi" not in said


def test_parts_of_another_base_are_refused(tmp_path, small_parts):
    t5 = T5EncoderModel.from_pretrained(small_parts / "text_encoder")
    parts_5b = small_wan.write_parts(tmp_path / "small-5b", is_5b=True)
    for parts, message in (
        ({"vae": small_wan.vae()}, "the VAE makes latents of 16 channels, but wan_5b takes 48"),
        ({"text_encoder": t5}, "is a t5, but wan_5b takes umt5"),
    ):
        with pytest.raises(UserError, match=message):
            MusicInfuserWanPipeline.from_pretrained(parts_5b, **parts)


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": torch.bfloat16},
        {"torch_dtype": torch.bfloat16},
        {"dtype": {"default": torch.bfloat16}},
    ],
)
def test_the_vae_stays_in_fp32_however_a_type_is_asked_for(wan_parts, options):
    pipeline = MusicInfuserWanPipeline.from_pretrained(wan_parts, **options)
    assert pipeline.vae.dtype == torch.float32
    assert pipeline.transformer.patch_embedding.weight.dtype == torch.bfloat16
    assert pipeline.text_encoder.dtype == torch.bfloat16


def test_a_model_tells_its_adapter_a_rate_that_is_not_the_family_s(wan_parts):
    def rate(**options):
        backbone = build_backbone(BackboneSpec(pretrained=str(wan_parts), family="wan"))
        model = MusicModel(backbone, layers=[0], zica=ZicaSpec(), lora=None, **options)
        return model.adapter.config.get("fps"), model.audio_projector.latent_times.frame_seconds

    assert rate(fps=20.0) == (20.0, 1 / 20)
    assert rate(fps=16.0) == rate() == (None, 1 / 16)
