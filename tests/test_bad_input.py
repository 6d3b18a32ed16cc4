"""Wrong settings and missing files end in one clear sentence, before weights are read."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from musicinfuser.errors import UserError
from musicinfuser.media.audio import write_wav
from tests.conftest import cli_arguments
from tests.ranks import run_alone
from train import main

PROMPTS = "--data.init_args.generation.prompts=['p']"


@pytest.fixture(scope="module")
def parts_without_weights(small_parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parts whose transformer has a config only: reading its weights would be another error."""
    folder = tmp_path_factory.mktemp("hollow") / "parts"
    shutil.copytree(small_parts, folder)
    for path in (folder / "transformer").glob("*.safetensors"):
        path.unlink()
    return folder


@pytest.fixture
def run(parts_without_weights: Path, small_cache: Path, tmp_path: Path, monkeypatch) -> Callable:
    """``run(verb, *arguments, cache=...)`` with a transformer that cannot be read."""
    monkeypatch.chdir(tmp_path)

    def run(verb: str, *arguments: str, cache: Path = small_cache) -> object:
        return main(
            cli_arguments(
                verb, *arguments, parts=parts_without_weights, cache=cache, root=tmp_path / "run"
            )
        )

    return run


def test_without_weights_nothing_runs(run: Callable) -> None:
    """What the other tests rely on."""
    with pytest.raises(ValueError, match="MochiTransformer3DModel: nothing could be loaded"):
        run("fit")


FIT = {
    "missing cache folder": (
        ["--data.init_args.cache_dir=/no/such/cache"],
        "/no/such/cache holds no encoded clips; run",
    ),
    "layer outside": (
        ["--model.init_args.layers=[0, 3]"],
        "layers names block 3, but the backbone has 3 blocks; use 0 to 2",
    ),
    "negative layer": (["--model.init_args.layers=[-1]"], "layers names block -1"),
    "repeated layer": (["--model.init_args.layers=[1, 1]"], "layers repeats an index"),
    "strategy without scores": (
        ["--model.init_args.layers={strategy: adaptability}"],
        "adaptability' is known for 16 of 48 blocks only",
    ),
    "too many layers": (
        ["--model.init_args.layers={strategy: first, num_layers: 4}"],
        "layers.num_layers is 4, but the backbone has 3 blocks",
    ),
    "number of frames": (["--data.init_args.num_frames=8"], r"num_frames is 8; .* e.g. 7 or 13"),
    "height": (["--data.init_args.height=40"], "height is 40 px; it must be a multiple of 16"),
    "other frames than the cache": (
        ["--data.init_args.num_frames=13"],
        "num_frames: 7 in the cache, 13 in the config",
    ),
    "caption dropout": (
        ["--data.init_args.caption_dropout=1.5"],
        "data.caption_dropout is 1.5; it must be at least 0 and at most 1",
    ),
    "base prompt": (
        ["--data.init_args.base_prompt_probability=-0.1"],
        "data.base_prompt_probability is -0.1; it must be at least 0 and at most 1",
    ),
    "no max_steps": (["--trainer.max_steps=-1"], "trainer.max_steps must be set"),
    "absent source": (
        ["--data.init_args.ratio={aist: 1, tiktok: 1}"],
        "data.ratio asks for tiktok, but the cache has no training clip of it",
    ),
    "nothing to mix": (
        ["--data.init_args.ratio={aist: 0, youtube: 0}"],
        "data.ratio gives every source the share 0",
    ),
    "no validation clips": (
        ["--data.init_args.validation_source=youtube"],
        "holds no youtube held-out clip, so .* with a held_out_fraction, .* to aist or null",
    ),
    "no held-out clips to sample": (
        ["--sample_generation.every_n_steps=5", "--sample_generation.held_out_clips=0"],
        "sample_generation.held_out_clips is 0; it must be at least 1",
    ),
    "missing sample track": (
        [
            "--sample_generation.every_n_steps=5",
            "--sample_generation.requests=[{track: /no/such.wav, prompt: p}]",
        ],
        "sample_generation.requests names /no/such.wav, which does not exist",
    ),
    "missing weights folder": (
        ["--model.init_args.backbone.pretrained=/no/such/mochi"],
        "the folder /no/such/mochi/transformer does not exist",
    ),
    "missing encoders": (["--model.init_args.encoders.mochi=/no/such/mochi"], "/no/such/mochi"),
    "missing checkpoint": (["--ckpt_path=/no/such.ckpt"], "names /no/such.ckpt, which does not"),
    "rank": (["--model.init_args.lora.rank=0"], "lora.rank is 0; it must be at least 1"),
    "heads": (["--model.init_args.zica.num_heads=0"], "zica.num_heads is 0"),
    "rate": (["--model.init_args.optimizer.lr=-1"], "optimizer.lr is -1"),
    "steps": (["--model.init_args.sampling.num_steps=0"], "sampling.num_steps is 0"),
    "noise levels": (
        ["--model.init_args.validation.sigmas=[0.5, 2.0]"],
        r"validation.sigmas is \(0.5, 2.0\); give levels above 0, up to 1",
    ),
    "workers": (["--data.init_args.num_workers=-1"], "data.num_workers is -1"),
    "accumulation": (["--trainer.accumulate_grad_batches=0"], "accumulate_grad_batches is 0"),
    "trainer without record": (
        ["--trainer.barebones=true"],
        r"Lightning refuses the options of the trainer .`Trainer\(barebones=True",
    ),
    "strategy that is none": (["--trainer.strategy=foo"], "refuses .*`strategy='foo'`"),
    "no checkpoints with a callback for them": (
        ["--trainer.enable_checkpointing=false"],
        "refuses .*`enable_checkpointing=False` but found `ModelCheckpoint`",
    ),
    "beta below one": (["--beta_annealing.initial=0.5"], "beta_annealing.initial is 0.5"),
}


@pytest.mark.parametrize("case", FIT)
def test_fit(run: Callable, tmp_path: Path, case: str) -> None:
    arguments, message = FIT[case]
    with pytest.raises(ValueError, match=message) as error:
        run("fit", *arguments)
    assert_one_sentence(error.value)
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("case", ["missing", "empty", "a file"])
def test_no_cache(run: Callable, tmp_path: Path, case: str) -> None:
    cache = tmp_path / "cache"
    if case == "empty":
        cache.mkdir()
    elif case == "a file":
        cache.write_text("")
    for verb in ("fit", "validate"):
        with pytest.raises(ValueError, match=r"cache holds no encoded clips; run .*encode\.yaml"):
            run(verb, cache=cache)


def test_a_broken_clip_in_the_cache(run: Callable, small_cache: Path, tmp_path: Path) -> None:
    cache = Path(shutil.copytree(small_cache, tmp_path / "cache"))
    path = next((cache / "clips" / "aist").iterdir())
    path.write_bytes(path.read_bytes()[:-100])
    for verb in ("fit", "validate"):
        with pytest.raises(ValueError, match=f"{path} is not an encoded clip .* encode again"):
            run(verb, cache=cache)


def test_a_hub_id_that_is_not_here(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    # As HF_HUB_OFFLINE=1 does when it is set before the start.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="nothing could be loaded from nobody/mochi.*hf download"):
        run("fit", "--model.init_args.backbone.pretrained=nobody/mochi")


PREDICT = {
    "no request": ([], "predict needs data.generation"),
    "no prompts": (
        ["--data.init_args.generation.music=MUSIC", "--data.init_args.generation.prompts=[]"],
        "data.generation.prompts is empty",
    ),
    "missing music": (
        ["--data.init_args.generation.music=['/no/such.wav']", PROMPTS],
        "data.generation.music names /no/such.wav, which does not exist",
    ),
    "held-out music without a folder": ([PROMPTS], "needs data.generation.music_dir"),
    "missing prompt file": (
        [
            "--data.init_args.generation.music=MUSIC",
            "--data.init_args.generation.prompts=/no/such.yaml",
        ],
        "data.generation.prompts names /no/such.yaml, which does not exist",
    ),
    "number of frames": (
        [
            "--data.init_args.generation.music=MUSIC",
            PROMPTS,
            "--data.init_args.generation.num_frames=146",
        ],
        r"num_frames is 146; Mochi takes 6k \+ 1 frames, e.g. 145 or 151",
    ),
    "negative start": (
        [
            "--data.init_args.generation.music=MUSIC",
            PROMPTS,
            "--data.init_args.generation.track_offset_seconds=-2",
        ],
        "track_offset_seconds is -2",
    ),
    "missing weights folder": (
        [
            "--data.init_args.generation.music=MUSIC",
            PROMPTS,
            "--model.init_args.backbone.pretrained=/no/such/mochi",
        ],
        "the folder /no/such/mochi/transformer does not exist",
    ),
}


@pytest.mark.parametrize("case", PREDICT)
def test_predict(run: Callable, tmp_path: Path, case: str) -> None:
    arguments, message = PREDICT[case]
    write_wav(tmp_path / "song.wav", torch.zeros(16_000), rate_hz=16_000)
    arguments = [argument.replace("MUSIC", f"{tmp_path}/song.wav") for argument in arguments]
    with pytest.raises(ValueError, match=message) as error:
        run("predict", "--ckpt_path=null", *arguments)
    assert_one_sentence(error.value)
    assert not (tmp_path / "run" / "videos").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--model.init_args.layers={strategy: best}", "best"),
        ("--model.init_args.rnak=3", "rnak"),
        ("--data.init_args.ratioo={aist: 1}", "ratioo"),
        ("--trainer.max_stepz=3", "max_stepz"),
        ("--beta_annealing.mode=sudden", "sudden"),
        ("--config=/no/such.yaml", "/no/such.yaml"),
        ("--data.init_args.generation.sedes=[1]", "sedes"),
    ],
)
def test_refused_when_parsed(run: Callable, capsys, argument: str, message: str) -> None:
    with pytest.raises(SystemExit) as stop:
        run("fit", argument)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def assert_one_sentence(error: ValueError) -> None:
    """Said by this program, in one line that ends."""
    text = str(error)
    assert "\n" not in text and text.rstrip(")").endswith(".")
    assert isinstance(error, UserError)


def test_the_shell_gets_the_sentence_alone(small_parts: Path, tmp_path: Path) -> None:
    arguments = cli_arguments(
        "fit", "--data.init_args.num_frames=8", parts=small_parts, cache=tmp_path, root=tmp_path
    )
    done = run_alone(tmp_path, arguments, cwd=tmp_path)
    assert done.exit_code == 1
    assert "Traceback" not in done.errors
    assert done.errors.splitlines()[-1] == (
        "train.py: num_frames is 8; Mochi takes 6k + 1 frames, e.g. 7 or 13."
    )
