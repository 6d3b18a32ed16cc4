"""GpuSlots: the executor of a machine, one run per visible GPU."""

import os
import queue
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

_slot = threading.local()


class GpuSlots(ThreadPoolExecutor):
    """One run at a time on each GPU; without a GPU, one at a time.

    A run is a process that sees only the GPU of its slot, by ``CUDA_VISIBLE_DEVICES``.
    """

    def __init__(self, gpus: list[str] | None = None) -> None:
        """Make a slot per GPU.

        Args:
            gpus: As ``CUDA_VISIBLE_DEVICES`` names them; by default those that variable names, else
                all that nvidia-smi lists. An empty list: one slot that leaves the variable alone.
        """
        self.gpus = visible_gpus() if gpus is None else list(gpus)
        free: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        for gpu in self.gpus:
            free.put(gpu)
        if not self.gpus:
            free.put(None)
        super().__init__(max(len(self.gpus), 1), initializer=_take_slot, initargs=(free,))


def visible_gpus() -> list[str]:
    """GPUs that a program started here would see, as ``CUDA_VISIBLE_DEVICES`` names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=index", "--format=csv,noheader"]
    listed = subprocess.run(command, capture_output=True, text=True)
    return listed.stdout.split() if listed.returncode == 0 else []


def slot_environment() -> dict[str, str]:
    """What the processes of this thread's runs find in their environment."""
    gpu = getattr(_slot, "gpu", None)
    return {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}


def _take_slot(free: "queue.SimpleQueue[str | None]") -> None:
    _slot.gpu = free.get()
