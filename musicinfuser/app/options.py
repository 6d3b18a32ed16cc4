"""Options of the command line, and the settings a model starts with where none is given."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any

import yaml

from musicinfuser.clip_size import LatentGeometry
from musicinfuser.errors import UserError
from musicinfuser.networks.backbones import backbone_of

ASSETS = Path(__file__).resolve().parents[2] / "assets"
SHIPPED_MODEL, SHIPPED_ADAPTER = ASSETS / "small-mochi", ASSETS / "small-adapter"
HOW_TO_ADAPT = (
    "train one and write it to a folder, e.g. `make demo` and `python -m musicinfuser.convert "
    "checkpoint runs/demo/adapted/checkpoints/last.ckpt FOLDER`, and give --adapter FOLDER"
)
SMALL_PROMPTS = {
    "Break, a man in the studio": "a professional male dancer executing Break movements in a "
    "minimalist studio space in a basic dance setting, shot from a front view",
    "House, a woman in the studio": "a professional female dancer executing House movements in a "
    "minimalist studio space in a basic dance setting, shot from a front view",
    "Ballet Jazz, a man in the studio": "a front view video of a professional male dancer "
    "performing Ballet Jazz choreography against a white background in a basic dance scene",
    "Break, a woman on a dark stage": "a video of a woman wearing a turquoise shirt and grey "
    "trousers, dancing Break on a dark stage in a red spotlight",
}
"""Captions as the small world writes them."""


@dataclass(frozen=True)
class DefaultSettings:
    """Settings a page starts with."""

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    num_steps: int
    guidance_scale: float
    music_guidance_scale: float
    prompts: dict[str, str]
    """Examples by short names, at least one."""
    negative_prompt: str = ""
    """Of the unconditional branch."""


_SETTINGS = {"height": int, "width": int, "num_steps": int, "guidance_scale": float}


def default_settings(
    transformer: Any, options: argparse.Namespace | None = None
) -> DefaultSettings:
    """For a base of a published size its own and Table 9, for any other those of the small model.

    Args:
        transformer: Of diffusers, of one of the families.
        options: Of `parse`; those that were given count.
    """
    given: dict[str, Any] = {name: getattr(options, name, None) for name in _SETTINGS}
    given = {name: value for name, value in given.items() if value is not None}
    kind = backbone_of(transformer)
    if kind.is_published(transformer.config):
        usual = kind.usual_of(transformer.config)
        table = yaml.safe_load((ASSETS / "table9_prompts.yaml").read_text(encoding="utf-8"))
        prompts = {shorten(text, 56): text for text in table["prompts"]}
        found = DefaultSettings(
            usual.height, usual.width, usual.num_steps, usual.guidance_scale, 1.0, prompts,
            usual.negative_prompt,
        )  # fmt: skip
        return replace(found, **given)
    # Music guidance 3 keeps the beat best there (assets/small-mochi/README.md).
    return replace(DefaultSettings(64, 64, 20, 3.0, 3.0, SMALL_PROMPTS), **given)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        ValueError: Options that contradict each other, or no adapter.
    """
    parser = argparse.ArgumentParser(
        prog="python -m musicinfuser.app",
        description="A page in the browser: drop a song, get a dance. Needs the extra `demo`.",
    )
    add = parser.add_argument
    add("--model", default=str(SHIPPED_MODEL), help="folder or Hub id of a Mochi or a Wan")
    add(
        "--adapter", nargs="+", metavar="[NAME=]FOLDER",
        help="folders or Hub ids of adapters to choose from; default: the one that ships for the "
        "small Mochi",
    )  # fmt: skip
    add("--audio_encoder", help="folder or Hub id; default: the adapter's, or one in --model")
    add("--host", default="127.0.0.1", help="address of the page; 0.0.0.0 lets others in")
    add("--port", type=int, help="default: the first free one from 7860 on")
    add("--max_seconds", type=_positive, default=5.0, help="longest video")
    add("--max_megabytes", type=_positive, default=50.0, help="largest file to upload")
    for name, kind in _SETTINGS.items():
        add(f"--{name}", type=kind, help="default: the model's")
    add("--device", help="default: cuda if there is one, else cpu")
    dtype = "of the model; default: bfloat16 on a GPU, else float32"
    add("--dtype", choices=["bfloat16", "float32"], help=dtype)
    offload = "what waits in the host's memory: whole models, or every layer's weights"
    add("--offload", choices=["none", "model", "group"], default="none", help=offload)
    add("--vae_tiling", action="store_true", help="decode in tiles, for less memory")
    options = parser.parse_args(arguments)
    is_shipped = Path(options.model).resolve() == SHIPPED_MODEL and SHIPPED_ADAPTER.is_dir()
    if not options.adapter and not is_shipped:
        raise UserError(
            f"there is no adapter for {options.model}, and without one it takes no audio: "
            f"{HOW_TO_ADAPT}."
        )
    options.adapter = _named(options.adapter or [str(SHIPPED_ADAPTER)])
    return options


def shortest_seconds(geometry: LatentGeometry, fps: float) -> float:
    """By which a video can be longer, and the length of the shortest but for one frame."""
    return geometry.temporal / fps


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _named(given: Sequence[str]) -> dict[str, str]:
    """Folders by the names visitors see."""
    named: dict[str, str] = {}
    for text in given:
        name, mark, folder = text.partition("=")
        if not mark:
            name, folder = Path(text).name, text
        if not name or not folder:
            raise UserError(f"--adapter {text}: give NAME=FOLDER or FOLDER.")
        if name in named:
            both = f"{named[name]} and {folder} both {name!r}"
            raise UserError(f"--adapter names {both}; give NAME=FOLDER.")
        named[name] = folder
    return named
