"""README and docs: their commands are run or say what they need."""

import argparse
import math
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import jsonargparse
import pytest
import torch

import evaluate
import train
from musicinfuser import MusicInfuserPipeline
from musicinfuser.convert import main as convert
from musicinfuser.errors import UserError
from musicinfuser.media.audio import clip_audio_seconds
from musicinfuser.media.latents import clip_paths, read_clip, read_clip_header, read_headers
from musicinfuser.media.video import probe_video
from musicinfuser.networks.audio_encoder import AudioTimes
from musicinfuser.networks.origin import Origin
from tests.audio_encoders import write_audio_encoder
from tests.conftest import ROOT, cli_arguments, encode_arguments, write_moving_square
from tests.dancing_square import click_track
from tests.scored_dances import write_dance
from tests.test_doc_links import PAGES, assert_target

# What a command that no test runs must say that it needs, in the paragraph before its block.
MARK = re.compile(
    r"\([^)]*\bneeds (weights|a GPU|a cluster|a cache|a judge server|the network|time)\b"
)
# Commands that are too long for this file, and the test that runs them on something small.
RUN_BY = {
    "make demo": "tests/test_end_to_end.py::test_chain",
    "make test": ".ci/run",
    "make lint": ".ci/run",
    "python -m pytest": ".ci/run",
    "python train.py check": "tests/test_check.py::test_settings",
    "python train.py sweep configs/sweeps/small_table1.yaml": "tests/sweeps/test_real_runs.py::"
    "test_two_rows_from_training_to_the_table",
    "python train.py status": "tests/sweeps/test_real_runs.py::"
    "test_two_rows_from_training_to_the_table",
    "python train.py validate --config configs/adaptability.yaml --config "
    "configs/small_world/adaptability.yaml": "tests/test_layer_adaptability.py::"
    "test_cut_off_and_resumed_equals_uninterrupted_and_is_scored",
    "python -m musicinfuser.convert checkpoint": "tests/sharing/test_record.py::"
    "test_the_card_names_what_was_trained",
    "python -m musicinfuser.convert from-official": "tests/sharing/test_convert.py::"
    "test_the_authors_adapter_and_back_exactly",
    "python -m musicinfuser.convert to-official": "tests/sharing/test_convert.py::"
    "test_the_authors_adapter_and_back_exactly",
    "python -m musicinfuser.convert to-comfyui": "tests/sharing/test_comfyui.py::"
    "test_weights_are_those_of_our_lora",
    "python -m musicinfuser.convert backbone": "tests/sharing/test_convert.py::"
    "test_the_backbone_equals_what_training_reads",
    "python -m small_world.generator": "tests/test_end_to_end.py::test_chain",
    "python evaluate.py report SET/ground_truth": "tests/test_end_to_end.py::test_chain",
    "python evaluate.py sheet": "tests/test_end_to_end.py::test_chain",
    "python evaluate.py side_by_side": "tests/dance_eval/commands/test_pictures.py::"
    "test_systems_stand_beside_each_other_for_each_song_they_share",
    "python evaluate.py study build": "tests/dance_eval/study/test_build.py::"
    "test_pairs_show_the_two_systems_on_the_same_music",
    "python evaluate.py study analyse": "tests/dance_eval/study/test_analysis.py::"
    "test_tables_plots_and_page_are_written",
    "python evaluate.py score FOLDER --metrics dance_eval/configs/pose_metrics.yaml": "tests/"
    "dance_eval/commands/test_pose_metrics.py::"
    "test_joints_beside_clips_give_all_definitions_beside_each_other",
    "python evaluate.py score OURS WAN_DANCER": "tests/dance_eval/commands/test_pose_metrics.py::"
    "test_joints_beside_clips_give_all_definitions_beside_each_other",
    "python evaluate.py table pose.json pictures.json": "tests/dance_eval/commands/"
    "test_table_command.py::test_one_papers_table_of_several_files_of_scores",
    "python evaluate.py compare": "tests/dance_eval/judges/test_comparison.py::"
    "test_the_better_wins_in_both_orders_and_a_bias_is_stated",
    "python -m small_world.experiments.keep_table": "tests/small_world/experiments/"
    "test_keep_table.py::test_a_complete_table_is_copied_under_the_sweep_s_name",
    "python -m small_world.experiments.changed_clips CLIPS/ground_truth": "tests/small_world/"
    "experiments/test_changed_clips.py::test_late_dances_follow_their_sound",
    "python -m musicinfuser.app": "tests/app/test_options.py::"
    "test_the_small_mochi_dances_out_of_the_box",
}
# Commands that `test_commands_on_clips` runs as they stand, in this order.
RUN_HERE = (
    "python evaluate.py score FOLDER --output metrics.json",
    "python evaluate.py table metrics.json",
    "python evaluate.py report BASE ADAPTED",
    "python evaluate.py score FOLDER --metrics brightness.yaml",
    "python -m datamodules.report CACHE",
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the paragraph before it."""

    page: str
    language: str
    text: str
    before: str

    @property
    def is_marked(self) -> bool:
        return bool(MARK.search(" ".join(self.before.split())))

    @property
    def file_name(self) -> str | None:
        """Of a block that is the text of a file, as its first line says."""
        found = re.match(r"# (\w+\.(?:py|yaml))\n", self.text)
        return found and found[1]


@cache
def blocks() -> tuple[Block, ...]:
    pattern = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in pattern.finditer(text):
            before = text[: match.start()].rstrip().rpartition("\n\n")[2]
            found.append(Block(page.name, match[1], match[2], before))
    return tuple(found)


def commands() -> Iterator[tuple[Block, str]]:
    """Commands of all shell blocks, each on one line, without comments and environment."""
    for block in blocks():
        pending = ""
        for line in block.text.splitlines() if block.language == "sh" else ():
            pending += line
            if pending.endswith("\\"):
                pending = f"{pending[:-1]} "
                continue
            try:
                words = shlex.split(pending, comments=True)
            except ValueError:  # a quoted value goes on in the next line
                pending += " "
                continue
            if words:
                yield block, shlex.join(words)
            pending = ""
        assert not pending, f"{block.page}: a command is not closed: {pending}"


COMMANDS = list(commands())
NAMES = [f"{block.page} {line[:60]}" for block, line in COMMANDS]


@pytest.mark.parametrize(("block", "line"), COMMANDS, ids=NAMES)
def test_a_command_is_run_by_a_test_or_says_what_it_needs(block: Block, line: str) -> None:
    tests = [test for start, test in RUN_BY.items() if line.startswith(start)]
    assert block.is_marked or tests or line.startswith(RUN_HERE), (
        f"{block.page}: no test runs `{line}`; name one in RUN_BY, or say what it needs before "
        "the block, e.g. (needs weights)"
    )
    for test in tests:
        path, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / path).read_text() if name else (ROOT / path).exists()


class ParsedError(BaseException):
    """A command line was understood; nothing is done."""


@contextmanager
def parsing_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The outermost parser of a command ends it once it has understood all of its options."""
    depth = 0

    def ending(parse_args):
        def wrapped(self, *args, **kwargs):
            nonlocal depth
            depth += 1
            try:
                parsed = parse_args(self, *args, **kwargs)
            finally:
                depth -= 1
            if depth == 0:
                raise ParsedError
            return parsed

        return wrapped

    with monkeypatch.context() as patch, pytest.raises(ParsedError):
        for parser in (argparse.ArgumentParser, jsonargparse.ArgumentParser):
            patch.setattr(parser, "parse_args", ending(parser.__dict__["parse_args"]))
        yield


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the checkout, with the files that the pages speak of."""
    root = tmp_path_factory.mktemp("sandbox")
    for name in ("assets", "configs", "train.py", "evaluate.py"):
        (root / name).symlink_to(ROOT / name)
    record = root / "runs" / "base" / "logs" / "config_fit.yaml"
    record.parent.mkdir(parents=True)
    record.symlink_to(ROOT / "configs" / "base.yaml")
    (root / "CACHE").symlink_to(ROOT / "assets" / "small-cache")
    write_song(root / "song.mp3", seconds=3.0)
    for system, phase in (("BASE", 0.1), ("ADAPTED", 0.2)):
        (root / system).mkdir()
        rows = "".join(f"{n}.mp4,{system},../{n}.wav,a dancer,0\n" for n in ("a", "b"))
        (root / system / "clips.csv").write_text(f"file,system,track,prompt,seed\n{rows}")
        for number, name in enumerate(("a", "b")):
            path = root / system / f"{name}.mp4"
            write_dance(path, phase_seconds=phase, beats=[0.2 + 0.1 * number, 0.7, 1.2])
    for number, name in enumerate(("a", "b")):
        write_song(root / f"{name}.wav", seconds=3.0, start=0.1 * number)
    (root / "FOLDER").symlink_to(root / "ADAPTED")
    write_moving_square(root / "stage" / "tango" / "one.mp4", number=1)
    for block in blocks():
        if block.file_name:
            text = block.text.replace("/data/stage", str(root / "stage"))
            (root / block.file_name).write_text(text)
    return root


def write_song(path: Path, *, seconds: float, start: float = 0.0) -> None:
    import av

    beats = [start + 0.5 * i for i in range(int(2 * seconds) - 1)]
    sound = click_track(beats, duration_seconds=seconds, rate_hz=44_100).numpy()[None]
    with av.open(str(path), "w") as container:
        codec = {".mp3": "mp3", ".wav": "pcm_s16le"}[path.suffix]
        stream = container.add_stream(codec, rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
        frame.sample_rate = 44_100
        fitting = av.AudioResampler(stream.format, stream.layout, stream.rate)
        for part in (*fitting.resample(frame), None):
            container.mux(stream.encode(part))


@pytest.fixture
def in_sandbox(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(sandbox)
    monkeypatch.syspath_prepend(str(sandbox))
    return sandbox


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run ``python ...`` in this process."""
    if words[:2] == ["python", "evaluate.py"]:
        return evaluate.main(words[2:])
    if words[:2] == ["python", "train.py"]:
        return train.main(words[2:])
    assert words[:2] == ["python", "-m"], words
    monkeypatch.setattr(sys, "argv", words[2:])
    is_package = find_spec(words[2]).submodule_search_locations is not None
    import_module(f"{words[2]}.__main__" if is_package else words[2]).main()
    return None


@pytest.mark.parametrize(("block", "line"), COMMANDS, ids=NAMES)
def test_the_options_of_a_command_exist(
    block: Block, line: str, in_sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(line)
    if words[0] == "make":
        assert_target(words[1])
    elif words[:2] == ["pip", "install"]:
        extras = re.fullmatch(r"\.\[(\w+)\]", words[2])
        assert extras and f"\n{extras[1]} = [" in (ROOT / "pyproject.toml").read_text()
    elif words[:3] == ["python", "-m", "pytest"]:
        assert all((ROOT / path).exists() for path in words[3:])
    else:
        if words[0] == "sbatch":
            assert "train.py fit" in Path(words[1]).read_text()
            words = ["python", "train.py", "fit", *words[2:]]
        with parsing_only(monkeypatch):
            run(words, monkeypatch)


def test_an_option_that_does_not_exist_is_noticed(
    in_sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each kind of parser; what is understood gets through."""
    for line in (
        "python train.py fit --config configs/base.yaml --model.init_args.rnak 3",
        "python evaluate.py score FOLDER --metric x",
        "python -m datamodules.report CACHE --outt FOLDER",
        "python train.py status FOLDER --onec",
    ):
        words = shlex.split(line)
        with pytest.raises(SystemExit), parsing_only(monkeypatch):
            run(words, monkeypatch)


def test_commands_on_clips(in_sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for _, line in COMMANDS]
    for start in RUN_HERE:
        line = next(line for line in lines if line.startswith(start))
        run(shlex.split(line), monkeypatch)
    assert "beat_alignment" in (in_sandbox / "metrics.json").read_text()
    assert "brightness/mean" in (in_sandbox / "brightness.json").read_text()
    for name in ("REPORT/index.html", "TABLES", "FOLDER/index.html"):
        assert (in_sandbox / name).exists(), name


PYTHON = [block for block in blocks() if block.language == "python" and not block.file_name]


@pytest.mark.parametrize("block", PYTHON, ids=[block.page for block in PYTHON])
def test_python_runs(block: Block, in_sandbox: Path) -> None:
    code = compile(block.text, block.page, "exec")
    if not block.is_marked:
        exec(code, {"__name__": block.page})
    if block.page == "README.md":
        info = probe_video(in_sandbox / "dance.mp4")
        assert (info.width, info.height, info.has_audio) == (64, 64, True)
        assert info.duration_seconds == pytest.approx(73 / 30, abs=0.02)


def test_a_source_and_an_encoder_as_the_page_has_them_are_encoded_and_trained_on(
    in_sandbox: Path, small_parts: Path, media: Path, tmp_path: Path
) -> None:
    store = tmp_path / "cache"
    write_audio_encoder(tmp_path / "hubert" / "audio_encoder", "hubert")
    audio = f"--model.init_args.encoders.audio={tmp_path}/hubert"
    train.main([*encode_arguments(small_parts, media, store), "--config=stage.yaml", audio])
    (clip,) = read_headers(store)
    assert (clip.source, clip.caption) == ("stage", "tango on a stage")
    fit = cli_arguments("fit", parts=small_parts, cache=store, root=tmp_path)
    ratio = ["--data.init_args.ratio={stage: 1}", "--data.init_args.validation_source=null"]
    cli = train.main([*fit, audio, *ratio])
    assert cli.trainer.global_step == cli.trainer.max_steps
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert Origin.from_stored(checkpoint["musicinfuser"]).audio.kind == "hubert"


def test_an_encoder_of_another_rate_and_hop_is_one_file(
    in_sandbox: Path, small_parts: Path, media: Path, tmp_path: Path
) -> None:
    """The page's, 75 features per second from 24 kHz, from videos to a video by the pipeline."""
    store = in_sandbox / "cache" / "spectrum"
    spectrum = "--config=spectrum.yaml"
    train.main([*encode_arguments(small_parts, media, store), "--config=stage.yaml", spectrum])
    [path] = clip_paths(store)
    num_samples = math.ceil(24_000 * clip_audio_seconds(7, fps=30.0))
    assert read_clip(path)["audio"].shape == ((num_samples - 1024) // 320 + 1, 64)
    assert "75 Hz, 64 channels" in read_clip_header(path).recipe.audio_encoder
    fit = cli_arguments("fit", parts=small_parts, cache=store, root=tmp_path)
    ratio = ["--data.init_args.ratio={stage: 1}", "--data.init_args.validation_source=null"]
    with pytest.raises(UserError, match="audio_encoder: .*spectrum.Spectrum .* in the cache"):
        train.main([*fit, *ratio])
    ratio += ["--model.init_args.audio_width=64", "--model.init_args.audio_resampling=centre"]
    cli = train.main([*fit, spectrum, *ratio])
    assert cli.model.adapted.audio_projector.times == AudioTimes(320 / 24_000, 1024 / 24_000)
    convert(["checkpoint", str(tmp_path / "checkpoints" / "last.ckpt"), str(tmp_path / "adapter")])
    pipe = MusicInfuserPipeline.from_pretrained(small_parts, adapter=tmp_path / "adapter")
    assert pipe.zica.audio_projector.times == cli.model.adapted.audio_projector.times
    size = {"num_frames": 7, "height": 32, "width": 32, "num_inference_steps": 1}
    video = pipe("a dancer", audio="song.mp3", **size, output_type="np").frames
    assert video.shape == (1, 7, 32, 32, 3)
