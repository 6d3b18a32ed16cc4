"""A training of a small Wan that is killed and goes on, or has two processes; what it leaves."""

import json
import signal

import pytest
import torch
from safetensors.torch import load_file

from musicinfuser import MusicInfuserWanPipeline
from musicinfuser.convert import main as convert
from tests import small_wan
from tests.conftest import ROOT
from tests.ranks import run_alone, run_ranks
from tests.test_resume import assert_equal
from train import main


@pytest.fixture(scope="module")
def run(small_parts, media, tmp_path_factory):
    size = {"num_frames": 9, "height": 32, "width": 32}
    return small_wan.Runs(tmp_path_factory.mktemp("wan"), small_parts, media, size)


def long_run(run, root, *arguments, steps=4):
    """A training with an average, samples and an export; ``root`` exists afterwards."""
    root.mkdir(exist_ok=True)
    callbacks = (
        f"{{class_path: callbacks.AtomicCheckpoint, init_args: {{dirpath: {root}/checkpoints, "
        "every_n_train_steps: 1, save_last: true, enable_version_counter: false}}",
        f"{{class_path: tests.training_record.TrainingRecord, init_args: {{path: {root}/record}}}}",
        "{class_path: callbacks.AdapterEMA}",
        "{class_path: callbacks.AdapterExport}",
    )
    return run.line(
        "fit",
        f"--trainer.callbacks=[{', '.join(callbacks)}]",
        f"--trainer.max_steps={steps}",
        "--data.init_args.batch_size=2",
        "--data.init_args.caption_dropout=0.3",
        "--data.init_args.music_dropout=0.3",
        "--sample_generation.every_n_steps=4",
        *arguments,
        root=root,
    )


STREAMED = (
    "--model.init_args.memory.gradient_checkpointing=full",
    "--model.init_args.memory.stream_blocks=true",
    "--model.init_args.memory.offload_inputs=true",
)


@pytest.fixture(scope="module")
def whole_and_killed(run, tmp_path_factory):
    """Folders of a run, and of one that was killed in its third step and went on.

    The second also holds its weights and inputs in the host's memory, as the profiles do.
    """
    folder = tmp_path_factory.mktemp("wan_killed")
    whole, killed = folder / "whole", folder / "killed"
    main(long_run(run, whole))
    command = long_run(run, killed, *STREAMED)
    cut = [a.replace(f"{killed}/record", f"{killed}/record, at_step: 2") for a in command]
    assert run_alone(killed, cut, cwd=ROOT).exit_code == -signal.SIGKILL
    assert torch.load(killed / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2
    main(command)
    return whole, killed


def test_a_killed_run_goes_on_to_the_bit(whole_and_killed):
    records = [(root / "record").read_text() for root in whole_and_killed]
    assert records[0] == records[1] and records[0].count("\n") == 4
    one, other = (
        torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)
        for root in whole_and_killed
    )
    for group in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_equal(one[group], other[group])
    averages = [c["callbacks"]["AdapterEMA"]["average"] for c in (one, other)]
    assert_equal(*averages)
    assert not torch.equal(
        *(a["model.zica.0.to_out.weight"] for a in (averages[0], one["state_dict"]))
    )


def test_samples_are_made_while_it_trains(whole_and_killed):
    rows = [
        [json.loads(row) for row in path.read_text().splitlines()]
        for path in (root / "samples/step_000004/manifest.jsonl" for root in whole_and_killed)
    ]
    assert len(rows[0]) == 2 and {row["fps"] for row in rows[0]} == {16.0}
    videos = [
        [(root / "samples/step_000004" / row["file"]).read_bytes() for row in rows[0]]
        for root in whole_and_killed
    ]
    assert videos[0] == videos[1]


def test_what_it_exports_is_loaded_by_the_pipeline_and_converted_again(
    whole_and_killed, run, small_parts, tmp_path
):
    whole, killed = whole_and_killed
    folders = [root / "adapter" for root in whole_and_killed]
    files = ("zica/diffusion_pytorch_model.safetensors", "pytorch_lora_weights.safetensors")
    for name in files:
        assert_equal(*(load_file(folder / name) for folder in folders))
    again = tmp_path / "again"
    convert(["checkpoint", str(whole / "checkpoints" / "last.ckpt"), str(again)])
    for name in files:
        assert_equal(*(load_file(folder / name) for folder in (folders[0], again)))
    card = (again / "README.md").read_text()
    assert (
        f'MusicInfuserWanPipeline.from_pretrained("{run.parts}"' in card and "num_frames=81" in card
    )
    with pytest.raises(ValueError, match="holds adapters of Mochi; this one is of wan"):
        convert(["to-official", str(again), str(tmp_path / "official.safetensors")])
    audio = small_parts / "audio_encoder"
    pipeline = MusicInfuserWanPipeline.from_pretrained(
        run.parts, adapter=again, audio_encoder=audio
    )
    assert pipeline.zica.config.positions == "aligned" and pipeline.fps == 16.0
    stored = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)
    average = stored["callbacks"]["AdapterEMA"]["average"]
    name = "zica.0.to_out.weight"
    assert torch.equal(pipeline.zica.state_dict()[name], average[f"model.{name}"])


def test_two_processes_are_one_and_may_share_the_backbone(run, tmp_path):
    states = {}
    for name, options in (
        ("one", ["--data.init_args.batch_size=4"]),
        ("two", [f"--config={ROOT}/configs/ddp.yaml", "--trainer.devices=2"]),
        ("sharded", [f"--config={ROOT}/configs/ddp.yaml", f"--config={ROOT}/configs/sharded.yaml",
                     "--trainer.devices=2"]),
    ):  # fmt: skip
        root = tmp_path / name
        command = long_run(
            run, root, "--sample_generation.every_n_steps=0", "--trainer.accelerator=cpu",
            "--model.init_args.optimizer.eps=1e-4", *options, steps=2,
        )  # fmt: skip
        if name == "one":
            main(command)
        else:
            # The overlays come after the folder's own options.
            ended = run_ranks(root, command)
            assert [p.exit_code for p in ended] == [0, 0], ended[-1].output[-2000:]
        states[name] = torch.load(root / "checkpoints/last.ckpt", weights_only=True)
    for group in ("state_dict", "optimizer_states"):
        assert_equal(states["two"][group], states["sharded"][group])
    one, two = (states[name]["state_dict"] for name in ("one", "two"))
    for name, weight in one.items():
        assert torch.allclose(weight, two[name], rtol=0, atol=1e-4), name
