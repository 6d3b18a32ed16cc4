"""What a visitor reads when something goes wrong: one sentence, and never a traceback."""

import sys
import traceback
from pathlib import Path

from musicinfuser.errors import user_error
from musicinfuser.memory.out_of_memory import OutOfMemoryError

UNKNOWN = "something went wrong that is not your doing; the terminal of the program says what."


def sentence(error: Exception, *, song: str | None = None, offload: str = "none") -> str:
    """The sentence for an error; one that is no `UserError` is printed in the terminal as it is.

    Args:
        error: What was raised.
        song: The uploaded file, called by its own name without the server's folders.
        offload: What the page was started with.
    """
    found = user_error(error)
    if isinstance(found, OutOfMemoryError):
        text = f"The device's memory is too small for {found.doing}: {remedy(found, offload)}."
    elif found is not None:
        text = str(found)
    else:
        traceback.print_exception(error, file=sys.stderr)
        text = UNKNOWN
    if song:
        text = text.replace(song, Path(song).name)
        if text.startswith(Path(song).name):
            return text
    return text[:1].upper() + text[1:]


def remedy(error: OutOfMemoryError, offload: str) -> str:
    """Which option of the page helps."""
    if error.doing.startswith("decoding"):
        return "ask for a shorter video, or start the page with --vae_tiling"
    more = {"none": "model", "model": "group"}.get(offload)
    if more is None:
        return "ask for a shorter video"
    return f"ask for a shorter video, or start the page with --offload {more}"
