"""The training step, recomputed by hand from the files of the cache."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from datamodules.batch import ClipBatch, collate
from lightning_modules import MusicInfuserModule
from lightning_modules.settings import ObjectiveSpec, ValidationSpec
from lightning_modules.velocity import noise_of
from musicinfuser.keyed_random import generator
from musicinfuser.media.latents import caption_path
from tests.conftest import cli_arguments
from train import main

SEED = 42


def uniform(sample_index: int, purpose: str) -> float:
    return torch.rand((), generator=generator(SEED, sample_index, purpose)).item()


def normal(shape: torch.Size, sample_index: int, purpose: str) -> torch.Tensor:
    return torch.randn(shape, generator=generator(SEED, sample_index, purpose))


def shown_caption(clip: dict, sample_index: int) -> str:
    if uniform(sample_index, "caption dropout") < 0.1:
        return ""
    return clip["base_caption" if uniform(sample_index, "base prompt") < 0.2 else "caption"]


@torch.no_grad()
def loss_by_hand(
    module: MusicInfuserModule, cache: Path, source: str, clip_id: str, i: int, *, beta: float
) -> float:
    """Section 3 and 4.2 for one sample, with nothing of the module but its network."""
    path = cache / "clips" / source / f"{clip_id}.safetensors"
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata()
    clip, recipe, stored = (
        json.loads(metadata["clip"]),
        json.loads(metadata["recipe"]),
        load_file(path),
    )
    shape = stored["latent_mean"].shape
    spread = torch.exp(stored["latent_logvar"] / 2)
    latents = stored["latent_mean"] + spread * normal(shape, i, "training posterior")
    mean, std = (torch.tensor(recipe[f"latents_{k}"])[:, None, None, None] for k in ("mean", "std"))
    noise = normal(shape, i, "training noise")
    sigma = 1 - (1 - uniform(i, "sigma")) ** (1 / beta)
    if module.objective.latent_space == "normalised":
        latents = (latents - mean) / std
        target = latents - noise
    else:
        target = (latents - noise - mean) / std
    caption = shown_caption(clip, i)
    text = torch.zeros(1, 0, 64)
    if caption:
        text = load_file(caption_path(cache, caption))["features"][None]
    predicted = module.adapted(
        ((1 - sigma) * latents + sigma * noise)[None],
        text,
        torch.tensor([1000 * (1 - sigma)]),
        encoder_attention_mask=torch.ones(text.shape[:2]),
        audio_features=stored["audio"][None],
    )
    return (predicted - target).square().mean().item()


def samples(module_cli, num_samples: int) -> list[tuple[str, str, int]]:
    data = module_cli.datamodule
    keys = [data.mixture[i] for i in range(num_samples)]
    return [(k.source, data.training_clips.clips[k.source][k.index].clip_id, k.sample_index)
            for k in keys]  # fmt: skip


def batches(cli, batch_size: int, num_samples: int) -> list[ClipBatch]:
    """The run's first batches, as the loader would give them for a batch size."""
    data = cli.datamodule
    items = [data.training_clips[data.mixture[i]] for i in range(num_samples)]
    return [collate(items[i : i + batch_size]) for i in range(0, num_samples, batch_size)]


@pytest.mark.parametrize("latent_space", ["normalised", "authors"])
def test_logged_loss_is_the_papers(
    run_cli, small_cache: Path, tmp_path: Path, latent_space: str
) -> None:
    """Each step's loss, computed again from the files with the weights the step began with."""
    arguments = [
        f"--model.init_args.objective.latent_space={latent_space}",
        "--data.init_args.batch_size=2",
        "--beta_annealing.half_life_steps=2",
        "--model.init_args.schedule.decay=constant",
    ]
    trained = run_cli("fit", *arguments, "--trainer.max_steps=2", cache=small_cache).model
    before = {name: tensor.clone() for name, tensor in trained.adapted.state_dict().items()}
    cli = run_cli("fit", *arguments, "--trainer.max_steps=3", cache=small_cache)
    logged = cli.trainer.callback_metrics["train/loss"].item()
    cli.model.adapted.load_state_dict(before)
    assert before["zica.0.to_out.weight"].abs().max() > 0
    third = samples(cli, 6)[4:]
    assert [i for _, _, i in third] == [4, 5]
    by_hand = [
        loss_by_hand(cli.model, small_cache, *sample, beta=1 + 2 * 2 ** (-2 / 2))
        for sample in third
    ]
    assert logged == pytest.approx(sum(by_hand) / 2, rel=1e-5)
    assert abs(by_hand[0] / by_hand[1] - 1) > 1e-3


@pytest.fixture(scope="module")
def trained(small_parts: Path, small_cache: Path, tmp_path_factory: pytest.TempPathFactory):
    """A run whose adapters are not zero any more; tests only look at it."""
    steps = ("--trainer.max_steps=3", "--model.init_args.schedule.decay=constant")
    world = {"parts": small_parts, "cache": small_cache, "root": tmp_path_factory.mktemp("trained")}
    return main(cli_arguments("fit", *steps, **world))


@torch.no_grad()
def losses(cli, batch: ClipBatch, level: float = 0.7) -> list[float]:
    sigma = torch.full((len(batch),), level)
    return cli.model.velocity_losses(batch, sigma, audio=batch.audio, purpose="training").tolist()


def test_a_samples_loss_does_not_depend_on_its_company(trained) -> None:
    alone = [loss for batch in batches(trained, 1, 8) for loss in losses(trained, batch)]
    for batch_size in (2, 4, 8):
        parts = batches(trained, batch_size, 8)
        assert any(len(set(batch.text_lengths)) > 1 for batch in parts)
        together = [loss for batch in parts for loss in losses(trained, batch)]
        assert together == pytest.approx(alone, rel=2e-5)


@torch.no_grad()
def test_a_sample_without_its_music_is_predicted_without(run_cli, trained, small_cache) -> None:
    """Whatever it was batched with; of the run's own clips, every sample of which lacks a part."""
    shares = {"caption": 0.25, "music": 0.25, "both": 0.25}
    cli = run_cli(
        "fit", "--trainer.max_steps=1", "--data.init_args.batch_size=2",
        *(f"--data.init_args.{part}_dropout={share}" for part, share in shares.items()),
        cache=small_cache,
    )  # fmt: skip
    assert math.isfinite(cli.trainer.callback_metrics["train/loss"])
    cli.model.adapted.load_state_dict(trained.model.adapted.state_dict())
    expected, heard = [], []
    for batch in batches(cli, 1, 8):
        heard.append(batch.music_weight.item())
        audio = batch.audio if heard[-1] else None
        sigma = torch.full((1,), 0.7)
        expected.append(
            cli.model.velocity_losses(batch, sigma, audio=audio, purpose="training").item()
        )
    assert set(heard) == {0, 1}
    together = [loss for batch in batches(cli, 8, 8) for loss in losses(cli, batch)]
    assert together == pytest.approx(expected, rel=2e-5)
    deaf = [loss != pytest.approx(own, rel=1e-4) for own, loss in zip(
        expected,
        [x for b in batches(cli, 1, 8) for x in losses(cli, replace(b, music_weight=None))],
        strict=True,
    )]  # fmt: skip
    assert deaf == [not h for h in heard]


def test_noise_depends_on_the_sample_index_only(trained) -> None:
    [batch] = batches(trained, 2, 2)
    same = replace(batch, sample_index=(7, 7))
    noise = noise_of(same, "training noise", seed=SEED)
    assert torch.equal(noise[0], noise[1])
    other = noise_of(batch, "training noise", seed=SEED)
    assert not torch.equal(other[0], other[1])
    torch.manual_seed(0)
    assert torch.equal(noise_of(batch, "training noise", seed=SEED), other)
    assert not torch.equal(noise_of(batch, "training posterior", seed=SEED), other)


def test_batches_of_two_equal_two_batches_of_one(run_cli, small_cache: Path, tmp_path: Path):
    """A whole run: accumulation only splits the batch."""
    weights = []
    for batch_size, accumulation in ((2, 1), (1, 2)):
        cli = run_cli(
            "fit",
            f"--data.init_args.batch_size={batch_size}",
            f"--trainer.accumulate_grad_batches={accumulation}",
            "--trainer.max_steps=3",
            "--model.init_args.optimizer.eps=1.0e-3",
            cache=small_cache,
            root=tmp_path / str(batch_size),
        )
        weights.append({n: p for n, p in cli.model.named_parameters() if p.requires_grad})
    for name, weight in weights[0].items():
        assert torch.allclose(weight, weights[1][name], atol=1e-4), name


def test_only_adapters_change_and_only_they_have_gradients(trained, small_parts: Path) -> None:
    model = trained.model.adapted
    published = load_file(small_parts / "transformer" / "diffusion_pytorch_model.safetensors")
    held = {
        name.replace(".base_layer", ""): p
        for name, p in model.backbone.named_parameters()
        if "lora_" not in name
    }
    assert held.keys() == published.keys()
    for name, tensor in published.items():
        assert torch.equal(held[name], tensor), name
        # The optimizer clears the gradients of adapters only; one of these would still be there.
        assert not held[name].requires_grad and held[name].grad is None
    changed = {n: p.abs().max().item() for n, p in model.named_parameters() if p.requires_grad
               and (n.endswith("lora_B.default.weight") or "to_out" in n)}  # fmt: skip
    assert len(changed) > 10
    unused = {n for n, size in changed.items() if size == 0}
    # The last block's text stream ends there: its output leads nowhere.
    assert all(f".{model.backbone.config.num_layers - 1}." in n for n in unused), unused


def test_optimizer_holds_exactly_the_adapters(trained) -> None:
    module = trained.model
    [optimizer] = trained.trainer.optimizers
    assert type(optimizer) is torch.optim.AdamW
    [group] = optimizer.param_groups
    names = {id(p): n for n, p in module.named_parameters()}
    assert len(group["params"]) == len({id(p) for p in group["params"]})
    assert {names[id(p)] for p in group["params"]} == module.trainable_names()
    expected = {
        name
        for name in names.values()
        if "lora_" in name or name.startswith(("model.zica.", "model.audio_projector."))
    }
    assert module.trainable_names() == expected
    zica = {n for n in expected if n.startswith("model.zica.")}
    assert {n.split(".")[2] for n in zica} == {"0", "2"} and len(zica) == 2 * 8
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.999), 1e-8, 0.0)
    assert {p.dtype for p in group["params"]} == {torch.float32}


def test_optimizer_settings_arrive(run_cli, small_cache: Path) -> None:
    cli = run_cli(
        "fit",
        "--model.init_args.optimizer.weight_decay=0.1",
        "--model.init_args.optimizer.betas=[0.8, 0.95]",
        "--model.init_args.optimizer.eps=1.0e-6",
        "--model.init_args.optimizer.lr=3.0e-3",
        "--model.init_args.lora=null",
        cache=small_cache,
    )
    [group] = cli.trainer.optimizers[0].param_groups
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.8, 0.95), 1e-6, 0.1)
    assert group["initial_lr"] == 3e-3
    assert not any("lora" in name for name in cli.model.trainable_names())


def test_learning_rate_of_a_run(run_cli, small_cache: Path, tmp_path: Path) -> None:
    """The rate each step was made with: 0, half, the peak, and down a cosine."""
    record = tmp_path / "record"
    run_cli(
        "fit",
        "--trainer.max_steps=6",
        "--model.init_args.schedule.warmup_steps=2",
        "--trainer.callbacks=[{class_path: tests.training_record.TrainingRecord, init_args: "
        f"{{path: {record}}}}}]",
        cache=small_cache,
    )
    # Written after a step: the rate of the next one.
    after = [json.loads(line)["lr"] for line in record.read_text().splitlines()]
    cosine = [0.005 * (1 + math.cos(math.pi * k / 4)) for k in range(5)]
    assert after == pytest.approx([0.005, *cosine])


def test_step_zero_has_rate_zero(run_cli, small_cache: Path) -> None:
    first = run_cli("fit", "--trainer.max_steps=1", cache=small_cache).model
    assert all((layer.to_out.weight == 0).all() for layer in first.adapted.zica.values())
    second = run_cli("fit", "--trainer.max_steps=2", cache=small_cache).model
    assert all((layer.to_out.weight != 0).any() for layer in second.adapted.zica.values())


def test_a_run_without_any_caption(run_cli, small_cache: Path) -> None:
    cli = run_cli("fit", "--data.init_args.caption_dropout=1.0", cache=small_cache)
    assert math.isfinite(cli.trainer.callback_metrics["train/loss"])
    assert all(p.isfinite().all() for p in cli.model.parameters())


def test_gradient_checkpointing_changes_nothing(run_cli, small_cache: Path, tmp_path: Path) -> None:
    weights = [
        run_cli(
            "fit",
            f"--model.init_args.memory.gradient_checkpointing={policy}",
            "--trainer.max_steps=3",
            cache=small_cache,
            root=tmp_path / policy,
        ).model.state_dict()
        for policy in ("none", "attention", "full")
    ]
    for other in weights[1:]:
        assert all(torch.equal(weights[0][name], other[name]) for name in other)


def test_nothing_to_train_is_refused(run_cli, small_cache: Path) -> None:
    with pytest.raises(ValueError, match="nothing to train: no ZICA layers and no LoRA"):
        run_cli(
            "fit", "--model.init_args.layers=[]", "--model.init_args.lora=null", cache=small_cache
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ValidationSpec(sigmas=()), "validation.sigmas is"),
        (lambda: ValidationSpec(sigmas=(0.0, 0.5)), "give levels above 0"),
        (lambda: ValidationSpec(sigmas=(1.2,)), "up to 1"),
    ],
)
def test_bad_settings(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_default_objective_is_the_space_mochi_was_trained_in() -> None:
    assert ObjectiveSpec().latent_space == "normalised"
