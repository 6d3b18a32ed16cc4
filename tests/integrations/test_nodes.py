"""The nodes without ComfyUI: in a stand-in that calls blocks as ComfyUI does, and what they refuse.

`test_in_comfyui.py` has the same in ComfyUI's own classes.
"""

import copy
import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from musicinfuser.adapters.comfyui import comfyui_lora
from musicinfuser.adapters.folder import read_folder
from musicinfuser.diffusion.windows import Windows
from musicinfuser.errors import UserError
from musicinfuser.generation import Conditions, SamplingSpec, denoise
from musicinfuser.media.audio import clip_audio_seconds, resample
from musicinfuser.networks.zica import ZicaSpec
from musicinfuser.pipelines.conditions import waveforms
from tests.audio_encoders import write_audio_encoder
from tests.integrations.conftest import CHANNELS, NUM_LATENT
from tests.integrations.stand_in import (
    Patcher,
    in_context_windows,
    loaded,
    sampling_function,
    velocity,
)

FPS = {"mochi": 30, "wan": 16, "wan_5b": 24}


@pytest.fixture
def made(comfy, nodes, base, make_adapter, song, request) -> SimpleNamespace:
    """A model and an adapter for it, and ``apply`` with the music from 0.25 s on."""
    family = getattr(request, "param", "wan")
    given, bare = make_adapter(family), loaded(base(family), family)
    (adapter,) = nodes.LoadMusicAdapter().load(given.folder, given.encoder)
    stream = torch.Generator().manual_seed(1)
    latents = torch.randn(2, CHANNELS[family], NUM_LATENT, 4, 6, generator=stream)

    def apply(music: float = 1.0, lora: float = 0.0, **changes: Any) -> Patcher:
        options = {
            "model": bare, "adapter": adapter, "latent": {"samples": latents},
            "start_seconds": 0.25, "music_strength": music, "lora_strength": lora, "audio": song,
        }  # fmt: skip
        model, fps = nodes.ApplyMusicAdapter().apply(**(options | changes))
        assert fps == adapter.zica.fps == FPS[family]
        return model

    return SimpleNamespace(
        given=given, bare=bare, adapter=adapter, latents=latents, apply=apply,
        sigma=torch.tensor([0.93, 0.31]),
    )  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("made", CHANNELS, indirect=True)
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_it_is_our_model(made, strength, clip, song) -> None:
    ours, x, sigma = made.given.model, made.latents, made.sigma
    # The features by themselves: the sound of 0.25 s on, as long as such a clip's.
    sound, rate = song["waveform"][0].mean(dim=0)[None], song["sample_rate"]
    found = made.adapter.music(song, NUM_LATENT, 0.25)(0, NUM_LATENT)
    kind = ours.kind
    num_frames = (NUM_LATENT - 1) * kind.geometry.temporal + 1
    sound = resample(sound[0], from_hz=rate, to_hz=16_000)[4000:]
    sound = sound[: round(16_000 * clip_audio_seconds(num_frames, fps=kind.geometry.fps))]
    torch.testing.assert_close(found, made.given.audio.encode(sound[None], device=x.device))
    expected = ours(
        x, clip.text, ours.timestep(sigma), clip.text_mask, found.expand(2, -1, -1),
        audio_weight=torch.full((2,), strength), lora_scale=0.0,
    )  # fmt: skip
    model = made.apply(strength)
    result = velocity(model, x, sigma, clip, {})
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)
    untouched = velocity(made.bare, x, sigma, clip, {})
    assert (result - untouched).abs().max() > 0.01
    # What ComfyUI is to bring to the card with the model.
    [more] = model.more["musicinfuser"]
    assert {id(p) for p in more.model.parameters()} == {
        id(p) for p in made.adapter.zica.parameters()
    }


def prompts_of(clip: Any) -> tuple[list, list]:
    """Positive and negative, as ComfyUI's samplers hand them on."""
    text, mask = clip.text, clip.text_mask
    found = [(text, mask), (text.flip(0), mask.flip(0))]
    positive, negative = (
        [{"model_conds": {"c_crossattn": text, "attention_mask": mask}}] for text, mask in found
    )
    return positive, negative


def one_step(made: Any, clip: Any, x: Tensor, sampling: dict, audio: Any, **options: Any) -> Tensor:
    """Our sampler's latents after the one step from noise to none: what it takes for denoised."""
    family = made.adapter.zica.family
    return denoise(
        made.given.model,
        Conditions(
            clip.text, clip.text.flip(0), audio, clip.text_lengths, clip.text_lengths[::-1]
        ),
        x, SamplingSpec(num_steps=1, family=family, **sampling), lora_scale=0.0, **options,
    )  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("made", CHANNELS, indirect=True)
@pytest.mark.parametrize("text_scale", [1.0, 4.0])
def test_guidance_by_music_is_our_samplers(made, text_scale, clip, song) -> None:
    positive, negative = prompts_of(clip)
    x, noisy = made.latents, torch.ones(2)
    music = made.adapter.music(song, NUM_LATENT, 0.25)(0, NUM_LATENT).expand(2, -1, -1)
    results = {}
    for scale in (0.0, 1.0, 3.0):
        model = made.apply(music_guidance_scale=scale)
        results[scale] = sampling_function(model, x, noisy, negative, positive, text_scale)
        scales = {"guidance_scale": text_scale, "music_guidance_scale": scale}
        expected = one_step(made, clip, x, scales, music)
        torch.testing.assert_close(results[scale], expected, rtol=1e-5, atol=1e-5)
    assert (results[3.0] - results[1.0]).abs().max() > 0.01
    assert "sampler_post_cfg_function" not in made.apply().model_options
    assert "sampler_post_cfg_function" not in made.bare.model_options
    # At another noise level: the equation in velocities.
    model, sigma = made.apply(music_guidance_scale=3.0), made.sigma
    found = sampling_function(model, x, sigma, negative, positive, 1.0)
    with_music, without = (velocity(m, x, sigma, clip, {}) for m in (model, made.bare))
    guided = with_music + 2 * (with_music - without)
    found = (found - x) / sigma[:, None, None, None, None]
    torch.testing.assert_close(found, guided, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("made", CHANNELS, indirect=True)
def test_a_song_in_context_windows_is_our_samplers(made, clip, song) -> None:
    """Windows and weights are ours here: ComfyUI has its own."""
    num, family = 7, made.adapter.zica.family
    encoder, kind = made.adapter._audio_encoder(), made.given.model.kind
    geometry, fps = kind.geometry, kind.geometry.fps
    windows = Windows(num, NUM_LATENT, overlap=1, frames_per_latent=geometry.temporal)
    num_frames = (num - 1) * geometry.temporal + 1
    x = torch.randn(2, CHANNELS[family], num, 4, 6, generator=torch.Generator().manual_seed(2))
    sounds = waveforms(
        (song["waveform"][0], song["sample_rate"]), rate_hz=encoder.rate_hz, num_clips=1,
        num_frames=num_frames, start_seconds=0.25, fps=fps, geometry=geometry, windows=windows,
    )  # fmt: skip
    features = made.adapter._features(encoder, sounds, 1, num_frames, 0.25, windows)
    features = {start: of.expand(2, -1, -1) for start, of in features.items()}
    assert len(features) == 3
    scales = {"guidance_scale": 2.0, "music_guidance_scale": 3.0}
    expected = one_step(made, clip, x, scales, features, windows=windows)

    positive, negative = prompts_of(clip)
    model = made.apply(latent={"samples": x}, music_guidance_scale=3.0)

    def found(handler: Callable[..., list]) -> Tensor:
        return sampling_function(
            model, x, torch.ones(2), negative, positive, 2.0, context_handler=handler
        )

    result = found(in_context_windows(windows))
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    # With a frame before each window but the first, whose music begins a frame earlier.
    further = found(in_context_windows(windows, causal_window_fix=True))
    first = windows.starts[1]
    torch.testing.assert_close(further[:, :, :first], result[:, :, :first], rtol=1e-5, atol=1e-5)
    assert (further - result).abs().max() > 0.01


def test_context_windows_with_gaps_are_refused(made, clip) -> None:
    model = made.apply()
    for frames in ([0, 2], [2, 0]):
        options = {"context_window": SimpleNamespace(index_list=frames, dim=2)}
        with pytest.raises(UserError, match="do not follow each other.* standard_static"):
            velocity(model, made.latents[:, :, frames], made.sigma, clip, options)
    # Those over other dimensions, such as videos of a batch, hold all of the music's time.
    options = {"context_window": SimpleNamespace(index_list=[1], dim=0)}
    velocity(model, made.latents, made.sigma, clip, options)


@torch.no_grad()
def test_without_music_or_strength_the_model_is_as_it_was(made, clip) -> None:
    for changes in ({"music": 0.0}, {"audio": None}):
        model = made.apply(**changes, music_guidance_scale=3.0)
        assert "sampler_post_cfg_function" not in model.model_options
        assert not model.wrappers and not model.more and model.lora is None
    made.apply(1.0, 1.0)
    assert not made.bare.wrappers and made.bare.lora is None


def test_lora_is_applied_by_comfyui(made) -> None:
    tensors, strength = made.apply(0.0, 0.7).lora
    expected = comfyui_lora(read_folder(made.given.folder))
    assert strength == 0.7 and tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())


@torch.no_grad()
def test_what_another_node_put_in_the_place_of_a_block_runs_first(made, clip) -> None:
    calls = []

    def other(arguments: dict, extra: dict) -> dict:
        calls.append(len(calls))
        out = extra["original_block"](arguments)
        return {**out, "img": 2 * out["img"]}

    blocks = {("double_block", 0): other, ("double_block", 1): other}
    options = {"patches_replace": {"dit": blocks, "attn1": {}}, "mark": 1}
    before = copy.copy(blocks)
    found = velocity(made.apply(), made.latents, made.sigma, clip, options)
    assert calls == [0, 1] and blocks == before and options["patches_replace"]["dit"] is blocks
    alone = velocity(made.bare, made.latents, made.sigma, clip, options)
    assert (found - alone).abs().max() > 0.01


@torch.no_grad()
def test_two_adapters_add_up(made, clip) -> None:
    once, twice = made.apply(0.5), made.apply(0.5, model=made.apply(0.5))
    assert len(twice.wrappers["musicinfuser"]) == len(twice.more["musicinfuser"]) == 2
    results = [velocity(m, made.latents, made.sigma, clip, {}) for m in (once, twice)]
    assert (results[0] - results[1]).abs().max() > 0.01


@torch.no_grad()
def test_beside_a_model_in_bf16(made, clip, base) -> None:
    """ZICA stays in fp32 and computes in the model's type."""
    exact = velocity(made.apply(), made.latents, made.sigma, clip, {})
    model = made.apply(model=loaded(base("wan").to(torch.bfloat16), "wan"))
    model.model.diffusion_model.transformer.rope = base("wan").rope
    found = velocity(model, made.latents, made.sigma, clip, {})
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).norm() < 0.03 * exact.norm()
    assert {p.dtype for p in made.adapter.zica.parameters()} == {torch.float32}


def change(network: Any, **values: Any) -> Any:
    for name, value in values.items():
        setattr(network, name, value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_dim": 36}, "the model is a WanModel that no adapter is for; load Mochi, Wan 2.1"),
        ({"model_type": "i2v"}, "that no adapter is for"),
        ({"ref_conv": 1}, "that no adapter is for"),
        ({"in_dim": 48}, "it is of wan, the base of wan_5b"),
        ({"dim": 256}, "it is 128 channels wide, the base 256"),
        ({"blocks": nn.ModuleList([])}, "of 3, the base has 0"),
    ],
)
def test_another_model_is_refused(made, changes, message) -> None:
    change(made.bare.model.diffusion_model, **changes)
    with pytest.raises(UserError, match=message):
        made.apply()


def test_a_model_of_another_family_is_refused(made, base) -> None:
    with pytest.raises(UserError, match="it is of wan, the base of mochi"):
        made.apply(model=loaded(base("mochi"), "mochi"))
    other = Patcher(SimpleNamespace(diffusion_model=nn.Linear(1, 1)))
    with pytest.raises(UserError, match="the model is a Linear that no adapter is for"):
        made.apply(model=other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sound: sound.repeat(2, 1, 1), "audio holds 2 sounds"),
        (lambda sound: sound[..., :20_000], "has 0.20 s of sound from second 0.25 on, but 9 fr"),
        (lambda sound: 0 * sound, "is silent from second 0.25 on"),
    ],
)
def test_sounds_that_are_refused(made, song, change, message) -> None:
    with pytest.raises(UserError, match=message):
        made.apply(audio={**song, "waveform": change(song["waveform"])})


@torch.no_grad()
def test_other_latents_than_the_music_is_for_are_refused(made, clip) -> None:
    model = made.apply()
    with pytest.raises(UserError, match="works on 2 latent frames from 0 on, but the mus.* 3"):
        velocity(model, made.latents[:, :, :2], made.sigma, clip, {})

    def longer(arguments: dict, extra: dict) -> dict:
        out = extra["original_block"](arguments)
        return {**out, "img": torch.cat([out["img"], out["img"][:, :6]], dim=1)}

    options = {"patches_replace": {"dit": {("double_block", 0): longer}}}
    with pytest.raises(UserError, match="a block has 24 tokens, but the video 18"):
        velocity(model, made.latents, made.sigma, clip, options)


def test_folders_that_are_refused(nodes, make_adapter, tmp_path: Path) -> None:
    load = nodes.LoadMusicAdapter().load
    given = make_adapter("wan")
    with pytest.raises(UserError, match="holds no adapter"):
        load(str(tmp_path))
    with pytest.raises(UserError, match="nothing-here"):
        load(given.folder, str(tmp_path / "nothing-here"))
    shutil.rmtree(Path(given.folder, "zica"))
    with pytest.raises(UserError, match="has no ZICA, only LoRA; write that with .* to-comfyui"):
        load(given.folder)


def test_another_audio_encoder_is_refused(made, nodes, tmp_path: Path) -> None:
    other = str(write_audio_encoder(tmp_path / "other", "hubert"))
    (adapter,) = nodes.LoadMusicAdapter().load(made.given.folder, other)
    with pytest.raises(UserError, match="was trained on .* but would get"):
        made.apply(adapter=adapter)


def test_without_lora_there_is_none_to_apply(comfy, nodes, base, make_adapter, song) -> None:
    given = make_adapter("wan", lora=None, zica=ZicaSpec(num_heads=4))
    (adapter,) = nodes.LoadMusicAdapter().load(given.folder, given.encoder)
    latent = {"samples": torch.zeros(1, 16, NUM_LATENT, 4, 6)}
    model, _ = nodes.ApplyMusicAdapter().apply(
        loaded(base("wan"), "wan"), adapter, latent, 0.0, 1.0, 1.0, audio=song
    )
    assert model.lora is None and model.wrappers


def test_comfyui_finds_what_it_asks_of_nodes(nodes) -> None:
    assert nodes.NODE_DISPLAY_NAME_MAPPINGS.keys() == nodes.NODE_CLASS_MAPPINGS.keys()
    for node in nodes.NODE_CLASS_MAPPINGS.values():
        inputs = node.INPUT_TYPES()
        names = list(inputs["required"]) + list(inputs["optional"])
        _, *parameters = inspect.signature(getattr(node, node.FUNCTION)).parameters.values()
        assert names == [parameter.name for parameter in parameters]
        optional = {p.name for p in parameters if p.default is not inspect.Parameter.empty}
        assert optional == inputs["optional"].keys()
        assert len(node.RETURN_TYPES) >= 1 and node.CATEGORY
