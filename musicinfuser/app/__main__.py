"""``python -m musicinfuser.app``: load, open the page, and stay until ctrl-C."""

import importlib.util
import os
import signal
import tempfile
from collections.abc import Sequence

from musicinfuser.errors import UserError, in_one_sentence


def main(arguments: Sequence[str] | None = None) -> None:
    """Open the page.

    Raises:
        ValueError: What the user can mend, in one sentence.
    """
    from musicinfuser.app.options import parse

    options = parse(arguments)
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page needs gradio; `pip install '.[demo]'` brings it.")
    # Read by gradio when it is imported.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # As ctrl-C, so that what was uploaded and made is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="musicinfuser-page-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        from musicinfuser.app.generator import Generator
        from musicinfuser.app.handlers import Handlers
        from musicinfuser.app.page import open_page

        print(f"loading {options.model}", flush=True)
        page = open_page(Handlers(Generator(options), max_seconds=options.max_seconds), options)
        print(f"the page is at {page.local_url} (ctrl-C ends it)", flush=True)
        page.block_thread()


if __name__ == "__main__":
    with in_one_sentence("app"):
        main()
