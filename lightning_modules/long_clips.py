"""Clips in windows, which take hours: their progress bar, and how `predict` is stopped and resumed.

Resume generation: the latents of a clip in windows lie in ``<trainer.default_root_dir>/
songs_under_way`` after every step until its video is written, 4 bytes for each of the 12 channels
of a latent (of three minutes at 480x848 275 MB). The same command goes on with them; with other
adapters, another backbone, other encoders or settings the clip is begun anew.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM
from typing import TYPE_CHECKING

import lightning.pytorch as L
from tqdm import tqdm

from musicinfuser.fingerprint import file_digest
from musicinfuser.generation import LatentCheckpoint
from musicinfuser.generation_requests import GenerationRequest

if TYPE_CHECKING:
    from lightning_modules.music_infuser import MusicInfuserModule

FOLDER = "songs_under_way"


def latent_checkpoint(
    module: "MusicInfuserModule", request: GenerationRequest
) -> LatentCheckpoint | None:
    """Where a clip's latents go after each step of `predict`; None for a clip of one pass."""
    if not request.in_windows or module.sampling.windows(request.num_frames) is None:
        return None
    total = module.sampling.num_steps
    made_by = {
        "cell": request.stored(),  # the key in folders of earlier versions
        "sampling": module.sampling.stored(),
        "model": module.model_settings(),
        "backbone": module.backbone_spec.stored(),
        "weights": module.backbone_spec.fingerprint(),
        "encoders": module.encoders.fingerprints(),
        "adapters": _adapters_hash(module),
        "precision": module.trainer.precision,
    }
    if request.image is not None:
        made_by["image"] = file_digest(Path(request.image))

    def on_saved(num_done: int) -> None:
        leave_unless_done(module.trainer, num_done, total, f"steps of a song to {request.track}")

    folder = Path(module.trainer.default_root_dir, FOLDER)
    checkpoint = LatentCheckpoint(folder, request.file_stem(), made_by, on_saved=on_saved)
    if num_done := checkpoint.num_done():
        print(f"The song to {request.track} goes on after {num_done} of {total} steps.")
    return checkpoint


def _adapters_hash(module: "MusicInfuserModule") -> str:
    digest = hashlib.blake2b(digest_size=8)
    parameters = dict(module.adapted.named_parameters())
    for name in sorted(module.adapted.trainable_names()):
        digest.update(name.encode())
        digest.update(parameters[name].detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def leave_unless_done(trainer: L.Trainer, done: int, total: float, what: str) -> None:
    """After a SIGTERM, end a process that can go on later from what it wrote.

    Args:
        trainer: Notes whether this process got one.
        done: How much is written.
        total: How much there is for this process.
        what: What is counted, in the plural.

    Raises:
        SystemExit: Something is left; with a sentence on stderr, and the code that shells report,
            so that what comes next in a script does not start.
    """
    if trainer.received_sigterm and done < total:
        print(
            f"SIGTERM: rank {trainer.global_rank} stopped after {done} of {total} {what}; the "
            "same command does the rest.",
            file=sys.stderr,
        )
        raise SystemExit(128 + SIGTERM)


@contextmanager
def window_bars(trainer: L.Trainer) -> Iterator[Callable[[int], None]]:
    """A progress bar over steps times windows for each song of rank 0, where bars are shown.

    Yields:
        What is called after each window with the number of windows of all steps.
    """
    is_shown = trainer.is_global_zero and trainer.progress_bar_callback is not None
    bar, num_done = tqdm(disable=True), 0

    def on_window(num_windows: int) -> None:
        nonlocal bar, num_done
        if num_done == 0:
            bar = tqdm(total=num_windows, desc="Windows", leave=False, disable=not is_shown)
        bar.update()
        num_done = (num_done + 1) % num_windows
        if num_done == 0:
            bar.close()

    try:
        yield on_window
    finally:
        bar.close()
