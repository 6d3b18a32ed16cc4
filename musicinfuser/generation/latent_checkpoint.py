"""Latents on disk after every sampling step: a song can take hours, and a job may be ended."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from musicinfuser.safetensors_files import save_tensors

NAME = "latents"


class LatentCheckpoint:
    """The latents of one clip after its last finished step."""

    def __init__(
        self,
        folder: Path,
        stem: str,
        made_by: Mapping[str, Any],
        *,
        on_saved: Callable[[int], None] | None = None,
    ) -> None:
        """Name the file; nothing is read or written yet.

        Args:
            folder: Where it lies; made with the first step.
            stem: What its name starts with.
            made_by: All that decides the latents; with anything else in it, another file.
            on_saved: Called with the number of steps that are done, each time they are on disk.
        """
        text = json.dumps(made_by, sort_keys=True, default=str)
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        self.path = folder / f"{stem}_{digest}.safetensors"
        self.on_saved = on_saved

    def num_done(self) -> int:
        """How many steps an earlier call left here; 0 where there is no file that can be read."""
        try:
            with safe_open(self.path, framework="pt") as file:
                return int(file.metadata()["num_done"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return 0

    def resume(self, noise: Tensor) -> tuple[int, Tensor]:
        """How many steps are done and the latents after them; none and the noise for a new clip."""
        num_done = self.num_done()
        if num_done == 0:
            return 0, noise
        return num_done, load_file(self.path)[NAME].to(noise.device)

    def save(self, step: int, latents: Tensor) -> None:
        """Write the latents after a step, counted from 0; as `euler_sample` calls it."""
        save_tensors({NAME: latents.cpu()}, self.path, metadata={"num_done": str(step + 1)})
        if self.on_saved is not None:
            self.on_saved(step + 1)

    def remove(self) -> None:
        """Delete the file, and the folder if nothing else is in it."""
        self.path.unlink(missing_ok=True)
        if self.path.parent.is_dir() and not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()
