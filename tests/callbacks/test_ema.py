import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from callbacks import AdapterEMA, AtomicCheckpoint
from callbacks.ema import averaged_weights
from musicinfuser.media.audio import write_wav
from tests.small_training import Line, StepRecord, batches, trainer
from tests.test_resume import assert_equal

ON = "{class_path: callbacks.AdapterEMA, init_args: {decay: 0.9}}"


def average(callback: AdapterEMA) -> torch.Tensor:
    return callback.state_dict()["average"]["layer.weight"]


@pytest.mark.parametrize(("start_step", "every_n_steps"), [(0, 1), (3, 1), (2, 3)])
def test_follows_the_weights(tmp_path: Path, start_step: int, every_n_steps: int) -> None:
    record, ema = StepRecord(), AdapterEMA(0.25, start_step, every_n_steps)
    trainer(tmp_path, record, ema, num_steps=10).fit(Line(), batches(10))
    first = max(start_step, 1)
    expected, num_updates = record.weights[first], 0
    for weights in record.weights[first + every_n_steps :: every_n_steps]:
        # diffusers' warm-up: nothing is kept at the first update.
        decay = min(0.25, (1 + num_updates) / (10 + num_updates)) if num_updates else 0.0
        expected = decay * expected + (1 - decay) * weights
        num_updates += 1
    torch.testing.assert_close(average(ema), expected)
    assert not torch.allclose(average(ema), record.weights[-1], atol=1e-4)
    assert set(ema.state_dict()["average"]) == {"layer.weight", "layer.bias"}
    assert ema.state_dict()["num_updates"] == num_updates


def test_counts_optimizer_steps_not_batches(tmp_path: Path) -> None:
    ema = AdapterEMA()
    trainer(tmp_path, ema, num_steps=4, accumulate_grad_batches=3).fit(Line(), batches(12))
    assert ema.state_dict()["num_updates"] == 3


def test_validation_sees_the_average_and_training_does_not(tmp_path: Path) -> None:
    records, modules = (StepRecord(), StepRecord()), (Line(), Line())
    for record, module, extra in zip(records, modules, ([], [AdapterEMA(0.9)]), strict=True):
        trainer(
            tmp_path, record, *extra, num_steps=6, limit_val_batches=1,
            val_check_interval=3, check_val_every_n_epoch=None,
        ).fit(module, batches(6), batches(1))  # fmt: skip
    assert_equal(records[0].weights, records[1].weights)
    assert_equal(records[0].states, records[1].states)
    assert_equal(modules[0].state_dict(), modules[1].state_dict())
    assert torch.equal(modules[0].validated[1], records[0].weights[6])
    assert torch.equal(modules[1].validated[1], average(extra[0]))
    assert not torch.equal(modules[0].validated[1], modules[1].validated[1])


def test_before_its_start_there_is_no_average(tmp_path: Path) -> None:
    module, ema = Line(), AdapterEMA(start_step=9)
    run = trainer(tmp_path, ema, num_steps=3)
    run.fit(module, batches(3))
    before = module.layer.weight.clone()
    with averaged_weights(run, module):
        assert torch.equal(module.layer.weight, before)
    assert ema.state_dict() == {}


def test_a_checkpoint_holds_trained_weights_and_average(tmp_path: Path) -> None:
    module, ema = Line(), AdapterEMA(0.9)
    run = trainer(tmp_path, ema, num_steps=4)
    run.fit(module, batches(4))
    trained = module.layer.weight.detach().clone()
    run.strategy.connect(module)
    with pytest.raises(RuntimeError, match="in the middle"), averaged_weights(run, module):
        assert torch.equal(module.layer.weight, average(ema))
        run.save_checkpoint(tmp_path / "x.ckpt")
        raise RuntimeError("in the middle")
    assert torch.equal(module.layer.weight, trained)
    saved = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert torch.equal(saved["state_dict"]["layer.weight"], trained)
    assert torch.equal(saved["callbacks"]["AdapterEMA"]["average"]["layer.weight"], average(ema))


def test_predict_uses_the_average_of_the_checkpoint(tmp_path: Path) -> None:
    ema = AdapterEMA(0.9)
    saver = AtomicCheckpoint(tmp_path, filename="x", every_n_train_steps=4)
    trainer(tmp_path, ema, saver, num_steps=4).fit(Line(), batches(4))
    path = str(tmp_path / "x.ckpt")
    trained = torch.load(path, weights_only=True)["state_dict"]["layer.weight"]
    module = Line()
    [predicted] = trainer(tmp_path, AdapterEMA(0.9), num_steps=4).predict(
        module, batches(1), ckpt_path=path
    )
    assert torch.equal(predicted, average(ema))
    assert torch.equal(module.layer.weight, trained)
    with pytest.warns(UserWarning, match="callbacks used to create the checkpoint"):
        [plain] = trainer(tmp_path, num_steps=4).predict(Line(), batches(1), ckpt_path=path)
    assert torch.equal(plain, trained)


def test_average_of_other_weights_is_refused() -> None:
    ema = AdapterEMA()
    ema.load_state_dict({"average": {"layer.weight": torch.ones(2, 3)}, "num_updates": 1})
    with pytest.raises(ValueError, match="of other weights; first difference: layer.bias"):
        ema.on_validation_start(None, Line())


def test_resumes_to_the_bit_and_is_what_samples_and_predict_use(
    run_cli: Callable, small_cache: Path, tmp_path: Path
) -> None:
    track = tmp_path / "song.wav"
    write_wav(track, 0.4 * torch.sin(torch.arange(16_000) / 6), rate_hz=16_000)
    saver = "{class_path: callbacks.AtomicCheckpoint, init_args: {dirpath: FOLDER/checkpoints, " \
            "every_n_train_steps: 1, save_last: true, enable_version_counter: false}}"  # fmt: skip

    def fit(root: Path, num_steps: int) -> dict:
        callbacks = f"[{ON}, {saver.replace('FOLDER', str(root))}]"
        run_cli(
            "fit",
            f"--trainer.callbacks={callbacks}",
            f"--trainer.max_steps={num_steps}",
            "--model.init_args.schedule.decay=constant",
            "--sample_generation.every_n_steps=4",
            f"--sample_generation.requests=[{{track: {track}, prompt: a dance, seed: 5}}]",
            cache=small_cache,
            root=root,
        )
        return torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)

    whole = fit(tmp_path / "whole", 4)
    fit(tmp_path / "parted", 2)
    parted = fit(tmp_path / "parted", 4)
    for key in ("state_dict", "optimizer_states"):
        assert_equal(whole[key], parted[key])
    assert_equal(whole["callbacks"]["AdapterEMA"], parted["callbacks"]["AdapterEMA"])
    assert whole["callbacks"]["AdapterEMA"]["num_updates"] == 3

    def digest(folder: Path) -> str:
        [line] = (folder / "manifest.jsonl").read_text().splitlines()
        return json.loads(line)["sha256"]

    sampled = digest(tmp_path / "whole" / "samples" / "step_000004")
    for name, callbacks in (("average", f"[{ON}]"), ("trained", "[]")):
        run_cli(
            "predict",
            f"--trainer.callbacks={callbacks}",
            f"--ckpt_path={tmp_path}/whole/checkpoints/last.ckpt",
            f"--video_writer.output_dir={tmp_path}/{name}",
            f"--data.init_args.generation.music=['{track}']",
            "--data.init_args.generation.prompts=['a dance']",
            "--data.init_args.generation.seeds=[5]",
            "--data.init_args.generation.track_offset_seconds=0.0",
            root=tmp_path / "predict",
        )
    assert digest(tmp_path / "average") == sampled != digest(tmp_path / "trained")


def test_one_argument_switches_it_on(run_cli: Callable, small_cache: Path, tmp_path: Path) -> None:
    cli = run_cli("fit", "--trainer.callbacks+=callbacks.AdapterEMA", cache=small_cache)
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    averaged = saved["callbacks"]["AdapterEMA"]
    assert averaged["average"].keys() == cli.model.trainable_names()
    assert averaged["num_updates"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 1.0}, "decay is 1.0; it must be above 0 and below 1"),
        ({"start_step": -1}, "start_step is -1; it must be at least 0"),
        ({"every_n_steps": 0}, "every_n_steps is 0; it must be at least 1"),
    ],
)
def test_bad_settings(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdapterEMA(**options)
