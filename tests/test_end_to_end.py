"""The demo's chain on a smaller world: generator, encode, fit, validate, predict, evaluate."""

import json
from pathlib import Path

import pytest

import evaluate
from musicinfuser.media.video import probe_video
from small_world.generator import make_small_world
from small_world.parts.random_parts import write_small_parts
from tests.audio_encoders import write_audio_encoder
from tests.conftest import ROOT
from train import main

FRAMES = "--data.init_args.num_frames=37"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    make_small_world(
        root / "world",
        num_aist=4,
        num_held_out=3,
        num_youtube=3,
        basic_beats=8,
        advanced_beats=8,
        youtube_seconds=4.0,
        audio_rate_hz=16000,
        show_progress=False,
    )
    write_small_parts(root / "small-mochi")
    write_audio_encoder(root / "small-mochi" / "audio_encoder", head=True)
    return root


def small_arguments(verb: str, root: Path) -> list[str]:
    """base.yaml under small.yaml, with the demo's folders elsewhere."""
    return [
        verb,
        f"--config={ROOT}/configs/base.yaml",
        f"--config={ROOT}/configs/small_world/small.yaml",
        "--trainer.max_steps=2",
        "--trainer.val_check_interval=2",
        f"--trainer.default_root_dir={root}/run",
        "--trainer.enable_progress_bar=false",
        "--sample_generation.every_n_steps=2",
        "--model.init_args.sampling.num_steps=1",
        "--data.init_args.batch_size=4",
        f"--sample_generation.requests=[{{track: {root}/world/music/mBR0.wav, prompt: a dancer}}]",
        f"--model.init_args.backbone.pretrained={root}/small-mochi",
        f"--model.init_args.encoders.mochi={root}/small-mochi",
        f"--model.init_args.encoders.audio={root}/small-mochi",
        f"--data.init_args.cache_dir={root}/cache",
        FRAMES,
    ]


def test_chain(demo: Path, capsys: pytest.CaptureFixture) -> None:
    sources = ", ".join(
        f"{{class_path: datamodules.{name}, init_args: {{root: {demo}/world/{folder}}}}}"
        for name, folder in (("AISTDataset", "aist"), ("YouTubeDataset", "youtube"))
    )
    encode = [
        "predict",
        f"--config={ROOT}/configs/encode.yaml",
        f"--config={ROOT}/configs/small_world/encode.yaml",
        f"--trainer.default_root_dir={demo}/encode",
        "--trainer.enable_progress_bar=false",
        f"--model.init_args.encoders.mochi={demo}/small-mochi",
        f"--model.init_args.encoders.audio={demo}/small-mochi",
        f"--data.init_args.cache_dir={demo}/cache",
        f"--data.init_args.sources=[{sources}]",
        FRAMES,
    ]
    main(encode)
    assert "| youtube | clip     | too quiet |     1 |" in capsys.readouterr().out
    main(encode)
    assert "encoded 0 clips" in capsys.readouterr().out

    fit = main([*small_arguments("fit", demo), "--trainer.log_every_n_steps=2"])
    assert fit.trainer.global_step == 2
    assert {"val/loss", "val/music_gap", "train/loss"} <= fit.trainer.callback_metrics.keys()
    assert list((demo / "run" / "samples" / "step_000002").glob("*.mp4"))
    validate = main(small_arguments("validate", demo))
    assert validate.trainer.callback_metrics["val/loss"] == fit.trainer.callback_metrics["val/loss"]

    main(
        [
            *small_arguments("predict", demo),
            "--data.init_args.generation.music=held_out",
            f"--data.init_args.generation.music_dir={demo}/world/music",
            "--data.init_args.generation.prompts=[a female dancer dancing in a subway station]",
            "--data.init_args.generation.num_frames=25",
        ]
    )
    videos = demo / "run" / "videos"
    manifest = [json.loads(line) for line in (videos / "manifest.jsonl").read_text().splitlines()]
    assert len(manifest) == 10
    info = probe_video(videos / manifest[0]["file"])
    assert (info.width, info.height, info.has_audio) == (64, 64, True)
    assert info.duration_seconds == pytest.approx(25 / 30, abs=0.01)

    beats = ["--music_beats=truth", f"--beats_folder={demo}/world/truth"]
    output = demo / "report" / "metrics.json"
    evaluate.main(["score", str(videos), f"--output={output}", *beats])
    evaluate.main(["table", str(output), f"--output={demo}/report/table.md"])
    evaluate.main(["sheet", str(videos), f"--output={demo}/report/sheet.png", *beats])
    scores = json.loads(output.read_text())["systems"]["musicinfuser"]["beat_alignment/score"]
    assert scores["n"] == 10
    assert 0 <= scores["low"] <= scores["mean"] <= scores["high"] <= 1
    assert "beat_alignment/score" in (demo / "report" / "table.md").read_text()
    assert (demo / "report" / "sheet.png").stat().st_size > 10_000
