"""A few steps of training a part of the small world, through train.py, on as little as will do."""

from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from train import main


def train_part(
    name: str, root: Path, *arguments: str, steps: int = 2, overlay: str | None = None
) -> Any:
    """The config of that name among those of the parts; what is trained goes to ``root/export``.

    ``overlay`` is another one of them, laid over it.
    """
    names = [name] if overlay is None else [name, overlay]
    return main(
        [
            "fit",
            *(f"--config={ROOT}/configs/small_world/parts/{n}.yaml" for n in names),
            f"--trainer.default_root_dir={root}",
            "--trainer.accelerator=cpu",
            f"--trainer.max_steps={steps}",
            f"--trainer.val_check_interval={steps}",
            "--trainer.enable_progress_bar=false",
            f"--model.init_args.export_dir={root}/export",
            *arguments,
        ]
    )


def vae_arguments(media: Path) -> list[str]:
    """Pieces of 7 frames at 32x32 of both sources."""
    sources = ", ".join(
        f"{{class_path: datamodules.{name}, init_args: {{root: {media}/{folder}}}}}"
        for name, folder in (("AISTDataset", "aist"), ("YouTubeDataset", "youtube"))
    )
    return [
        f"--model.init_args.config={ROOT}/configs/small_world/parts/vae.json",
        "--data.init_args.num_frames=7",
        "--data.init_args.cut={num_frames: 7, height: 32, width: 32}",
        f"--data.init_args.sources=[{sources}]",
    ]


def audio_encoder_arguments() -> list[str]:
    """Two pieces of music to learn from and two to judge by."""
    return [
        f"--model.init_args.config={ROOT}/configs/small_world/parts/audio_encoder/config.json",
        f"--data.init_args.extractor={ROOT}/configs/small_world/parts/audio_encoder",
        "--data.init_args.soundfonts=[]",
        "--data.init_args.midi=null",
        "--data.init_args.songs=null",
        "--data.init_args.num_workers=0",
        "--data.init_args.batch_size=2",
        "--data.init_args.num_pieces=2",
        "--data.init_args.num_validation_pieces=2",
        "--data.init_args.num_validation_excerpts=4",
    ]


def text_encoder_arguments() -> list[str]:
    """Batches of two captions."""
    return [
        f"--model.init_args.config={ROOT}/configs/small_world/parts/text_encoder.json",
        "--data.init_args.batch_size=2",
        "--data.init_args.num_validation_captions=4",
    ]


def base_arguments(parts: Path, cache: Path) -> list[str]:
    """Two clips of 7 frames at 32x32 a step; the text encoder learns too."""
    return [
        "--model.init_args.train_text_encoder=true",
        f"--model.init_args.pretrained={parts}",
        f"--data.init_args.cache_dir={cache}",
        "--data.init_args.num_frames=7",
        "--data.init_args.height=32",
        "--data.init_args.width=32",
        "--data.init_args.batch_size=2",
    ]
