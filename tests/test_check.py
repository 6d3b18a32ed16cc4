"""``train.py check`` finds what would go wrong, all of it, and starts nothing."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from musicinfuser.media.latents import caption_path, clip_paths, read_clip_header, write_clip
from musicinfuser.safetensors_files import save_tensors
from tests.conftest import ROOT, cli_arguments
from tests.ranks import run_alone
from train import main

WEIGHTS = Path("transformer", "diffusion_pytorch_model.safetensors")


@pytest.fixture
def parts(small_parts: Path, tmp_path: Path) -> Path:
    """Parts that a test may break."""
    return Path(shutil.copytree(small_parts, tmp_path / "parts"))


@pytest.fixture
def cache(small_cache: Path, tmp_path: Path) -> Path:
    """A cache that a test may break."""
    return Path(shutil.copytree(small_cache, tmp_path / "cache"))


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_nothing_wrong(check: Callable, tmp_path: Path, small_cache: Path, capsys) -> None:
    before = files(tmp_path) | files(small_cache)
    report = check()
    assert report.problems == []
    said = capsys.readouterr().out
    assert said.endswith("no problems found\n")
    titles = [title for title, _ in report.sections]
    assert titles == ["weights", "cache", "start", "training", "disk", "memory (an estimate)"]
    text = dict(report.sections)
    assert text["weights"].count("as expected") == 4
    assert "0 broken" in text["cache"] and "7 frames of 32x32 at 30 fps" in text["cache"]
    assert "from step 0" in text["start"]
    for part in ("ZICA", "LoRA", "audio projector"):
        assert any(part in line and "trained" in line for line in text["training"].splitlines())
    assert "audio after blocks: 0, 2" in text["training"]
    assert "together" in text["memory (an estimate)"]
    assert files(tmp_path) | files(small_cache) == before, "nothing is written"


def test_a_run_that_was_measured_to_learn_nothing_from_audio_is_told(check: Callable) -> None:
    zica = "--model.init_args.zica"

    def said(*options: str) -> int:
        report = check(*options)
        assert report.problems == []
        return dict(report.sections)["training"].count("results/zica_time.md): set aligned")

    assert said() == said("--trainer.max_steps=300") == 1
    # Two latent frames: a window of one more on each side is none.
    assert said(f"{zica}.frame_window=1") == 1
    assert said("--model.init_args.encoders.audio_features=[encoder]") == 1
    for elsewhere in (
        ["--trainer.max_steps=301"],
        [f"{zica}.positions=aligned"],
        [f"{zica}.frame_window=0"],
        [f"{zica}.form=feature_addition"],
        ["--model.init_args.layers=[]"],
    ):
        assert said(*elsewhere) == 0, elsewhere
    other = (
        "--model.init_args.encoders.audio_features=log_mel",
        "--model.init_args.audio_width=80",
    )
    report = check(*other)  # of which the cache has none
    assert "zica_time" not in dict(report.sections)["training"] and report.problems


def test_samples_of_the_caches_clips_are_named(check: Callable, cache: Path) -> None:
    options = ("--sample_generation.every_n_steps=2", f"--data.init_args.cache_dir={cache}")
    training = dict(check(*options).sections)["training"]
    assert "samples every 2 steps of held-out clips: " in training
    assert "gBR_sBM_c01_d04_mBR0_ch02.mp4 from 0" in training
    assert "samples" not in dict(check().sections)["training"]
    for path in (cache / "clips" / "aist").glob("*.safetensors"):
        if "held_out" in str(path.read_bytes()[:9000]):
            path.unlink()
    report = check(*options, "--data.init_args.validation_source=null")
    assert report.problems == []
    line = "no samples while training: the cache holds no clip of held-out music; name tracks"
    assert line in dict(report.sections)["training"]


def test_nothing_is_compiled(check: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("the compiler is loaded"))
    assert check("--model.init_args.memory.compile_blocks", "true").problems == []


def test_no_weights_are_loaded(check: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were asked for")

    monkeypatch.setattr("musicinfuser.networks.encoders.load_pretrained", refuse)
    monkeypatch.setattr("musicinfuser.networks.backbone.load_pretrained", refuse)
    monkeypatch.setattr("musicinfuser.media.latents.load_file", refuse)
    assert check().problems == []


WRONG = {
    "layer": (["--model.init_args.layers=[0, 3]"], ["layers names block 3, but the backbone"]),
    "heads": (["--model.init_args.zica.num_heads=7"], ["zica.num_heads is 7, which does not"]),
    "streamed blocks and their policy": (
        ["--model.init_args.memory.stream_blocks=true"],
        ["gradient_checkpointing is none, set it to full."],
    ),
    "blocks in two places": (
        [
            "--model.init_args.memory.offload_inputs=true",
            "--model.init_args.memory.gradient_checkpointing=full",
            "--model.init_args.shard_backbone=true",
        ],
        ["model.shard_backbone gathers each block's weights from the devices"],
    ),
    "nothing to train": (
        ["--model.init_args.layers=[]", "--model.init_args.lora=null"],
        ["nothing to train: no ZICA layers and no LoRA"],
    ),
    "several at once": (
        [
            "--model.init_args.lora.rank=0",
            "--model.init_args.zica.num_heads=0",
            "--data.init_args.caption_dropout=2",
            "--beta_annealing.initial=0.5",
            "--ckpt_path=/no/such.ckpt",
        ],
        [
            "zica.num_heads is 0",
            "lora.rank is 0",
            "data.caption_dropout is 2",
            "beta_annealing.initial is 0.5",
            "--ckpt_path names /no/such.ckpt, which does not exist",
        ],
    ),
    "other frames": (
        ["--data.init_args.num_frames=13"],
        ["num_frames: 7 in the cache, 13 in the config"],
    ),
    "other encoders": (
        ["--model.init_args.encoders.max_text_tokens=128"],
        ["was encoded with other encoders (max_text_tokens: 256 in the cache, 128 in the config)"],
    ),
    "absent sources": (
        ["--data.init_args.ratio={aist: 1, tiktok: 1, vimeo: 1}"],
        ["data.ratio asks for tiktok, but", "data.ratio asks for vimeo, but"],
    ),
    "nothing to mix": (
        ["--data.init_args.ratio={aist: 0, youtube: 0}"],
        ["data.ratio gives every source the share 0"],
    ),
    "no validation": (
        ["--data.init_args.validation_source=youtube"],
        ["holds no youtube held-out clip"],
    ),
    "tracks": (
        [
            "--sample_generation.every_n_steps=5",
            "--sample_generation.requests="
            "[{track: /no/a.wav, prompt: p}, {track: /no/b.wav, prompt: p, heard: /no/c.wav}]",
        ],
        [f"sample_generation.requests names /no/{letter}.wav, which does not" for letter in "abc"],
    ),
    "music to generate for": (
        [
            "--data.init_args.generation.music=['/no/such.wav']",
            "--data.init_args.generation.prompts=['p']",
        ],
        ["data.generation.music names /no/such.wav, which does not exist"],
    ),
    "no steps": (["--trainer.max_steps=-1"], ["trainer.max_steps must be set"]),
    "audio width": (
        ["--model.init_args.audio_width=32"],
        ["audio_encoder has the hidden_size 96, but model.audio_width is 32"],
    ),
    "missing parts": (
        [
            "--model.init_args.backbone.pretrained=/no/such/mochi",
            "--model.init_args.encoders.audio=/no/such/wav2vec2",
        ],
        [
            "the folder /no/such/mochi/transformer does not exist",
            "the folder /no/such/wav2vec2/audio_encoder does not exist",
        ],
    ),
    "checkpoints": (
        [
            "--trainer.callbacks=[{class_path: callbacks.AtomicCheckpoint, "
            "init_args: {dirpath: x, save_top_k: 3}}]"
        ],
        ["trainer: ModelCheckpoint(save_top_k=3, monitor=None) is not a valid configuration"],
    ),
    "right by themselves": (
        [
            "--model.init_args.sampling.fps=20",
            "--trainer.accumulate_grad_batches=0",
            "--model.init_args.objective.counterfactual={weight: 1, kind: other}",
            "--data.init_args.batch_size=1",
            "--trainer.callbacks+=callbacks.AdapterEMA",
            "--model.init_args.optimizer={class_path: schedulefree.AdamWScheduleFree}",
            "--model.init_args.schedule.decay=constant",
        ],
        [
            "data.fps is 30, but model.sampling.fps is 20",
            "trainer.accumulate_grad_batches is 0; it must be at least 1",
            "objective.counterfactual.kind is other",
            "schedulefree.AdamWScheduleFree averages the weights itself",
        ],
    ),
    "one piece of music": (
        [
            "--model.init_args.objective.counterfactual={weight: 1, kind: other}",
            "--data.init_args.ratio={aist: 1, youtube: 0}",
            "--data.init_args.training_share=0.01",
        ],
        ["counterfactual.kind is other, but all training clips have the music"],
    ),
    "no music": (
        ["--model.init_args.objective.counterfactual.weight=1", "--model.init_args.layers=[]"],
        ["model.objective.counterfactual compares other music, but model.layers is empty"],
    ),
    "adapter": (
        ["--model.init_args.init_adapter=/no/such/adapter"],
        ["model.init_adapter names /no/such/adapter, which does not exist"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_settings(check: Callable, capsys, case: str) -> None:
    arguments, expected = WRONG[case]
    report = check(*arguments)
    for part in expected:
        assert sum(part in problem for problem in report.problems) == 1, (part, report.problems)
    said = capsys.readouterr().out.partition("problems:\n")[2].splitlines()
    assert said == [f"  - {problem}" for problem in report.problems]


def test_no_cache(check: Callable, tmp_path: Path) -> None:
    report = check(cache=tmp_path / "none")
    (problem,) = report.problems
    assert "none holds no encoded clips; run `python train.py predict" in problem


def test_a_truncated_file_of_weights(check: Callable, parts: Path, small_cache: Path) -> None:
    path = parts / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    (problem,) = (p for p in check(parts=parts).problems if p.startswith(f"{path} cannot be read"))
    assert "not fully covered" in problem and "not copied or downloaded whole" in problem


def test_weights_of_another_architecture(check: Callable, parts: Path) -> None:
    tensors = load_file(parts / WEIGHTS)
    tensors["proj_out.bias"] = torch.zeros(3)
    tensors["stray"] = tensors.pop("proj_out.weight")
    save_tensors(tensors, parts / WEIGHTS)
    problems = " ".join(check(parts=parts).problems)
    assert "transformer: 1 tensor missing, e.g. proj_out.weight, in" in problems
    assert "transformer: 1 unknown tensor, e.g. stray, in" in problems
    assert "transformer: 1 tensor of another shape, e.g. proj_out.bias (3,), not (48,)," in problems


def test_a_broken_cache(check: Callable, cache: Path) -> None:
    broken, lacking, *_ = clip_paths(cache)
    caption = read_clip_header(clip_paths(cache)[-1]).caption
    caption_path(cache, caption).unlink()
    broken.write_bytes(broken.read_bytes()[:-100])
    report = check(cache=cache)
    assert sum(f"{broken} is not an encoded clip" in p for p in report.problems) == 1
    assert sum(f"e.g. {caption!r}; run the encode job again" in p for p in report.problems) == 1
    assert "1 broken" in dict(report.sections)["cache"]


def test_a_cache_of_two_kinds(check: Callable, cache: Path) -> None:
    path = clip_paths(cache)[-1]
    header = read_clip_header(path)
    tensors = load_file(path)
    write_clip(replace(header, recipe=replace(header.recipe, vae="another")), **tensors)
    (problem,) = check(cache=cache).problems
    assert "were encoded differently (vae: another, not" in problem


def test_a_full_disk(check: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preflight.disk.free_bytes", lambda path: 1000)
    (problem,) = check().problems
    assert "checkpoint need" in problem or "checkpoints need" in problem


def test_a_checkpoint_of_another_run(
    check: Callable, run_cli: Callable, small_cache: Path, tmp_path: Path
) -> None:
    run_cli("fit", cache=small_cache, root=tmp_path / "run")
    report = check("--trainer.max_steps=4")
    assert report.problems == []
    assert "from step 2 of 4" in dict(report.sections)["start"]
    assert "nothing is left to train" not in dict(report.sections)["start"]
    report = check("--trainer.max_steps=2")
    assert report.problems == []
    assert "nothing is left to train; raise trainer.max_steps" in dict(report.sections)["start"]
    (problem,) = check("--trainer.accumulate_grad_batches=3").problems
    assert "trained with 1 samples per optimizer step, this config has 3" in problem
    (problem,) = check("--model.init_args.lora.rank=3").problems
    assert "model.lora.rank: 2 in the checkpoint, 3 in the config" in problem
    (problem,) = check("--model.init_args.optimizer.lr=0.5").problems
    assert "optimizer.init_args.lr: 0.01 in the checkpoint, 0.5 in the config" in problem
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"PK nothing")
    (problem,) = check(f"--ckpt_path={broken}").problems
    assert problem.startswith(f"{broken} cannot be read as a checkpoint")


def test_the_recipe_of_the_small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the parts and the cache that ship."""
    monkeypatch.chdir(ROOT)
    cli = main(
        [
            "check",
            "--config=configs/base.yaml",
            "--config=configs/small_world/small.yaml",
            "--data.init_args.cache_dir=assets/small-cache",
        ]
    )
    assert cli.report.problems == []


def test_other_trainings_are_accepted(capsys) -> None:
    """The small parts' own trainings have no pretrained parts to look at."""
    cli = main(
        [
            "check",
            f"--config={ROOT}/configs/small_world/parts/vae.yaml",
            "--trainer.accelerator=cpu",
        ]
    )
    assert cli.report.problems == []
    assert "not looked at for this kind of model" in capsys.readouterr().out


def test_an_unknown_option_is_refused_as_by_fit(check: Callable, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        check("--model.init_args.rnak=3")
    assert stop.value.code == 2 and "rnak" in capsys.readouterr().err


def test_the_config_that_a_run_saved(small_parts: Path, tmp_path: Path, check: Callable) -> None:
    """It holds the options of its verb as well."""
    saved = tmp_path / "config_predict.yaml"
    saved.write_text("return_predictions: false\nweights_only: null\nverbose: true\n")
    assert check(f"--config={saved}").problems == []


def test_the_exit_code_tells(small_parts: Path, tmp_path: Path) -> None:
    arguments = cli_arguments(
        "check", "--data.init_args.num_frames=8", parts=small_parts, cache=tmp_path, root=tmp_path
    )
    done = run_alone(tmp_path, arguments, cwd=tmp_path)
    assert done.exit_code == 1, done.errors
    assert "num_frames is 8; Mochi takes 6k + 1 frames" in done.output
    assert "Traceback" not in done.errors
