"""A small world on disk, made once per session: real media, real parts, a real cache."""

import gc
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightning_modules.cli import CheckCLI
from musicinfuser.media.video_writing import write_video
from preflight import Report
from small_world.parts.random_parts import write_small_parts
from tests import ranks  # noqa: F401 - says what is imported before processes are forked
from tests.browser import browser, open_page  # noqa: F401 - fixtures of tests in a browser
from train import main

# The last bits of a sum depend on the number of threads; processes of their own use one too.
torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]
NUM_LAYERS = 3
AIST_FILES = (
    "gBR_sBM_c01_d04_mBR1_ch03",
    "gBR_sBM_c01_d05_mBR2_ch04",
    "gHO_sBM_c10_d20_mHO1_ch05",
    "gJB_sBM_c01_d08_mJB1_ch06",
    "gPO_sBM_c01_d10_mPO2_ch07",
    "gBR_sBM_c01_d04_mBR0_ch02",
    "gHO_sBM_c01_d20_mHO5_ch02",
    "gPO_sBM_c01_d10_mPO1_ch02",
)
YOUTUBE_FILES = ("street dance", "ダンス", "two people")


def pytest_collection_finish() -> None:
    """What imports have made stays to the end: no collection of garbage looks at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX:
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def small_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts") / "small-mochi"
    write_small_parts(folder, num_layers=NUM_LAYERS)
    return folder


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``aist`` and ``youtube`` with moving pictures and tones."""
    root = tmp_path_factory.mktemp("media")
    for i, name in enumerate(AIST_FILES):
        write_moving_square(root / "aist" / f"{name}.mp4", number=i)
    for i, name in enumerate(YOUTUBE_FILES):
        write_moving_square(root / "youtube" / f"{name}.mp4", number=20 + i)
        (root / "youtube" / f"{name}.txt").write_text(f"a square that moves, number {i}")
    return root


def write_moving_square(path: Path, *, number: int, num_frames: int = 36) -> None:
    """A coloured square that moves right over a dark ground, with a tone of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = torch.full((num_frames, 54, 96, 3), 20, dtype=torch.uint8)
    colour = torch.tensor([80 + 7 * number % 170, 40 * (number % 5), 255 - 9 * number % 200])
    for t in range(num_frames):
        left = 20 + t
        frames[t, 20:40, left : left + 20] = colour.to(torch.uint8)
    seconds = torch.arange(int(44_100 * num_frames / 30)) / 44_100
    tone = 0.3 * torch.sin(2 * torch.pi * (200 + 40 * number) * seconds)
    write_video(path, frames, fps=30.0, audio=tone, audio_rate_hz=44_100)


def encode_arguments(small_parts: Path, media: Path, cache: Path, *overlays: str) -> list[str]:
    """Arguments of ``predict`` that encode the session's media, with overlays in ``configs/``."""
    return [
        "predict",
        *(f"--config={ROOT}/configs/{name}.yaml" for name in ("encode", *overlays)),
        f"--trainer.default_root_dir={cache.parent}/encode",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        f"--model.init_args.encoders.mochi={small_parts}",
        f"--model.init_args.encoders.audio={small_parts}",
        "--model.init_args.encoders.audio_subfolder=audio_encoder",
        "--model.init_args.encoders.dtype=float32",
        f"--data.init_args.cache_dir={cache}",
        "--data.init_args.num_frames=7",
        "--data.init_args.height=32",
        "--data.init_args.width=32",
        "--data.init_args.num_workers=0",
        "--data.init_args.sources=["
        f"{{class_path: datamodules.AISTDataset, init_args: {{root: {media}/aist}}}},"
        f"{{class_path: datamodules.YouTubeDataset, init_args: {{root: {media}/youtube, "
        "shots: null}}]",
    ]


@pytest.fixture(scope="session")
def small_cache(small_parts: Path, media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The media, encoded through train.py."""
    cache = tmp_path_factory.mktemp("cache") / "cache"
    main(encode_arguments(small_parts, media, cache))
    return cache


@pytest.fixture
def run_cli(small_parts: Path, tmp_path: Path) -> Callable:
    """``run_cli(verb, *arguments)`` on base.yaml with tests/tiny.yaml."""

    def run(verb: str, *arguments: str, cache: Path | None = None, root: Path = tmp_path) -> object:
        return main(cli_arguments(verb, *arguments, parts=small_parts, cache=cache, root=root))

    return run


@pytest.fixture
def check(small_parts: Path, small_cache: Path, tmp_path: Path) -> Callable[..., Report]:
    """``check(*arguments, parts=..., cache=...)`` of a training config."""

    def check(*arguments: str, parts: Path = small_parts, cache: Path = small_cache) -> Report:
        given = cli_arguments("check", *arguments, parts=parts, cache=cache, root=tmp_path / "run")
        cli = main(given)
        assert isinstance(cli, CheckCLI)
        return cli.report

    return check


@pytest.fixture(scope="session")
def fitted(
    small_parts: Path, small_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """A run of two steps that no test goes on with: ``root``, ``last`` and ``names`` trained."""
    root = tmp_path_factory.mktemp("fitted")
    cli = main(cli_arguments("fit", parts=small_parts, cache=small_cache, root=root))
    last = root / "checkpoints" / "last.ckpt"
    return SimpleNamespace(root=root, last=last, names=cli.model.trainable_names())


def cli_arguments(
    verb: str,
    *arguments: str,
    parts: Path,
    cache: Path | None,
    root: Path,
    overlays: Sequence[str] = (),
) -> list[str]:
    """The arguments `run_cli` passes, with overlays in ``configs/``."""
    return [
        verb,
        *(f"--config={ROOT}/configs/{name}.yaml" for name in ("base", *overlays)),
        f"--config={ROOT}/tests/tiny.yaml",
        f"--trainer.default_root_dir={root}",
        f"--model.init_args.backbone.pretrained={parts}",
        f"--model.init_args.encoders.mochi={parts}",
        f"--model.init_args.encoders.audio={parts}",
        f"--data.init_args.cache_dir={cache}",
        *arguments,
    ]
