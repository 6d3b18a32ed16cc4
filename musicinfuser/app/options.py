"""Options of the command line."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from musicinfuser.app.suits import ASSETS
from musicinfuser.errors import UserError

SHIPPED_MODEL, SHIPPED_ADAPTER = ASSETS / "small-mochi", ASSETS / "small-adapter"
HOW_TO_ADAPT = (
    "train one and write it to a folder, e.g. `make demo` and `python -m musicinfuser.convert "
    "checkpoint runs/demo/adapted/checkpoints/last.ckpt FOLDER`, and give --adapter FOLDER"
)


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
    add("--model", default=str(SHIPPED_MODEL), help="folder or Hub id of a Mochi")
    add(
        "--adapter",
        nargs="+",
        metavar="[NAME=]FOLDER",
        help="folders or Hub ids of adapters to choose from; default: the one that ships for the "
        "small Mochi",
    )
    add("--audio_encoder", help="folder or Hub id; default: the adapter's, or one in --model")
    add("--host", default="127.0.0.1", help="where to listen; 0.0.0.0 lets others in")
    add("--port", type=int, help="default: the first free one from 7860 on")
    add("--max_seconds", type=_positive, default=5.0, help="longest video")
    add("--max_megabytes", type=_positive, default=50.0, help="largest file to upload")
    add("--height", type=int, help="px; default: what suits the model")
    add("--width", type=int, help="px; default: what suits the model")
    add("--num_steps", type=int, help="default: what suits the model")
    add("--guidance_scale", type=float, help="default: what suits the model")
    add("--device", help="default: cuda if there is one, else cpu")
    add(
        "--dtype",
        choices=["bfloat16", "float32"],
        help="of the model; default: bfloat16 on a GPU, else float32",
    )
    add(
        "--offload",
        choices=["none", "model", "group"],
        default="none",
        help="what waits in the host's memory: whole models, or every layer's weights",
    )
    add("--vae_tiling", action="store_true", help="decode in tiles, for less memory")
    options = parser.parse_args(arguments)
    if options.max_seconds < 0.2:
        raise UserError(
            f"--max_seconds is {options.max_seconds:g}; the shortest video lasts 0.2 s."
        )
    options.adapter = _named(options.adapter or _shipped(options.model))
    return options


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _shipped(model: str) -> list[str]:
    if Path(model).resolve() == SHIPPED_MODEL and SHIPPED_ADAPTER.is_dir():
        return [str(SHIPPED_ADAPTER)]
    raise UserError(f"there is no adapter for {model}, so it cannot hear: {HOW_TO_ADAPT}.")


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
            raise UserError(
                f"--adapter names {named[name]} and {folder} both {name!r}; give NAME=FOLDER."
            )
        named[name] = folder
    return named
