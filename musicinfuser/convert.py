"""Weights from one format to another: ``python -m musicinfuser.convert COMMAND SOURCE TARGET``.

Commands: ``from-official`` (the authors' musicinfuser.safetensors to a folder to share),
``to-official`` (such a folder back), ``to-comfyui`` (the LoRA of such a folder for ComfyUI),
``backbone`` (Genmo's dit.safetensors to a transformer folder of diffusers) and ``checkpoint`` (a
checkpoint of a training to a folder to share). All offline.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from musicinfuser.adapters.card import NOT_KNOWN, CardFacts
from musicinfuser.adapters.comfyui import write_comfyui_lora
from musicinfuser.adapters.folder import read_folder, write_folder
from musicinfuser.adapters.official import read_official_adapter, write_official_adapter
from musicinfuser.adapters.official_backbone import convert_backbone
from musicinfuser.adapters.record import read_record
from musicinfuser.adapters.settings import FROZEN_KEY, Adapter, adapter_of_checkpoint
from musicinfuser.atomic_files import require_writable
from musicinfuser.errors import UserError, in_one_sentence
from musicinfuser.safetensors_files import read_header
from musicinfuser.setting_checks import check_file


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command.

    Raises:
        UserError: What the user can mend, in one sentence that names file and key.
    """
    options = _parser().parse_args(arguments)
    require_writable(options.target.parent, option="target")
    if options.command in ("to-official", "to-comfyui") and options.target.exists():
        _refuse_other_content(options.target)
    if options.command == "from-official":
        adapter = read_official_adapter(
            options.source, layers=options.layers, num_heads=options.num_heads,
            audio_encoder=options.audio_encoder,
        )  # fmt: skip
        facts = _facts(options, origin=f"Converted from the authors' {options.source.name}.")
        write_folder(options.target, adapter, facts=facts, config=_settings_text(adapter))
    elif options.command == "to-official":
        write_official_adapter(read_folder(options.source), options.target)
    elif options.command == "to-comfyui":
        adapter = read_folder(options.source)
        write_comfyui_lora(adapter, options.target)
        if adapter.settings.layers:
            print(
                "ZICA and the audio projector, which take the music, cannot be in a LoRA file: "
                "this is the adapter's LoRA alone."
            )
    elif options.command == "backbone":
        convert_backbone(options.source, options.target, dtype=options.dtype)
    else:
        adapter, stored = adapter_of_checkpoint(options.source)
        config, names = _settings_text(adapter), dict[str, str]()
        if (record := _record(options.config, options.source)) is not None:
            config, names = read_record(record, adapter.settings, stored.get("optimizer", {}))
        origin = f"Exported from the checkpoint {options.source.name}."
        facts = _facts(options, origin=origin, **{**names, **stored.get(FROZEN_KEY, {})})
        write_folder(options.target, adapter, facts=facts, config=config)
    print(f"written: {options.target}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m musicinfuser.convert", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def added(name: str, text: str) -> Callable[..., argparse.Action]:
        own = commands.add_parser(name, help=text, description=text)
        own.add_argument("source", type=Path)
        own.add_argument("target", type=Path)
        return own.add_argument

    official = added("from-official", "the authors' musicinfuser.safetensors to a folder to share")
    to_share = "a checkpoint of a training to a folder to share; its average if it has one"
    checkpoint = added("checkpoint", to_share)
    added("to-official", "a folder to share to the authors' musicinfuser.safetensors")
    added("to-comfyui", "the LoRA of a folder to share to a .safetensors that ComfyUI loads")
    backbone = added("backbone", "Genmo's dit.safetensors to a transformer folder of diffusers")
    for name in ("base_model", "audio_encoder"):
        theirs = getattr(CardFacts, name)
        official(f"--{name}", default=theirs, help=f"for the card; by default {theirs}")
        checkpoint(f"--{name}", help="for the card; by default what the run recorded")
    for add in (official, checkpoint):
        add("--license", default=CardFacts.license, help="for the card")
    official("--layers", type=_indices, help="blocks with audio, e.g. 1,3 (their file has none)")
    official("--num_heads", type=int, help="of ZICA, if not the authors' 8")
    checkpoint("--config", type=Path, help="the training's config_fit.yaml")
    dtypes = ["bfloat16", "float32"]
    backbone("--dtype", choices=dtypes, help="to write; default: the file's")
    return parser


def _indices(text: str) -> list[int]:
    try:
        return [int(index) for index in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be numbers with commas between, e.g. 1,3"
        ) from None


def _refuse_other_content(path: Path) -> None:
    """What is no safetensors file was not written here, and is not written over (`UserError`)."""
    try:
        read_header(path)
    except (UserError, OSError) as error:
        raise UserError(
            f"{path} exists and holds something else; give another target, or delete it."
        ) from error


def _facts(options: argparse.Namespace, *, origin: str, **recorded: str) -> CardFacts:
    """What was given counts, then what was recorded."""
    fields = ("base_model", "audio_encoder")
    names = {name: getattr(options, name) or recorded.get(name, NOT_KNOWN) for name in fields}
    return CardFacts(**names, license=options.license, origin=origin)


def _settings_text(adapter: Adapter) -> str:
    """What is known of a training whose configuration is not at hand."""
    first = "# The training's configuration is not known; the adapter's own settings:\n"
    return first + adapter.settings.as_yaml()


def _record(path: Path | None, checkpoint: Path) -> Path | None:
    """The configuration's file as given, or where a run keeps it beside its checkpoints."""
    if path is not None:
        check_file("--config", path)
    beside = checkpoint.resolve().parent.parent / "logs" / "config_fit.yaml"
    return path or (beside if beside.is_file() else None)


if __name__ == "__main__":
    with in_one_sentence("convert"):
        main()
