"""Sampling with guidance by a layer, and ``train.py validate`` on configs/adaptability.yaml."""

import json
import os
import signal
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch

from lightning_modules import LayerAdaptabilityModule
from musicinfuser import keyed_random
from musicinfuser.diffusion.sampler import linear_quadratic_sigmas
from musicinfuser.errors import UserError
from musicinfuser.generation import LayerGuidance, SamplingSpec, sample_latents
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from musicinfuser.networks.encoders import EncodersSpec
from musicinfuser.networks.layer_selection import LayerStrategy, select_layers
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.zica import ZicaSpec
from tests.conftest import NUM_LAYERS, ROOT
from tests.ranks import run_ranks
from train import main

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")
CPU = torch.device("cpu")
PROMPTS = ("dancing Break in front of a green wall", "a red shirt and black trousers")
FOLDERS = ["layer_00", "layer_01", "layer_02", "no_layer_skipped"]


@pytest.fixture(scope="module")
def model(small_parts):
    backbone = build_backbone(BackboneSpec(pretrained=str(small_parts), dtype="float32"))
    return MusicModel(backbone, layers=[], zica=ZicaSpec(), lora=None)


def sample(model, *, by_layer=None, steps=3):
    stream = torch.Generator().manual_seed(2)
    return sample_latents(
        model, text=torch.randn(5, 64, generator=stream), negative=torch.zeros(0, 64), audio=None,
        request=GenerationRequest("", "p", 4, 13, 32, 48), device=CPU, by_layer=by_layer,
        sampling=SamplingSpec(num_steps=steps, guidance_scale=4.5),
    )  # fmt: skip


@pytest.mark.parametrize("layer", range(NUM_LAYERS))
def test_sampling_against_the_integration_written_out(model, layer):
    text = torch.randn(5, 64, generator=torch.Generator().manual_seed(2))[None]
    sigmas = linear_quadratic_sigmas(3)
    latents = torch.randn(1, 12, 3, 4, 6, generator=keyed_random.generator(4, 0, "sampling noise"))

    def velocity(latents, sigma, text, skipped):
        at = ((1 - sigma) * 1000)[None]
        lengths = (text.shape[1],)
        return model(latents, text, at, text_lengths=lengths, skip_layers=skipped)

    with torch.no_grad():
        for i in range(3):
            v_c = velocity(latents, sigmas[i], text, ())
            v_un = velocity(latents, sigmas[i], text[:, :0], ())
            v_without = velocity(latents, sigmas[i], text, (layer,))
            v = v_un + 4.5 * (v_c - v_un) + 2.0 * (v_c - v_without)
            latents = latents + (sigmas[i] - sigmas[i + 1]) * v
    found = sample(model, by_layer=LayerGuidance(layer, 2.0))
    torch.testing.assert_close(found, latents, rtol=1e-4, atol=1e-4)
    plain = sample(model)
    assert (found - plain).norm() / plain.norm() > 1e-2
    assert torch.equal(sample(model, by_layer=LayerGuidance(layer, 0.0)), plain)


def test_a_step_costs_three_passes(model):
    calls = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    sample(model, by_layer=LayerGuidance(1, 1.0))
    handle.remove()
    assert len(calls) == 9
    with pytest.raises(ValueError, match="the scale of layer guidance is -1"):
        LayerGuidance(1, -1.0)


def arguments(root: Path, parts: Path, *options: str, metrics: str = "null") -> list[str]:
    values = "[prompt_certainty/certainty, attribute_accuracy/obeyed]"
    return [
        "validate",
        f"--config={ROOT}/configs/adaptability.yaml",
        f"--config={ROOT}/configs/small_world/adaptability.yaml",
        f"--trainer.default_root_dir={root}",
        "--trainer.enable_progress_bar=false",
        "--trainer.callbacks=[{class_path: callbacks.LayerScores, init_args: "
        f"{{metrics: {metrics}, values: {values}}}}}]",
        f"--model.init_args.backbone.pretrained={parts}",
        f"--model.init_args.encoders.mochi={parts}",
        "--model.init_args.sampling.num_steps=2",
        "--data.init_args.num_frames=7",
        "--data.init_args.height=32",
        "--data.init_args.width=32",
        f"--data.init_args.prompts={json.dumps(PROMPTS)}",
        *options,
    ]


def clips(root: Path) -> dict[str, tuple[str, str, int]]:
    """By folder and file: system, content, and which file on the disk it is."""
    found = {}
    for path in sorted(root.glob("clips/*/manifest.jsonl")):
        for row in map(json.loads, path.read_text().splitlines()):
            inode = (path.parent / row["file"]).stat().st_ino
            found[f"{path.parent.name}/{row['file']}"] = (row["system"], row["sha256"], inode)
    return found


def without_inodes(root: Path) -> dict[str, tuple[str, str]]:
    return {name: clip[:2] for name, clip in clips(root).items()}


@pytest.fixture(scope="module")
def whole(small_parts, tmp_path_factory) -> Path:
    """A measurement that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole")
    main(arguments(root, small_parts))
    return root


class SigtermInThirdClip(L.Callback):
    """What a scheduler does when time is up."""

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, *_):
        if batch_idx == 2:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_cut_off_and_resumed_equals_uninterrupted_and_is_scored(
    whole, small_parts, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(ROOT)  # where the metrics look for their probe
    told = f"--trainer.callbacks+={__name__}.SigtermInThirdClip"
    with pytest.raises(SystemExit) as ended:
        main(arguments(tmp_path, small_parts, told))
    assert ended.value.code == 128 + signal.SIGTERM
    made = {path: path.stat().st_ino for path in tmp_path.glob("clips/*/*.mp4")}
    assert len(made) == 3
    # As a kill between a clip and its description leaves it: made again, to the same bytes.
    torn = next(iter(made))
    torn.with_suffix(".json").unlink()
    main(arguments(tmp_path, small_parts))
    assert without_inodes(tmp_path) == without_inodes(whole)
    kept = {path for path, inode in made.items() if path.stat().st_ino == inode}
    assert kept == made.keys() - {torn}

    # With nothing left to make the clips are scored all the same.
    before = clips(tmp_path)
    command = arguments(
        tmp_path, small_parts, metrics=f"{ROOT}/configs/small_world/picture_metrics.yaml"
    )
    main(command)
    assert clips(tmp_path) == before
    found = json.loads((tmp_path / "adaptability.json").read_text())
    said, choices = capsys.readouterr().out, found["choices"]
    assert choices["prompts"] == list(PROMPTS) and f"prompts: {json.dumps(PROMPTS)}" in said
    assert (choices["layer_scale"], choices["seeds"], choices["num_frames"]) == (1.0, [0], 7)
    assert choices["sampling"]["guidance_scale"] == 3.0 and "layer_scale: 1.0" in said
    assert len(found["scores"]) == NUM_LAYERS and len(found["chosen"]) == 1
    strategy = LayerStrategy("adaptability", scores=str(tmp_path / "adaptability.json"))
    assert list(select_layers(strategy, NUM_LAYERS)) == found["chosen"]
    assert f"chosen by prompt_certainty/certainty: {found['chosen']}" in said
    assert found["values"]["attribute_accuracy/obeyed"]["reference"]["n"] == 2
    assert (tmp_path / "prompt_certainty_certainty.svg").read_text().startswith("<svg")
    with pytest.raises(ValueError, match=r"made with other settings \(layer_scale, prompts\)"):
        main([*command, "--model.init_args.layer_scale=2", "--data.init_args.prompts=[p]"])


def test_two_processes_equal_one(whole, small_parts, tmp_path):
    two = (f"--config={ROOT}/configs/ddp.yaml", "--trainer.accelerator=cpu", "--trainer.devices=2")
    ended = run_ranks(tmp_path, arguments(tmp_path, small_parts, *two))
    assert [process.exit_code for process in ended] == [0, 0], ended[-1].output[-2000:]
    assert without_inodes(tmp_path) == without_inodes(whole)


def test_every_layer_has_every_prompt_and_differs_from_the_reference(whole):
    found = without_inodes(whole)
    by_folder = {name: [c for c in found if c.startswith(f"{name}/")] for name in FOLDERS}
    assert len(found) == 8 and all(len(names) == 2 for names in by_folder.values())
    systems = {name.split("/")[0]: system for name, (system, _) in found.items()}
    assert list(systems.values()) == ["layer 0", "layer 1", "layer 2", "no layer skipped"]
    assert len({digest for _, digest in found.values()}) == 8


@pytest.mark.parametrize(
    ("families", "fps", "message"),
    [
        (("wan", "mochi", "wan"), 16.0, "model.encoders.family is mochi; give both the same"),
        (("wan", "wan", "mochi"), 16.0, "model.sampling.family is mochi; give both the same"),
        (("wan", "wan", "wan"), 30.0, "fps is 30, but wan without adapters makes 16 frames per"),
    ],
)
def test_a_base_has_parts_and_the_rate_of_its_family(families, fps, message) -> None:
    backbone, encoders, sampling = families
    window = {"window_frames": 13, "window_overlap_frames": 12}
    with pytest.raises(UserError, match=message):
        LayerAdaptabilityModule(
            BackboneSpec(pretrained="x", family=backbone),
            EncodersSpec(family=encoders),
            SamplingSpec(1, 1.0, fps=fps, family=sampling, **window),
        )
