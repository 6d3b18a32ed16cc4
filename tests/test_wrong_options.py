"""A mistake in a config or an option ends in one sentence: key, file and line, the nearest name."""

from collections.abc import Callable
from pathlib import Path

import pytest

import evaluate
from dance_eval.commands.options import read_metrics
from musicinfuser.errors import UserError
from musicinfuser.option_parser import OptionParser
from sweeps.settings import build_executor, read_sweep
from tests.conftest import ROOT
from tests.sweeps.doors import write_sweep
from tests.sweeps.parsing import ParsingCLI
from train import main

SMALL = [f"--config={ROOT}/configs/base.yaml", f"--config={ROOT}/configs/small_world/small.yaml"]
# What the file holds -> what is said after its name.
IN_A_CONFIG = {
    "a typo in a group of the model": (
        "model:\n  init_args:\n    zica:\n      num_haeds: 4\n",
        ": line 4: model.init_args.zica.num_haeds is not known; did you mean num_heads?",
    ),
    "in a group that may be null": (
        "data:\n  init_args:\n    generation:\n      promts: [a]\n",
        ": line 4: data.init_args.generation.promts is not known; did you mean prompts?",
    ),
    "in a list of callbacks": (
        "trainer:\n  callbacks:\n    - class_path: callbacks.MemoryUse\n"
        "    - class_path: callbacks.AtomicCheckpoint\n      init_args: {every_n_trian_steps: 4}\n",
        ": line 5: trainer.callbacks[1].init_args.every_n_trian_steps is not known; did you mean "
        "every_n_train_steps?",
    ),
    "in what a source takes": (
        "data:\n  class_path: datamodules.EncodingDataModule\n  init_args:\n    sources:\n"
        "      - {class_path: datamodules.AISTDataset, init_args: {rot: x}}\n",
        ": line 5: data.init_args.sources[0].init_args.rot is not known; did you mean root?",
    ),
    "of the trainer": (
        "trainer:\n  max_stepz: 3\n",
        ": line 2: trainer.max_stepz is not known; did you mean max_steps?",
    ),
    "an option that a group has now": (
        "model:\n  init_args:\n    stream_blocks: true\n",
        ": line 3: model.init_args.stream_blocks is called memory.stream_blocks now.",
    ),
    "at the top": ("modell:\n  a: 3\n", ": line 1: modell is not known; did you mean model?"),
    "in init_args itself": (
        "model:\n  init_arg: {audio_width: 3}\n",
        ": line 2: model.init_arg is not known; did you mean init_args?",
    ),
    "a wrong type": (
        "model:\n  init_args:\n    zica:\n      num_heads: many\n",
        ": line 4: model.init_args.zica.num_heads: many does not fit; give a whole number.",
    ),
    "a wrong type in a list": (
        "model:\n  init_args:\n    validation:\n      sigmas: [0.5, big]\n",
        ": line 4: model.init_args.validation.sigmas[1]: big does not fit; give a number.",
    ),
    "a wrong choice": (
        "model:\n  init_args:\n    zica: {init: zeros}\n",
        ": line 3: model.init_args.zica.init: zeros does not fit; give one of zero, random.",
    ),
    "a value for a group": (
        "trainer: 3\n",
        ": line 1: trainer: 3 does not fit; give a group of keys with values.",
    ),
    "a value for a group of the model": (
        "model:\n  init_args:\n    zica: 3\n",
        ": line 3: model.init_args.zica: 3 does not fit; give a group of keys with values.",
    ),
    "an unknown class": (
        "data:\n  class_path: datamodules.DanceDatModule\n",
        ": line 2: data.class_path: datamodules.DanceDatModule does not exist; did you mean "
        "DanceDataModule?",
    ),
    "an unknown module": (
        "trainer:\n  callbacks:\n    - class_path: callback.MemoryUse\n",
        ": line 3: trainer.callbacks[0].class_path: callback.MemoryUse does not exist: no module "
        "callback; did you mean callbacks?",
    ),
    "a class of another kind": (
        "model:\n  class_path: datamodules.DanceDataModule\n",
        ": line 2: model.class_path: datamodules.DanceDataModule is no LightningModule; name one.",
    ),
    "a missing key": (
        "data:\n  class_path: datamodules.EncodingDataModule\n  init_args:\n    sources:\n"
        "      - class_path: datamodules.AISTDataset\n",
        ": line 5: data.init_args.sources[0].class_path: root of "
        "datamodules.AISTDataset must be given.",
    ),
    "a key that stands twice": (
        "trainer:\n  max_steps: 3\n  max_steps: 4\n",
        ", line 3: cannot be read as YAML (trainer.max_steps stands there a second time; keep one "
        "of the two).",
    ),
    "no YAML": (
        "model:\n  init_args: {zica: [1\ndata: 3\n",
        ", line 3: cannot be read as YAML (expected ',' or ']', but got ':').",
    ),
    "a key that stands in another group": (
        "model:\n  init_args:\n    optimizer: {lr: 0.1, warmup_steps: 3}\n",
        ": line 3: model.init_args.optimizer.warmup_steps is called schedule.warmup_steps now.",
    ),
    "options beside a class path": (
        "model:\n  init_args:\n    optimizer: {lr: 0.1, class_path: torch.optim.SGD}\n",
        ": line 3: model.init_args.optimizer.class_path does not stand beside options; put "
        "these under init_args.",
    ),
    "a list": ("- a\n", ": is no config; it must hold keys with values, `key: value`."),
    "a reference to nothing": (
        "model:\n  init_args:\n    seed: ${seed_everythin}\n",
        ": line 3: model.init_args.seed: ${seed_everythin} names no key; did you "
        "mean seed_everything?",
    ),
}
ON_THE_COMMAND_LINE = {
    "a typo": (
        ["--model.init_args.zica.num_haeds", "3"],
        "--model.init_args.zica.num_haeds is not known; did you mean num_heads?",
    ),
    "a typo at the top": (
        ["--modl.init_args.layers=[1]"],
        "--modl.init_args.layers: modl is not known; did you mean model?",
    ),
    "a typo of the trainer": (
        ["--trainer.max_stepz=3"],
        "--trainer.max_stepz is not known; did you mean max_steps?",
    ),
    "a shortened option is no option": (
        ["--trainer.max_step=3"],
        "--trainer.max_step is not known; did you mean max_steps?",
    ),
    "a typo within a value": (
        ["--data.init_args.generation", "{sedes: [1]}"],
        "--data.init_args.generation: sedes is not known; did you mean seeds?",
    ),
    "a wrong type": (
        ["--model.init_args.optimizer.lr=fast"],
        "--model.init_args.optimizer.lr: fast does not fit; give a number or a group of keys with "
        "values.",
    ),
    "a key that stands in another group": (
        ["--model.init_args.optimizer.schedule=constant"],
        "--model.init_args.optimizer.schedule is called schedule.decay now.",
    ),
    "an optimizer of a package that is not there": (
        ["--model.init_args.optimizer=bitsandbytes.optim.AdamW8bit"],
        "--model.init_args.optimizer: bitsandbytes is not installed; pip "
        "install 'bitsandbytes>=0.50,<0.51'.",
    ),
    "an argument that an optimizer has not": (
        ["--model.init_args.optimizer.learning_rate=1"],
        "--model.init_args.optimizer.learning_rate is not known; known are amsgrad, betas, "
        "capturable, class_path, differentiable, eps, foreach, fused, init_args, lr, maximize, "
        "weight_decay.",
    ),
    "a schedule without an argument": (
        ["--model.init_args.schedule=torch.optim.lr_scheduler.StepLR"],
        "--model.init_args.schedule: step_size of torch.optim.lr_scheduler.StepLR must be given.",
    ),
    "a typo of an optimizer": (
        ["--model.init_args.optimizer=torch.optim.AdmW"],
        "--model.init_args.optimizer: torch.optim.AdmW does not exist; did you mean AdamW?",
    ),
    "a wrong value in a group": (
        ["--model.init_args.lora.ranks={to_q: big}"],
        "--model.init_args.lora.ranks: big does not fit; give a whole number.",
    ),
    "a number in the place of a list": (
        ["--data.init_args.buckets=[73,64,64]"],
        "--data.init_args.buckets: 73 does not fit; give a list.",
    ),
    "a wrong choice of one of two kinds": (
        ["--model.init_args.layers={strategy: best}"],
        "--model.init_args.layers: best does not fit; give one of even, first, middle, last, all, "
        "adaptability.",
    ),
    "an unknown callback": (
        ["--trainer.callbacks+=callbacks.AdapterEM"],
        "--trainer.callbacks+: callbacks.AdapterEM does not exist; did you mean AdapterEMA?",
    ),
    "a callback without its module": (
        ["--trainer.callbacks+=AdapterEM"],
        "--trainer.callbacks+: AdapterEM is no class path; write module.Class, such as "
        "callbacks.AdapterEMA.",
    ),
    "no option at all": (
        ["foo"],
        "foo is no option; options begin with -- and follow the command.",
    ),
}


@pytest.fixture(scope="module")
def parser() -> OptionParser:
    return ParsingCLI(SMALL).parser


@pytest.fixture
def said(capsys: pytest.CaptureFixture) -> Callable:
    """``said(call)``: what a call ends with, without the name of the program."""

    def said(call: Callable[[], object]) -> str:
        with pytest.raises(SystemExit) as stop:
            call()
        assert stop.value.code == 2
        [line] = capsys.readouterr().err.splitlines()
        return line.partition(": ")[2]

    return said


@pytest.mark.parametrize("case", IN_A_CONFIG)
def test_in_a_config(parser: OptionParser, tmp_path: Path, said: Callable, case: str) -> None:
    content, sentence = IN_A_CONFIG[case]
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(content)
    arguments = [*SMALL, f"--config={overlay}"]
    assert said(lambda: parser.parse_args(arguments)) == f"{overlay}{sentence}"


@pytest.mark.parametrize("case", ON_THE_COMMAND_LINE)
def test_on_the_command_line(parser: OptionParser, said: Callable, case: str) -> None:
    arguments, sentence = ON_THE_COMMAND_LINE[case]
    assert said(lambda: parser.parse_args([*SMALL, *arguments])) == sentence


@pytest.mark.parametrize("verb", ["fit", "check"])
def test_through_the_door(tmp_path: Path, said: Callable, verb: str) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("beta_annealing: {half_lief_steps: 3}\n")
    assert said(lambda: main([verb, *SMALL, f"--config={overlay}"])) == (
        f"{overlay}: line 1: beta_annealing.half_lief_steps is not known; did you mean "
        "half_life_steps?"
    )
    assert said(lambda: main([verb, *SMALL, "--trainer.max_step", "3"])) == (
        "--trainer.max_step is not known; did you mean max_steps?"
    )


OF_TRAIN = "fit, validate, test, predict, check, sweep, status"
OF_EVALUATE = "report, score, table, sheet, side_by_side, pose, compare, study"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["chek"], f"chek is no command; did you mean check? Commands are {OF_TRAIN}."),
        (["zzz"], f"zzz is no command; known are {', '.join(sorted(OF_TRAIN.split(', ')))}."),
        ([], f"no command is given; name one of {OF_TRAIN}."),
        (["sweep"], "file must be given."),
    ],
)
def test_commands_of_train(said: Callable, arguments: list[str], sentence: str) -> None:
    assert said(lambda: main(arguments)) == sentence


def test_help_lists_all_commands(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    for command in OF_TRAIN.split(", "):
        assert any(line.split()[:1] == [command] for line in lines), command


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["scor"], f"scor is no command; did you mean score? Commands are {OF_EVALUATE}."),
        ([], f"no command is given; name one of {OF_EVALUATE}."),
        (["score"], "folders must be given."),
        (
            ["score", "x", "--num_worker", "2"],
            "--num_worker is not known; did you mean num_workers?",
        ),
        (["study", "build", "x", "y"], "raters must be given."),
        (["study", "build", "x", "--rater", "3"], "--rater is not known; did you mean raters?"),
    ],
)
def test_options_of_evaluate(said: Callable, arguments: list[str], sentence: str) -> None:
    assert said(lambda: evaluate.main(arguments)) == sentence


BEATS = "dance_eval.metrics.beat_alignment.BeatAlignment"
IN_A_METRICS_FILE = [
    (
        f"- class_path: {BEATS}\n  init_args: {{sigma_second: 0.05}}\n",
        ": line 2: [0].init_args.sigma_second is not known; did you mean sigma_seconds?",
    ),
    (
        f"- class_path: {BEATS}s\n",
        f": line 1: [0].class_path: {BEATS}s does not exist; ",
    ),
    (
        f"- class_path: {BEATS}\n  init_args: {{sigma_seconds: big}}\n",
        ": line 2: [0].init_args.sigma_seconds: big does not fit; give a number.",
    ),
    (
        f"- class_path: {BEATS}\n  class_path: {BEATS}\n",
        ", line 2: cannot be read as YAML ([0].class_path stands there a second time; keep one of",
    ),
    (f"- class_pat: {BEATS}\n", ": line 1: [0].class_pat is not known; did you mean class_path?"),
    (f"class_path: {BEATS}\n", f": {{'class_path': '{BEATS}'}} does not fit; give a list."),
]


@pytest.mark.parametrize(("content", "sentence"), IN_A_METRICS_FILE)
def test_in_a_metrics_file(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "metrics.yaml"
    path.write_text(content)
    with pytest.raises(UserError) as raised:
        read_metrics(path)
    assert str(raised.value).startswith(f"{path}{sentence}")


def test_in_a_sweep(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, [{"name": "Ours", "overlay": ["x"]}])
    line = path.read_text().splitlines().index("  overlay:") + 1
    with pytest.raises(UserError) as raised:
        read_sweep(path)
    assert str(raised.value) == (
        f"{path}: line {line}: rows[0].overlay is not known; did you mean overlays?"
    )
    for executor, sentence in [
        ({"class_path": "sweeps.gpu_slots.GpuSlot"}, "did you mean GpuSlots?"),
        (
            {
                "class_path": "sweeps.gpu_slots.GpuSlots",
                "init_args": {"cpu_run": 2},
            },
            "executor.cpu_run is not known; did you mean cpu_runs?",
        ),
    ]:
        spec = read_sweep(write_sweep(tmp_path, [{"name": "Ours"}], executor=executor))
        with pytest.raises(UserError) as raised:
            build_executor(spec)
        assert str(raised.value).endswith(sentence)


def test_null_is_null_in_a_nested_class_too(tmp_path: Path) -> None:
    nested = "--model.init_args.encoders"
    parsed = ParsingCLI(
        [
            *SMALL, f"{nested}.audio_subfolder=null", f"{nested}.audio_layer=null",
            "--model.init_args.zica.positions=none",
        ]
    )  # fmt: skip
    given = parsed.config["model"]["init_args"]
    assert given["encoders"]["audio_subfolder"] is given["encoders"]["audio_layer"] is None
    assert given["zica"]["positions"] == "none"
