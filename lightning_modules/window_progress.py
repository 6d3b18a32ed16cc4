"""How far a song is: one clip of `predict` can take longer than a shell is watched."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import lightning.pytorch as L
from tqdm import tqdm


@contextmanager
def window_bars(trainer: L.Trainer) -> Iterator[Callable[[int], None]]:
    """A progress bar over steps times windows for each song, where the trainer shows bars.

    Args:
        trainer: Rank 0 shows its own songs.

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
