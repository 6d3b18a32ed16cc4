"""The curves are computed again by hand from what each batch gave."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as L
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from callbacks import FiniteTraining, TrainingCurves
from tests.small_training import Line, batches, trainer
from tests.test_resume import assert_equal

EDGES = (0.0, 0.1, 0.6, 1.0)
CURVES = f"{{class_path: callbacks.TrainingCurves, init_args: {{sigma_edges: {list(EDGES)}}}}}"
SEEN = "{class_path: tests.callbacks.test_training_curves.Seen}"


class Seen(L.Callback):
    """Per sample its source, noise level and loss; per step the gradients."""

    def __init__(self) -> None:
        self.samples: list[tuple[str, float, float]] = []
        self.grads: list[dict[str, torch.Tensor]] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        named = pl_module.adapted.named_parameters()
        self.grads.append({n: p.grad.clone() for n, p in named if p.requires_grad})

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        for index, sigma, loss in zip(
            batch.sample_index, outputs["sigma"].tolist(), outputs["losses"].tolist(), strict=True
        ):
            source = trainer.datamodule.mixture[index].source
            self.samples.append((source, sigma, loss))


def seen_by(cli) -> Seen:
    [seen] = [c for c in cli.trainer.callbacks if type(c).__name__ == "Seen"]
    return seen


@pytest.fixture
def fit(run_cli: Callable, small_cache: Path, tmp_path: Path) -> Callable:
    def run(*callbacks: str, steps: int = 4, root: Path = tmp_path):
        checkpoint = (
            "{class_path: callbacks.AtomicCheckpoint, init_args: {dirpath: "
            f"{root}/checkpoints, every_n_train_steps: 1, save_last: true}}}}"
        )
        return run_cli(
            "fit",
            f"--trainer.callbacks=[{','.join([checkpoint, *callbacks])}]",
            f"--trainer.max_steps={steps}",
            "--trainer.log_every_n_steps=2",
            "--trainer.accumulate_grad_batches=2",
            "--trainer.gradient_clip_val=1e-3",
            "--data.init_args.batch_size=3",
            "--model.init_args.schedule.decay=constant",
            cache=small_cache,
            root=root,
        )

    return run


def test_losses_by_band_and_source_and_gradients_by_part(fit, events, tmp_path: Path) -> None:
    seen = seen_by(fit(CURVES, SEEN))
    logged = {
        tag: {e.step + 1: e.value for e in found}
        for tag, found in events(tmp_path, "scalars").items()
    }
    assert len(seen.samples) == 4 * 2 * 3 and len(seen.grads) == 4
    groups = {f"sigma_{a:.2f}_{b:.2f}": (a, b) for a, b in zip(EDGES, EDGES[1:], strict=False)}
    groups |= {"aist": "aist", "youtube": "youtube"}
    num_empty = 0
    for last in (2, 4):
        recent = [s for i, s in enumerate(seen.samples) if last - 2 <= i // 6 < last]
        for name, group in groups.items():
            own = [
                loss
                for source, sigma, loss in recent
                if (source == group if isinstance(group, str) else group[0] <= sigma < group[1])
            ]
            if own:
                expected = sum(own) / len(own)
                assert logged[f"train/loss_{name}"][last] == pytest.approx(expected, rel=1e-5)
            else:
                num_empty += 1
                assert last not in logged.get(f"train/loss_{name}", {})
        lengths = [
            {part: length(grads, part) for part in ("", "zica", "audio_projector", "lora")}
            for grads in seen.grads[last - 2 : last]
        ]
        for part in lengths[0]:
            name = f"train/grad_norm_{part}" if part else "train/grad_norm"
            mean = sum(step[part] for step in lengths) / 2
            assert logged[name][last] == pytest.approx(mean, rel=1e-5)
        longest = max(step[""] for step in lengths)
        assert longest > 2e-3  # it was clipped afterwards
        assert logged["train/grad_norm_max"][last] == pytest.approx(longest, rel=1e-5)
    assert num_empty < 6


def length(grads: dict[str, torch.Tensor], part: str) -> float:
    own = [g for name, g in grads.items() if name.startswith(part) or f".{part}_" in name]
    return math.sqrt(sum(g.square().sum().item() for g in own))


def test_weights_are_what_they_would_be_without_it_also_after_a_resume(fit, tmp_path: Path) -> None:
    fit(root=tmp_path / "without")
    fit(CURVES, "{class_path: callbacks.MemoryUse}", steps=3, root=tmp_path / "with")
    fit(CURVES, "{class_path: callbacks.MemoryUse}", root=tmp_path / "with")
    states = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("without", "with")
    ]
    assert [state["global_step"] for state in states] == [4, 4]
    assert_equal(states[0]["state_dict"], states[1]["state_dict"])
    assert_equal(states[0]["optimizer_states"], states[1]["optimizer_states"])


def test_the_device_is_asked_only_when_it_is_time_to_log() -> None:
    """Fake tensors on a GPU have no values, and refuse to be asked for any."""
    with FakeTensorMode():
        weight = torch.nn.Parameter(torch.empty(3, 2, device="cuda"))
        weight.grad = torch.empty_like(weight)
        part = torch.empty(2, device="cuda")
        module = SimpleNamespace(
            device=weight.device,
            parameters=lambda: [weight],
            trained_parts=lambda: {"zica": [weight]},
        )
        mixture = [SimpleNamespace(source=s) for s in ("aist", "youtube")]
        trainer = SimpleNamespace(
            datamodule=SimpleNamespace(ratio={"aist": 1, "youtube": 1}, mixture=mixture),
            log_every_n_steps=10,
            accumulate_grad_batches=1,
            global_step=9,
            fit_loop=SimpleNamespace(batch_idx=0),
            strategy=SimpleNamespace(reduce=lambda tensor, reduce_op: tensor),
        )
        batch = type("Batch", (list,), {"sample_index": (0, 1)})([0, 0])
        curves = TrainingCurves()
        curves.on_train_start(trainer, module)

        def step() -> None:
            curves.on_before_optimizer_step(trainer, module, None)
            outputs = {"loss": part.mean(), "losses": part, "sigma": part}
            curves.on_train_batch_end(trainer, module, outputs, batch, 0)

        step()
        trainer.global_step = 10
        with pytest.raises(DataDependentOutputException):
            step()


def test_a_skipped_step_is_left_out(tmp_path: Path) -> None:
    def norms(num: int, **bad) -> dict[str, torch.Tensor]:
        callbacks = FiniteTraining("skip"), TrainingCurves()
        run = trainer(tmp_path, *callbacks, num_steps=num, log_every_n_steps=num)
        run.fit(Line(), batches(num, **bad))
        return {n: v for n, v in run.callback_metrics.items() if n.startswith("train/grad")}

    with pytest.warns(UserWarning, match="step skipped"):
        found = norms(2, bad_gradient=(1,))
    assert found == norms(1)
    assert found["train/grad_norm"] == found["train/grad_norm_max"] > 0


@pytest.mark.parametrize("edges", [(), (0.0,), (0.1, 1.0), (0.0, 0.9), (0.0, 0.5, 0.5, 1.0)])
def test_bad_edges(edges: tuple) -> None:
    with pytest.raises(ValueError, match=r"sigma_edges is .*; give numbers that rise from 0 to 1"):
        TrainingCurves(edges)
