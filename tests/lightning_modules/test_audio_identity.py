"""Every reader of `train.py` holds an adapter to the features it was trained on."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_modules.checkpointing import CheckpointMismatchError
from musicinfuser.adapters.folder import read_folder
from musicinfuser.adapters.settings import AdapterFileError
from musicinfuser.convert import main as convert
from musicinfuser.errors import UserError
from musicinfuser.media.latents import clip_paths, read_clip, read_clip_header, write_clip
from tests.audio_encoders import write_audio_encoder
from tests.test_predict import generation, write_tone

LAYER_1 = "--model.init_args.encoders.audio_layer=1"
ANOTHER = "was trained on .*, but would get .*set model.encoders to what it was trained with"


@pytest.fixture
def old(fitted: SimpleNamespace, tmp_path: Path) -> Path:
    """The checkpoint of `fitted` as it was written before checkpoints said what they hear."""
    checkpoint = torch.load(fitted.last, weights_only=True)
    del checkpoint["musicinfuser"]["origin"]
    path = tmp_path / "old" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save(checkpoint, path)
    return path


@pytest.fixture
def exported(fitted: SimpleNamespace, tmp_path: Path) -> Path:
    convert(["checkpoint", str(fitted.last), str(tmp_path / "exported")])
    return tmp_path / "exported"


@pytest.fixture
def start(run_cli: Callable, tmp_path: Path) -> Callable[..., object]:
    """``start(adapter, *arguments)``: a clip of one step by a model that starts from an adapter."""
    requests = generation(music=str(write_tone(tmp_path / "a.wav")), prompts=["p"])

    def run(adapter: Path | str, *arguments: str) -> object:
        given = f"--model.init_args.init_adapter={adapter}"
        steps = "--model.init_args.sampling.num_steps=1"
        return run_cli("predict", "--ckpt_path=null", given, steps, *requests, *arguments)

    return run


def test_a_checkpoint_of_another_layer_is_refused_by_every_verb(
    run_cli: Callable, small_cache: Path, fitted: SimpleNamespace, tmp_path: Path
) -> None:
    stored = torch.load(fitted.last, weights_only=True)["musicinfuser"]["origin"]
    assert stored["audio"]["kind"] == "wav2vec2" and len(stored["audio"]["weights"]) == 16
    assert set(stored["weights"]) == {"transformer", "text_encoder", "vae"}
    requests = generation(music=str(write_tone(tmp_path / "a.wav")), prompts=["p"])
    with pytest.raises(CheckpointMismatchError, match=ANOTHER) as error:
        run_cli("predict", LAYER_1, *requests, root=fitted.root)
    assert "the last hidden state of" in str(error.value) and "get layer 1 of" in str(error.value)
    report = run_cli("check", LAYER_1, "--trainer.max_steps=4", root=fitted.root).report
    assert any("last.ckpt was trained on" in problem for problem in report.problems)


def test_other_weights_of_the_same_width_are_refused(
    run_cli: Callable, fitted: SimpleNamespace, tmp_path: Path
) -> None:
    requests = generation(music=str(write_tone(tmp_path / "a.wav")), prompts=["p"])
    for kind in ("wav2vec2", "hubert"):
        encoder = write_audio_encoder(tmp_path / kind / "audio_encoder", kind)
        other = f"--model.init_args.encoders.audio={encoder.parent}"
        with pytest.raises(
            CheckpointMismatchError, match=rf"would get .*{encoder} \({kind}, weight"
        ):
            run_cli("predict", other, *requests, root=fitted.root)


def test_another_cache_does_not_resume_a_run(
    run_cli: Callable, small_cache: Path, fitted: SimpleNamespace, tmp_path: Path
) -> None:
    """The cache agrees with the config, the checkpoint with neither."""
    root = shutil.copytree(fitted.root, tmp_path / "run")
    cache = shutil.copytree(small_cache, tmp_path / "cache")
    for path in clip_paths(cache):
        header = read_clip_header(path)
        recipe = replace(header.recipe, audio_encoder=f"{header.recipe.audio_encoder}, layer 1")
        write_clip(replace(header, recipe=recipe), **read_clip(path))
    for verb in ("fit", "validate"):
        limits = ("--trainer.max_steps=4", "--trainer.limit_val_batches=1")
        with pytest.raises(CheckpointMismatchError, match=ANOTHER):
            run_cli(verb, LAYER_1, *limits, cache=cache, root=root)


@pytest.mark.parametrize("form", ["checkpoint", "folder", "zica", "zica file", "authors"])
def test_every_form_of_init_adapter_is_held_to_it(
    start: Callable, fitted: SimpleNamespace, exported: Path, tmp_path: Path, form: str
) -> None:
    without_lora = ("--model.init_args.lora=null",)
    forms = {
        "checkpoint": (fitted.last, ()),
        "folder": (exported, ()),
        "zica": (exported / "zica", without_lora),
        "zica file": (exported / "zica" / "diffusion_pytorch_model.safetensors", without_lora),
        "authors": (tmp_path / "authors.safetensors", ()),
    }
    path, more = forms[form]
    if form == "authors":
        convert(["to-official", str(exported), str(path)])
    start(path, *more)
    with pytest.raises(AdapterFileError, match=ANOTHER):
        start(path, *more, LAYER_1)


def test_what_lies_beside_zica_is_looked_at(start: Callable, exported: Path) -> None:
    for change, said in (
        ("zica.positions=rotary", "zica.positions: none in the folder, rotary in the config"),
        ("audio_resampling=centre", "audio_resampling: nearest in the folder, centre in the conf"),
    ):
        with pytest.raises(AdapterFileError, match=said):
            start(exported / "zica", "--model.init_args.lora=null", f"--model.init_args.{change}")


def test_the_authors_format_brings_it_back(exported: Path, tmp_path: Path) -> None:
    convert(["to-official", str(exported), str(tmp_path / "authors.safetensors")])
    convert(["from-official", str(tmp_path / "authors.safetensors"), str(tmp_path / "again")])
    origin = read_folder(exported).origin
    assert origin is not None and origin.audio.weights and origin.assumed_from == ""
    assert read_folder(tmp_path / "again").origin == origin


def test_old_files_are_read_as_what_they_were(
    run_cli: Callable, start: Callable, fitted: SimpleNamespace, old: Path, tmp_path: Path
) -> None:
    said = "does not say which audio features it was trained on; they are taken to be the last hid"
    with pytest.warns(UserWarning, match=rf"last\.ckpt {said}den state of an encoder"):
        start(old)
    with pytest.raises(
        AdapterFileError, match="according to the default when it was written, but wou"
    ):
        start(old, LAYER_1)
    # What the run recorded beside it tells better.
    logs = old.parent.parent / "logs"
    shutil.copytree(fitted.root / "logs", logs)
    with pytest.warns(UserWarning, match=rf"last hidden state of .*according to {logs}/config_fit"):
        start(old)
    record = logs / "config_fit.yaml"
    record.write_text(record.read_text().replace("audio_layer: null", "audio_layer: 1"))
    with pytest.raises(AdapterFileError, match="was trained on layer 1 of"):
        start(old)
    start(old, LAYER_1)
    convert(["checkpoint", str(old), str(tmp_path / "old_exported")])
    assert read_folder(tmp_path / "old_exported").origin.audio.layer == 1


def test_training_does_not_go_on_with_another_transformer(
    run_cli: Callable, small_cache: Path, fitted: SimpleNamespace, small_parts: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(fitted.root, tmp_path / "run")
    other = shutil.copytree(small_parts, tmp_path / "parts")
    weights = other / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["proj_out.bias"] += 1
    save_file(tensors, weights)
    backbone = f"--model.init_args.backbone.pretrained={other}"
    with pytest.raises(CheckpointMismatchError, match="belongs to a run on another transformer"):
        run_cli("fit", backbone, "--trainer.max_steps=4", cache=small_cache, root=root)
    limits = ("--trainer.limit_val_batches=1", backbone)
    with pytest.warns(
        UserWarning, match=r"trained with other frozen weights \(transformer: weight"
    ):
        run_cli("validate", *limits, cache=small_cache, root=root)


def test_check_says_what_an_adapter_lacks(
    run_cli: Callable, exported: Path, tmp_path: Path
) -> None:
    given = f"--model.init_args.init_adapter={exported}"
    report = run_cli("check", given, LAYER_1, root=tmp_path / "new").report
    (problem,) = [p for p in report.problems if "init_adapter" in p]
    assert problem.startswith(f"model.init_adapter: {exported} was trained on the last hidden")
    report = run_cli("check", given, "--model.init_args.lora.rank=3", root=tmp_path / "new").report
    assert any("lora.rank: 2 in the folder, 3 in the config" in p for p in report.problems)
    assert issubclass(AdapterFileError, UserError)
