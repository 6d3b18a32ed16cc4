"""Finding pretrained parts on disk or on the Hub, with a clear word when they are missing."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from musicinfuser.errors import UserError, looked_for

HOW_TO_GET = (
    "Download it once, e.g. `hf download {source} --local-dir {folder}`, and give the folder."
)


class MissingWeightsError(UserError):
    """A pretrained part is not where the config says."""


def looks_local(source: str) -> bool:
    """Whether a source can only be a folder; a Hub id has exactly one slash."""
    return Path(source).is_absolute() or source.startswith(".") or source.count("/") != 1


def missing_folder(part: str, source: str, subfolder: str | None) -> MissingWeightsError:
    """What to say of a folder that is not there."""
    folder = Path(source, subfolder or "")
    return MissingWeightsError(
        f"{part}: the folder {folder} does not exist{looked_for(folder)}; give a folder in "
        "diffusers' layout or a Hub id."
    )


def find_local(source: str, subfolder: str | None) -> Path | None:
    """The folder of a part: as given, or in the Hub's cache; None where it is in neither."""
    folder = Path(source, subfolder or "")
    if folder.is_dir():
        return folder
    try:
        config = try_to_load_from_cache(source, f"{subfolder}/config.json".removeprefix("None/"))
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None


def model_index(source: str) -> dict[str, Any]:
    """What a pipeline's folder or Hub id says of itself; nothing where that is not known."""
    path = Path(source, "model_index.json")
    # Not to be had: whoever needs the weights says what is wrong.
    with suppress(OSError, HFValidationError):
        if not path.is_file() and not looks_local(source):
            path = Path(hf_hub_download(source, path.name))
    return _json_of(path)


def part_config(source: str, subfolder: str) -> dict[str, Any]:
    """The config of a part that is on this machine; nothing of one that is not."""
    folder = find_local(source, subfolder)
    return _json_of(folder / "config.json") if folder else {}


def _json_of(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):  # not there, or no json
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def load_pretrained(part: Any, source: str, subfolder: str | None, **kwargs: Any) -> Any:
    """``part.from_pretrained(source, subfolder=...)`` with one clear sentence on failure.

    Args:
        part: A diffusers or transformers class.
        source: Hub id or local folder.
        subfolder: Folder within the source; None or empty for its root.
        **kwargs: Passed on, e.g. ``dtype``.

    Raises:
        MissingWeightsError: Nothing loadable there; names the place and says how to get it.
    """
    with missing_weights_named(part.__name__, source, subfolder):
        return part.from_pretrained(source, subfolder=subfolder or "", **kwargs)


@contextmanager
def missing_weights_named(part: str, source: str, subfolder: str | None = None) -> Iterator[None]:
    """Within, a failure to load ``part`` becomes one clear sentence; arguments as above.

    Raises:
        MissingWeightsError: Nothing loadable there; names the place and says how to get it.
    """
    if looks_local(source) and not Path(source, subfolder or "").is_dir():
        raise missing_folder(part, source, subfolder)
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError) as error:
        where = f"{source}/{subfolder}" if subfolder else source
        hint = f" {HOW_TO_GET.format(source=source, folder=source.split('/')[-1])}"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MissingWeightsError(
            f"{part}: nothing could be loaded from {where}{looked_for(where)}."
            f"{'' if Path(source).is_dir() else hint} ({reason})"
        ) from error
