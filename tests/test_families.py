"""What data and sampling know of a family of backbones, and what files say of it."""

from dataclasses import asdict

import pytest
import torch

from datamodules.generation_requests import RequestsSpec, make_requests
from datamodules.layer_requests import LayerRequestsDataModule
from musicinfuser.clip_size import GEOMETRIES
from musicinfuser.diffusion.sampler import linear_quadratic_sigmas
from musicinfuser.generation import SamplingSpec
from musicinfuser.generation.clip import audio_seconds
from musicinfuser.networks.backbone import BackboneSpec, backbone_config
from musicinfuser.networks.backbones import FAMILIES, families_of
from tests.conftest import ROOT

WAN = GEOMETRIES["wan"]


def test_every_family_has_a_geometry_and_a_network():
    assert FAMILIES.keys() == GEOMETRIES.keys()


def test_windows_of_wan():
    spec = SamplingSpec(50, 6.0, fps=16.0, window_frames=81, window_overlap_frames=40, family="wan")
    windows = spec.windows(161)
    assert (windows.num_frames, windows.length, windows.overlap) == (41, 21, 10)
    assert windows.starts == (0, 10, 20)
    # 20 latent frames of a quarter of a second, then the sound of a clip of 81 frames.
    assert audio_seconds(161, fps=16.0, windows=windows) == pytest.approx(5 + 5.2)
    assert spec.windows(81) is None
    with pytest.raises(ValueError, match=r"window_frames is 75; use 4k \+ 1 from 5 on, e\.g\. 49"):
        SamplingSpec(50, 6.0, window_frames=75, window_overlap_frames=36, family="wan")
    with pytest.raises(ValueError, match="windows of 81 frames can share 4k frames, 4 to 80"):
        SamplingSpec(50, 6.0, window_frames=81, window_overlap_frames=42, family="wan")
    with pytest.raises(ValueError, match=r"window_frames is 81; use 6k \+ 1"):
        SamplingSpec(50, 6.0, window_frames=81)


def test_noise_levels():
    wan = SamplingSpec(4, 6.0, shift=3.0, window_frames=81, window_overlap_frames=40, family="wan")
    torch.testing.assert_close(wan.noise_levels(), torch.tensor([1, 0.9, 0.75, 0.5, 0]))
    assert FAMILIES["wan"].training_shift(None) == 5.0 and FAMILIES["wan_5b"].training_shift(8) == 8
    mochi = SamplingSpec(64, 6.0)
    assert torch.equal(mochi.noise_levels(), linear_quadratic_sigmas(64))
    assert FAMILIES["mochi"].training_shift(None) == 1.0
    with pytest.raises(ValueError, match=r"shift is 3, but Mochi's noise levels are bent"):
        SamplingSpec(64, 6.0, shift=3.0)
    with pytest.raises(ValueError, match="solver is unipc, but mochi is sampled by Euler's meth"):
        SamplingSpec(64, 6.0, solver="unipc")
    with pytest.raises(ValueError, match="sampling.solver"):
        SamplingSpec(64, 6.0, solver="heun")


def test_files_name_the_family_where_it_is_not_mochi():
    plain = SamplingSpec(64, 6.0)
    assert plain.stored().keys() == asdict(plain).keys() - {"family", "shift", "solver"}
    assert SamplingSpec(64, 6.0, family="wan", window_overlap_frames=36).stored()["family"] == "wan"


def test_requests_have_sizes_that_the_family_takes(tmp_path):
    song = tmp_path / "song.wav"
    song.touch()
    spec = RequestsSpec(music=[str(song)], prompts=["a"], num_frames=81)
    size = {"num_frames": 7, "height": 32, "width": 48}
    (request,) = make_requests(spec, **size, fps=16.0, geometry=WAN)
    assert request.num_frames == 81
    with pytest.raises(ValueError, match=r"num_frames is 81; Mochi takes 6k \+ 1 frames"):
        make_requests(spec, **size)
    listed = tmp_path / "list.csv"
    listed.write_text("track,prompt,seed,num_frames\nsong.wav,a,0,80\n")
    with pytest.raises(ValueError, match=r"line 2: num_frames is 80; Wan takes 4k \+ 1 frames"):
        make_requests(RequestsSpec(requests=str(listed)), **size | {"num_frames": 81}, geometry=WAN)


def test_layer_requests_have_sizes_that_the_family_takes(tmp_path):
    size = {"num_frames": 33, "height": 32, "width": 32}
    asked = {"output_dir": str(tmp_path), "prompts": ["a"], "seeds": [0]} | size
    LayerRequestsDataModule(**asked, family="wan")
    with pytest.raises(ValueError, match=r"num_frames is 33; Mochi takes 6k \+ 1 frames"):
        LayerRequestsDataModule(**asked)


def test_wans_form_on_mochis_latents_is_known_by_their_channels():
    path = str(ROOT / "configs" / "small_world" / "parts" / "wan.json")
    config = backbone_config(BackboneSpec(config=path, family="wan_on_mochi"))
    assert [kind.family for kind in families_of(config)] == ["wan_on_mochi"]
    ours, mochi = GEOMETRIES["wan_on_mochi"], GEOMETRIES["mochi"]
    assert (ours.temporal, ours.spatial, ours.fps) == (mochi.temporal, mochi.spatial, mochi.fps)
    with pytest.raises(ValueError, match="set model.backbone.family to wan_on_mochi"):
        backbone_config(BackboneSpec(config=path, family="wan"))
