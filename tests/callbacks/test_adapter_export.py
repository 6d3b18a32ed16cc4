"""AdapterExport through train.py: what a run trained, and what loads it again."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file

from musicinfuser.adapters.folder import read_folder
from musicinfuser.convert import main as convert
from tests.test_predict import generation, rows, write_tone
from tests.test_resume import arguments
from train import main

EXPORT = "--trainer.callbacks+=callbacks.AdapterExport"
EMA = "--trainer.callbacks+={class_path: callbacks.AdapterEMA, init_args: {decay: 0.5}}"


def test_the_average_is_shared_and_dances_the_same(
    run_cli: Callable, small_cache: Path, tmp_path: Path
) -> None:
    run_cli(
        "fit",
        EXPORT,
        EMA,
        "--model.init_args.schedule.decay=constant",
        "--trainer.max_steps=4",
        cache=small_cache,
    )
    folder, saved = tmp_path / "adapter", tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(saved, weights_only=True)
    average = checkpoint["callbacks"]["AdapterEMA"]["average"]
    shared = read_folder(folder).tensors
    assert {f"model.{name}" for name in shared} == average.keys()
    assert all(torch.equal(shared[n.removeprefix("model.")], t) for n, t in average.items())
    assert any(not torch.equal(average[n], t) for n, t in checkpoint["state_dict"].items())
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["init_args"]["lora"]["rank"] == 2
    assert "4 optimizer steps" in (folder / "README.md").read_text()

    # The checkpoint, by the command, gives the same folder.
    convert(["checkpoint", str(saved), str(tmp_path / "converted")])
    folders = (folder, tmp_path / "converted")
    for file in ("pytorch_lora_weights", "adapter_model", "zica/diffusion_pytorch_model"):
        one, other = (load_file(f / f"{file}.safetensors") for f in folders)
        assert one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
    text = (tmp_path / "converted" / "config.yaml").read_text()
    assert yaml.safe_load(text)["model"]["init_args"]["lora"]["rank"] == 2

    # And the folder dances as the checkpoint does.
    requests = generation(music=str(write_tone(tmp_path / "a.wav")), prompts=["p"])
    run_cli("predict", EMA, *requests)
    start = f"--model.init_args.init_adapter={folder}"
    out = f"--video_writer.output_dir={tmp_path}/again/videos"
    run_cli("predict", "--ckpt_path=null", start, out, *requests)
    assert rows(tmp_path / "again")[0]["sha256"] == rows(tmp_path)[0]["sha256"]


def test_the_last_step_is_exported_saved_and_judged(
    small_parts: Path, small_cache: Path, tmp_path: Path
) -> None:
    """Three steps, of which every second is saved; and the same command once more."""
    run = [
        a.replace("every_n_train_steps: 1", "every_n_train_steps: 2")
        for a in arguments(tmp_path, small_parts, small_cache, workers=0, accumulation=2)
    ]
    run += ["--trainer.max_steps=3", EXPORT]
    for dropout in (0.25, 0.5):  # the second trains nothing, so it is not of the export
        main([*run, f"--data.init_args.caption_dropout={dropout}"])
        folder, last = tmp_path / "adapter", tmp_path / "checkpoints" / "last.ckpt"
        saved = torch.load(last, weights_only=True)
        assert saved["global_step"] == 3
        shared = read_folder(folder).tensors
        assert {f"model.{name}" for name in shared} == saved["state_dict"].keys()
        assert all(torch.equal(saved["state_dict"][f"model.{n}"], t) for n, t in shared.items())
        assert "3 optimizer steps" in (folder / "README.md").read_text()
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["data"]["init_args"]["caption_dropout"] == 0.25
        shutil.rmtree(folder)
    assert len((tmp_path / "record").read_text().splitlines()) == 3 * 2
    judged = main(["validate", *(a for a in run[1:] if a != EXPORT)])
    assert judged.trainer.ckpt_path == str(last)
