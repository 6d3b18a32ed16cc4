"""What a sweep reads is known by content; what other content decided is made again, or named."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from musicinfuser import fingerprint
from sweeps import inputs, plan
from sweeps.commands import sweep_command
from sweeps.settings import SweepError
from sweeps.work import read_state, write_state
from tests.sweeps.doors import read_json, write_doors, write_sweep

OURS, MORE = {"name": "Ours", "seeds": [1]}, {"name": "More", "seeds": [1]}


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = write_doors(tmp_path / "doors")
    monkeypatch.setattr(plan, "ROOT", folder)
    return folder


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A request list with a track, a cache, beats and a probe."""
    for name in ("song.wav", "cache/clips/a/0.safetensors", "beats/song.json", "probe/weights"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one")
    (tmp_path / "own.csv").write_text("track,prompt,seed\nsong.wav,a dancer,1\n")
    return tmp_path


def sweep(world: Path, rows: list[dict]) -> Path:
    path = write_sweep(
        world,
        rows,
        options={"trainer.max_steps": 3, "data.init_args.cache_dir": str(world / "cache")},
        predict={"data.init_args.generation": {"requests": str(world / "own.csv")}},
        score={
            "metrics": str(world / "metrics.yaml"),
            "options": {"beats_folder": str(world / "beats")},
        },
    )
    probe = {"class_path": "a.Probe", "init_args": {"weights": str(world / "probe")}}
    (world / "metrics.yaml").write_text(json.dumps([probe]))
    return path


def run(world: Path, rows: list[dict], capsys: pytest.CaptureFixture) -> str:
    assert sweep_command(["sweep", str(sweep(world, rows))]) == 0
    return capsys.readouterr().out


def calls(world: Path, name: str = "ours_seed1") -> list[str]:
    return (world / "out" / name / "calls").read_text().split()[::3]


def scored_at(world: Path, name: str = "ours_seed1") -> int:
    return (world / "out" / name / "metrics.json").stat().st_mtime_ns


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "prompt,heard,track\na,other.wav,song.wav\nb,nothing,song.wav\n"),
        ("list.jsonl", '{"track": "song.wav"}\n{"track": "song.wav", "heard": "other.wav"}\n'),
    ],
)
def test_every_sound_that_a_list_names_is_looked_at(tmp_path: Path, name: str, text: str) -> None:
    for sound in ("song.wav", "other.wav", "unnamed.wav"):
        (tmp_path / sound).write_text(sound)
    (tmp_path / name).write_text(text)
    looked_at = {Path(path).name for path in inputs.contents([str(tmp_path / name)])}
    assert looked_at == {name, "song.wav", "other.wav"}


@pytest.mark.parametrize("changed", ["own.csv", "song.wav"])
def test_clips_of_another_test_set_are_made_again(
    world: Path, doors: Path, capsys: pytest.CaptureFixture, changed: str
) -> None:
    run(world, [OURS], capsys)
    clip = world / "out" / "ours_seed1" / "videos" / "0.mp4"
    clip.write_text("of the first test set")
    run(world, [OURS], capsys)  # its own clips changed, so they are scored again; made they are not
    path, before = world / changed, scored_at(world)
    # The same content at another time is the same input.
    os.utime(path, (1, 1))
    assert "has changed" not in run(world, [OURS], capsys)
    assert (calls(world), scored_at(world)) == (["fit", "predict"], before)
    path.write_text(path.read_text() + "\nsong.wav,another dancer,2\n")
    said = run(world, [OURS, MORE], capsys)
    assert f"ours_seed1: {path} has changed since its clips were made; they are made again" in said
    assert calls(world) == ["fit", "predict", "predict"]
    assert calls(world, "more_seed1") == ["fit", "predict"]
    # The clips of the former set are no longer among those that are scored, and are not lost.
    assert not clip.exists()
    aside = world / "out" / "ours_seed1" / "videos_before_1" / "0.mp4"
    assert aside.read_text() == "of the first test set"
    assert scored_at(world) > before
    assert set(read_json(world / "out" / "metrics.json")["systems"]) == {"Ours", "More"}


@pytest.mark.parametrize("changed", ["beats/song.json", "probe/weights"])
def test_other_beats_or_probes_mean_scores_again(
    world: Path, doors: Path, capsys: pytest.CaptureFixture, changed: str
) -> None:
    run(world, [OURS], capsys)
    before = scored_at(world)
    assert "has changed" not in run(world, [OURS], capsys)
    (world / changed).write_text("two")
    said = run(world, [OURS, MORE], capsys)
    folder = (world / changed).parent
    assert f"ours_seed1: {folder} has changed since its clips were scored; they are scored" in said
    assert scored_at(world) > before
    assert calls(world) == ["fit", "predict"]


def test_another_metrics_file_is_named_and_scores_again(
    world: Path, doors: Path, capsys: pytest.CaptureFixture
) -> None:
    run(world, [OURS], capsys)
    before, file = scored_at(world), sweep(world, [OURS, MORE])
    probe = {"class_path": "a.Other", "init_args": {"weights": str(world / "probe")}}
    (world / "metrics.yaml").write_text(json.dumps([probe]))
    assert sweep_command(["sweep", str(file)]) == 0
    said = capsys.readouterr().out
    assert "ours_seed1: score.metrics has changed since its clips were scored; they are" in said
    assert "more_seed1: score" not in said
    assert scored_at(world) > before
    assert calls(world) == ["fit", "predict"]


def test_a_training_on_another_cache_stays_and_the_table_says_so(
    world: Path, doors: Path, capsys: pytest.CaptureFixture
) -> None:
    run(world, [OURS], capsys)
    assert "Trained with other content" not in (world / "out" / "rows.md").read_text()
    (world / "cache" / "clips" / "a" / "1.safetensors").write_text("one more")
    said = run(world, [OURS, MORE], capsys)
    assert f"ours_seed1: {world / 'cache'} has changed since it was trained" in said
    assert calls(world) == ["fit", "predict"]
    text = (world / "out" / "rows.md").read_text()
    assert (
        "Trained with other content than these files and folders hold now: ours_seed1 "
        f"({world / 'cache'})." in text
    )
    assert read_json(world / "out" / "rows.json")["trained_with_others"] == ["ours_seed1"]


def test_a_training_does_not_go_on_with_another_cache(
    world: Path, doors: Path, capsys: pytest.CaptureFixture
) -> None:
    run(world, [OURS], capsys)
    folder = world / "out" / "ours_seed1"
    state = read_state(folder)
    state["stages"]["fit"]["is_done"] = False
    write_state(folder, state)
    (folder / "checkpoints" / "last.ckpt").write_text("1")
    (world / "cache" / "clips" / "a" / "0.safetensors").write_text("two")
    with pytest.raises(SweepError, match=r"ours_seed1 .*other content of .*cache.*remove"):
        sweep_command(["sweep", str(sweep(world, [OURS]))])


def test_runs_that_noted_no_inputs_are_taken_as_they_are(
    world: Path, doors: Path, capsys: pytest.CaptureFixture
) -> None:
    run(world, [OURS], capsys)
    folder = world / "out" / "ours_seed1"
    state = read_state(folder)
    for stage in state["stages"].values():
        del stage["inputs"]
    # Nor did they have today's names of settings.
    generation = state["stages"]["predict"]["settings"]["predict"]["data.init_args.generation"]
    generation["cells"] = generation.pop("requests")
    write_state(folder, state)
    assert "ours_seed1: was finished before" in run(world, [OURS], capsys)
    assert calls(world) == ["fit", "predict"]
    # From then on they are known.
    (world / "song.wav").write_text("two")
    assert "song.wav has changed" in run(world, [OURS], capsys)
    assert calls(world) == ["fit", "predict", "predict"]


def test_settings_of_today_stay_and_those_of_before_get_their_names(tmp_path: Path) -> None:
    def recorded(model: dict[str, object]) -> dict[str, object]:
        fit = {"settings": {"config": {"model": {"init_args": model}}}}
        write_state(tmp_path, {"stages": {"fit": fit}, "failure": None})
        return read_state(tmp_path)["stages"]["fit"]["settings"]["config"]["model"]["init_args"]

    today = {"memory": {"compile_blocks": False, "gradient_checkpointing": "none"}}
    assert recorded(today) == today
    assert recorded(today["memory"]) == today


def test_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, read_digest = [], hashlib.file_digest

    def counted(file: BinaryIO, *more: Any) -> Any:
        read.append(Path(file.name).name)
        return read_digest(file, *more)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    fingerprint.known_digests.clear()
    (tmp_path / "cache").mkdir()
    for name in ("a", "b"):
        (tmp_path / "cache" / name).write_text("one")
    (tmp_path / "cache" / ".half").write_text("written just now")
    folder = str(tmp_path / "cache")
    first = inputs.contents([folder])
    assert sorted(read) == ["a", "b"]
    inputs.write_memo(tmp_path)
    # Another process, which finds what this one noted.
    fingerprint.known_digests.clear()
    inputs.read_memo(tmp_path)
    inputs.look_again()
    assert inputs.contents([folder]) == first
    assert sorted(read) == ["a", "b"]
    (tmp_path / "cache" / "b").write_text("two")
    inputs.look_again()
    assert inputs.changed(first, inputs.contents([folder])) == [folder]
    assert sorted(read) == ["a", "b", "b"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("requests.csv", "prompt, track, seed\na dancer, song.wav, 1\n"),
        ("requests.csv", '\ufefftrack,prompt\n"song.wav","a, b"\n'),
        ("requests.jsonl", '\ufeff{"track": "song.wav", "prompt": "one\u2028two"}\n'),
        ("clips/clips.csv", "file, system, track\n0.mp4, people, ../song.wav\n"),
    ],
)
def test_sounds_of_a_list_are_watched_as_its_reader_finds_them(
    world: Path, name: str, text: str
) -> None:
    (world / name).parent.mkdir(exist_ok=True)
    (world / name).write_text(text)
    named = str(world / name if "/" not in name else (world / name).parent)
    before = inputs.contents([named])
    (world / "song.wav").write_text("another")
    inputs.look_again()
    [changed] = inputs.changed(before, inputs.contents([named]))
    assert Path(changed).resolve() == world / "song.wav"


def test_known_beats_beside_the_music_of_clips_are_watched(world: Path) -> None:
    (world / "clips").mkdir()
    (world / "clips" / "manifest.jsonl").write_text('{"file": "0.mp4", "track": "../song.wav"}\n')
    (world / "song.json").write_text('{"beats_seconds": [1]}')
    folder, requests = str(world / "clips"), str(world / "own.csv")
    before = inputs.contents([folder, requests])
    (world / "song.json").write_text('{"beats_seconds": [2]}')
    inputs.look_again()
    [changed] = inputs.changed(before, inputs.contents([folder, requests]))
    assert Path(changed).resolve() == world / "song.json"
    # They decide scores, not what is generated.
    assert not any(path.endswith(".json") for path in inputs.contents([requests]))


def test_paths_that_settings_name(tmp_path: Path) -> None:
    for name in ("in.yaml", "out", "song.wav"):
        (tmp_path / name).mkdir() if name == "out" else (tmp_path / name).touch()
    settings = {
        "trainer.default_root_dir": str(tmp_path / "out"),
        "model": {"class_path": "a.B", "init_args": {"scores": str(tmp_path / "in.yaml")}},
        "callbacks": [{"init_args": {"dirpath": str(tmp_path / "out")}}],
        "music": [str(tmp_path / "song.wav"), "no/such.wav", "x" * 5_000],
        "steps": 3,
    }
    assert inputs.named_paths(settings) == (str(tmp_path / "in.yaml"), str(tmp_path / "song.wav"))
