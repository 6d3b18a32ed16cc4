"""Every overlay is really built and trained for a step, and is what its name says."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from musicinfuser.networks.lora import is_lora_name
from musicinfuser.networks.zica import FeatureAddition
from small_world.parts.random_parts import write_small_parts
from tests.conftest import ROOT
from tests.sweeps.one_step import M, Trained, one_step
from tests.sweeps.parsing import ABLATIONS, ParsingCLI

NUM_BLOCKS, WIDTH = 6, 128
# Their caches are not the others': test_overlay_features.py.
OTHER_FEATURES = {
    *("audio_layer_6", "audio_log_mel", "audio_hubert"),
    *("audio_layer_mixture", "audio_rhythm", "audio_rhythm_and_wav2vec", "audio_mert", "audio_muq"),
    *("small/audio_rhythm", "small/audio_rhythm_and_wav2vec"),
    *("encode/audio_layer_mixture", "encode/audio_rhythm", "encode/audio_rhythm_and_wav2vec"),
    *("encode/audio_mert", "encode/audio_muq"),
    *("small/audio_layer_1", "small/audio_log_mel", "small/encode", "small/audio_hidden_states"),
    *("small/audio_rhythm_average", "small/audio_log_mel_played", "small/encode_played"),
    *("encode/audio_layer_6", "encode/audio_log_mel", "encode/audio_hubert"),
}


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory, small_cache: Path) -> Callable[..., Trained]:
    parts = tmp_path_factory.mktemp("parts") / "six"
    write_small_parts(parts, num_layers=NUM_BLOCKS)
    parser = ParsingCLI([f"--config={ROOT}/configs/base.yaml"]).parser
    done: dict[tuple[str, ...], Trained] = {}

    def run(*arguments: str) -> Trained:
        if arguments not in done:
            done[arguments] = one_step(parser, parts, small_cache, arguments)
        return done[arguments]

    return run


def layers(of: Trained) -> tuple[int, ...]:
    """The blocks whose adapters the step changed."""
    names = [n for n in of.moved if n.startswith("zica.") and ".to_out." in n]
    return tuple(sorted({int(name.split(".")[1]) for name in names}))


def lora(of: Trained) -> dict[str, object]:
    names = [name for name in of.start if is_lora_name(name)]
    layer = of.module.adapted.backbone.transformer_blocks[0].attn1.to_q
    return {
        "ranks": {of.start[n].shape[0] for n in names if "lora_A" in n},
        "factor": getattr(layer, "scaling", {}).get("default"),
        "on text": any(".add_" in name for name in names),
        "trains": any(is_lora_name(name) for name in of.moved),
    }


def attention(of: Trained) -> dict[str, object]:
    """How the adapters attend: whether sound played backwards adds something else, among others."""
    [first, *_] = of.zica
    stream = torch.Generator().manual_seed(0)
    visual = torch.randn(1, 8, WIDTH, generator=stream)
    audio = torch.randn(1, 4, WIDTH, generator=stream)
    with torch.no_grad():
        first.to_out.weight.copy_(torch.eye(WIDTH))
        reversed_ = first(visual, audio.flip(1))
        depends_on_order = not torch.allclose(first(visual, audio), reversed_, atol=1e-5)
    start = of.start["zica.1.to_q.bias"] if first.to_q.bias is not None else None
    return {
        "heads": first.num_heads,
        "biases": first.to_q.bias is not None,
        "scale": round(first.logit_scale * WIDTH**0.5, 6),
        "depends on order": depends_on_order,
        "starts aligned": start is not None and start.unique().numel() == 1,
    }


PAPER = {
    "heads": 8,
    "biases": True,
    "scale": round(8**0.5, 6),
    "depends on order": False,
    "starts aligned": False,
}
LORA = {"ranks": {4}, "factor": 1.0, "on text": True, "trains": True}


def beta_at(step: int) -> Callable[[Trained], float]:
    return lambda of: of.annealing.beta(step)


def beta_of_step(of: Trained) -> float:
    return of.module.noise_beta


def captions(of: Trained) -> float:
    """Share of samples with the base prompt, of 200 of a clip that has another one as well."""
    dataset = of.data.training_clips
    clip = next(h for h in dataset.clips["aist"] if h.caption != h.base_caption)
    shown = [dataset.caption(clip, number) for number in range(200)]
    return shown.count(clip.base_caption) / len(shown)


def lacking(of: Trained) -> set[frozenset[str]]:
    """What any of 200 samples lack."""
    return {frozenset(of.data.training_clips.lacks(number)) for number in range(200)}


def num_clips(of: Trained) -> dict[str, int]:
    return {source: len(own) for source, own in of.data.training_clips.clips.items()}


def form(of: Trained) -> tuple[type, ...]:
    return tuple({type(adapter) for adapter in of.zica})


def starts_at_zero(of: Trained) -> bool:
    return not any(
        of.start[name].any() for name in of.start if ".to_out." in name and "zica" in name
    )


def music_guidance(of: Trained) -> float:
    return of.module.sampling.music_guidance_scale


def resampling(of: Trained) -> str:
    projector = of.module.adapted.audio_projector
    assert projector is not None
    return projector.resampling


DROPPED = ({"text"}, {"music"}, {"text", "music"})
# Overlay -> what of a trained model shows it, what that is with it, options that it is laid over.
Case = tuple[Callable[[Trained], object], object, list[str]]
ALIGNED = [f"--{M}.zica.positions=aligned"]
CASES: dict[str, Case] = {
    "layers_all": (layers, (0, 1, 2, 3, 4, 5), []),
    "layers_even": (layers, (0, 3), []),
    "layers_first": (layers, (0, 1), []),
    "layers_middle": (layers, (2, 3), []),
    "layers_last": (layers, (4, 5), []),
    "feature_addition": (form, (FeatureAddition,), ALIGNED),
    "zica_random": (starts_at_zero, False, []),
    "zica_one_head": (attention, PAPER | {"heads": 1, "scale": 1.0}, []),
    "zica_scale_width": (attention, PAPER | {"scale": 1.0}, []),
    "zica_eq6": (attention, PAPER | {"heads": 1, "biases": False, "scale": 1.0}, []),
    "zica_rotary": (attention, PAPER | {"depends on order": True}, []),
    "zica_aligned": (attention, PAPER | {"depends on order": True, "starts aligned": True}, []),
    "zica_no_positions": (attention, PAPER, ALIGNED),
    "zica_frame_window_1": (attention, PAPER | {"depends on order": True}, []),
    "zica_query_norm": (lambda of: of.zica[0].normalised, True, []),
    "small/zica_frame_window_no_positions": (
        attention,
        PAPER | {"depends on order": True},
        ALIGNED,
    ),
    "lora_rank_16": (lora, LORA | {"ranks": {16}}, []),
    "no_lora": (lora, {"ranks": set(), "factor": None, "on text": False, "trains": False}, []),
    "lora_visual": (lora, LORA | {"on text": False}, []),
    "small/lora_rank_2": (lora, LORA | {"ranks": {2}}, []),
    "small/resampling_average": (resampling, "average", [f"--{M}.audio_resampling=centre"]),
    "small/resampling_nearest": (resampling, "nearest", [f"--{M}.audio_resampling=centre"]),
    "uniform_noise": (beta_of_step, 1.0, []),
    "initial_beta_2": (beta_of_step, 2.0, []),
    "initial_beta_6": (beta_of_step, 6.0, []),
    # The distance to 1 has halved by then, from 3.
    "half_life_50": (beta_at(50), 2.0, []),
    "half_life_800": (beta_at(800), 2.0, []),
    "small/half_life_short": (beta_at(2), 2.0, []),
    "small/half_life_long": (beta_at(32), 2.0, []),
    "base_prompt_0": (captions, 0.0, []),
    "base_prompt_100": (captions, 1.0, []),
    "music_dropout": (lacking, set(map(frozenset, ("", *DROPPED))), []),
    "counterfactual": (lambda of: of.module.objective.counterfactual.weight, 1.0, []),
    "mask": (
        lambda of: of.module.objective.mask.weight,
        3.0,
        [f"--{M}.objective.mask.unmasked=plain"],
    ),
    "no_wild": (lambda of: of.sources, {"aist"}, []),
    "data_half": (num_clips, {}, []),
    "data_quarter": (num_clips, {}, []),
    "music_guidance_3": (music_guidance, 3.0, []),
}


def test_every_overlay_is_a_case() -> None:
    found = {p.relative_to(ABLATIONS).with_suffix("").as_posix() for p in ABLATIONS.rglob("*.yaml")}
    assert found == CASES.keys() | OTHER_FEATURES


@pytest.mark.parametrize("overlay", CASES)
def test_a_step_with_an_overlay(train: Callable[..., Trained], overlay: str) -> None:
    show, expected, below = CASES[overlay]
    without = show(train(*below))
    if expected == {}:
        share = {"data_half": 2, "data_quarter": 4}[overlay]
        expected = {source: max(1, round(n / share)) for source, n in without.items()}
    trained = train(*below, f"--config={ABLATIONS}/{overlay}.yaml")
    assert show(trained) == expected
    assert without != expected
    # Steps are real: there is music in them.
    assert any(name.startswith("zica.") for name in trained.moved)
