"""The caption job through train.py: complete, repeatable, and read by the encode job as it is."""

import json
import os
import shutil
import signal
from multiprocessing import get_context
from pathlib import Path

import lightning.pytorch as L
import pytest

from datamodules import CaptioningDataModule, YouTubeDataset
from datamodules.captions import read_captions
from lightning_modules import VideoCaptioner
from lightning_modules.cli import CheckCLI
from musicinfuser.networks.backbones import FAMILIES
from musicinfuser.networks.captioner import CaptionerSpec
from tests.conftest import ROOT, write_moving_square
from tests.datamodules.conftest import cut
from tests.small_captioner import write_small_captioner
from train import main


class KillAfter(L.Callback):
    """Kills the process once so many videos are captioned."""

    def __init__(self, num_videos: int) -> None:
        self.num_videos = num_videos

    def on_predict_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, *args) -> None:
        if batch_idx + 1 == self.num_videos:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_captioner(tmp_path_factory.mktemp("captioner"))


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos, one with a text beside it and one in a table."""
    root = tmp_path_factory.mktemp("filmed")
    for number, name in enumerate(("a", "sub/ダンス", "beside", "listed")):
        write_moving_square(root / f"{name}.mp4", number=7 * number, num_frames=24)
    (root / "beside.txt").write_text("a text of its own")
    (root / "captions.csv").write_text("file,caption\nlisted.mp4,a line of its own\n")
    return root


@pytest.fixture
def root(filmed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(filmed, tmp_path / "videos"))


@pytest.fixture
def arguments(captioner: Path, root: Path, tmp_path: Path) -> list[str]:
    return [
        f"--config={ROOT}/configs/caption.yaml",
        f"--trainer.default_root_dir={tmp_path}/run",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        f"--model.init_args.captioner.source={captioner}",
        "--model.init_args.captioner.dtype=float32",
        "--model.init_args.captioner.max_new_tokens=8",
        f"--data.init_args.root={root}",
        "--data.init_args.num_frames=4",
        "--data.init_args.num_workers=0",
    ]


def tables(folder: Path) -> dict[str, list[dict[str, str]]]:
    return {
        path.name: [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(folder.glob("captions_*"))
    }


def test_what_is_cut_from_captions_is_named(
    arguments: list[str], small_parts: Path, root: Path
) -> None:
    reads = [f"--model.init_args.text_encoder={small_parts}", "--model.init_args.max_text_tokens=5"]
    with pytest.warns(UserWarning) as caught:
        main(["predict", *arguments, *reads])
    said = [str(w.message) for w in caught]
    for file in ("a.mp4", "sub/ダンス.mp4"):
        (cut,) = [line for line in said if line.startswith(f"{file}: the caption ")]
        assert "of which the text encoder reads 5: the last " in cut
        assert sum(line.startswith(f"{file}: the answer goes on after capt") for line in said) == 1


def test_captions_appear_where_the_encode_job_looks(
    arguments: list[str], root: Path, capsys: pytest.CaptureFixture
) -> None:
    (root / "broken.mp4").write_bytes(bytes(10_000))
    (root / "sub" / "damaged\n.mp4").write_bytes(b"no video")
    (root / "latin.mp4").touch()
    (root / "latin.txt").write_bytes("été".encode("latin-1"))
    main(["predict", *arguments])
    found = tables(root / "captions")
    assert list(found) == ["captions_rank0_0000.jsonl"]
    (rows,) = found.values()
    written = {row["file"]: row["caption"] for row in rows}
    assert written.keys() == {"a.mp4", "sub/ダンス.mp4"}
    assert all(written.values()) and len(set(written.values())) == 2
    printed = capsys.readouterr().out
    assert "captioned 2 videos, 2 had a caption already." in printed
    assert f"  {root}/broken.mp4: cannot be read: as video (" in printed
    skipped = (root / "captions" / "skipped_rank0.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in skipped] == [
        f"{root}/broken.mp4",
        rf"{root}/sub/damaged\n.mp4",
        f"{root}/latin.mp4",
    ]
    assert f"  {root}/latin.mp4: its caption cannot be read: {root}/latin.txt, line 1: " in printed

    dataset = cut(YouTubeDataset, root, num_frames=7, height=32, width=32)
    captions = {spec.attributes["file"]: spec.caption for spec in dataset.clips}
    own = {"beside.mp4": "a text of its own", "listed.mp4": "a line of its own"}
    assert captions == written | own
    assert dataset.num_unused_captions == 0

    # Again: nothing but the broken ones is looked at.
    before = {path: path.stat().st_mtime_ns for path in root.rglob("captions_*")}
    main(["predict", *arguments])
    assert {path: path.stat().st_mtime_ns for path in root.rglob("captions_*")} == before
    assert "captioned 0 videos, 4 had a caption already." in capsys.readouterr().out


def test_a_killed_run_continues(arguments: list[str], root: Path, tmp_path: Path) -> None:
    (root / "beside.txt").unlink()
    elsewhere = tmp_path / "whole"
    main(["predict", *arguments, f"--data.init_args.tables={elsewhere}"])
    callbacks = (
        "[{class_path: callbacks.CaptionWriter}, {class_path: tests.test_captioning.KillAfter, "
        "init_args: {num_videos: 2}}]"
    )
    killed = get_context("fork").Process(
        target=main, args=(["predict", *arguments, f"--trainer.callbacks={callbacks}"],)
    )
    killed.start()
    killed.join(300)
    assert killed.exitcode == -signal.SIGKILL
    first = tables(root / "captions")
    assert [len(rows) for rows in first.values()] == [2]
    main(["predict", *arguments])
    both = tables(root / "captions")
    assert [len(rows) for rows in both.values()] == [2, 1]
    assert first.items() <= both.items()
    assert read_captions(root, str(root / "captions")) == read_captions(root, str(elsewhere))


def test_ranks_share_the_videos_whatever_is_written_meanwhile(root: Path) -> None:
    def share(rank: int) -> set[str]:
        data = CaptioningDataModule(str(root), num_workers=0)
        data.setup("predict")
        return {path.relative_to(root).as_posix() for path in data.uncaptioned(rank, 2)}

    (root / "beside.txt").unlink()
    (root / "captions.csv").unlink()
    first, second = share(0), share(1)
    assert len(first) == len(second) == 2 and not first & second
    (root / "captions").mkdir()
    row = {"file": min(first), "caption": "written by the first rank"}
    (root / "captions" / "captions_rank0_0000.jsonl").write_text(json.dumps(row) + "\n")
    assert share(1) == second and share(0) == first - {min(first)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--data.init_args.root=/no/such", "/no/such is not a folder"),
        ("--data.init_args.num_frames=0", "data.num_frames is 0; it must be above 0"),
        ("--data.init_args.captions=/no/such.csv", "/no/such.csv cannot be read"),
        (
            "--model.init_args.captioner.source=/no/such",
            "AutoProcessor: the folder /no/such does not exist",
        ),
        (
            "--model.init_args.captioner.max_new_tokens=0",
            "captioner.max_new_tokens is 0; it must be at least 1",
        ),
        ("--model.init_args.captioner.prompt= ", "captioner.prompt is empty"),
    ],
)
def test_bad_settings(arguments: list[str], root: Path, change: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        main(["predict", *arguments, change])
    assert not (root / "captions").exists()


def test_check(arguments: list[str], root: Path, captioner: Path) -> None:
    def check(*changes: str) -> tuple[dict[str, str], list[str]]:
        cli = main(["check", *arguments, *changes])
        assert isinstance(cli, CheckCLI)
        return dict(cli.report.sections), cli.report.problems

    sections, problems = check()
    assert problems == []
    assert sections["videos"] == f"2 videos of 4 without a caption; captions go to {root}/captions"
    assert sections["captioner"] == str(captioner)
    _, problems = check(
        "--model.init_args.captioner.source=nobody/captioner", "--data.init_args.root=/no/such"
    )
    assert any("/no/such is not a folder" in problem for problem in problems)
    assert any("nobody/captioner is not on this machine. Download" in p for p in problems)


def test_captions_are_cut_where_the_family_cuts_them() -> None:
    spec = CaptionerSpec("anywhere")
    found = {}
    for family in (name for name, kind in FAMILIES.items() if kind.published):
        job = VideoCaptioner(spec, family=family)
        found[family] = (job.text_encoder, job.max_text_tokens)
    assert found == {
        "mochi": ("genmo/mochi-1-preview", 256),
        "wan": ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", 512),
        "wan_5b": ("Wan-AI/Wan2.2-TI2V-5B-Diffusers", 512),
    }
    job = VideoCaptioner(spec, text_encoder="elsewhere", max_text_tokens=9, family="wan")
    assert (job.text_encoder, job.max_text_tokens) == ("elsewhere", 9)
    with pytest.raises(ValueError, match=r"wan_on_mochi, of which no weights.*model\.text_encoder"):
        VideoCaptioner(spec, family="wan_on_mochi")
