"""GpuSlots: the executor of a machine, one run per visible GPU."""

import os
import queue
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

from sweeps.settings import SweepError

_slot = threading.local()


class GpuSlots(ThreadPoolExecutor):
    """One run at a time on each GPU; without a GPU, one at a time, or as many as are asked for.

    A run is a process that sees only the GPU of its slot, by ``CUDA_VISIBLE_DEVICES``. Several runs
    on CPUs share the cores by ``OMP_NUM_THREADS``, unless that is set already.
    """

    def __init__(self, gpus: list[str] | None = None, cpu_runs: int = 1) -> None:
        """Make a slot per GPU.

        Args:
            gpus: As ``CUDA_VISIBLE_DEVICES`` names them; by default those that variable names, else
                all that nvidia-smi lists. An empty list: slots that leave the variable alone.
            cpu_runs: Slots where there is no GPU.

        Raises:
            SweepError: No slot.
        """
        if cpu_runs < 1:
            raise SweepError(f"cpu_runs is {cpu_runs}; use 1 or more.")
        self.gpus = visible_gpus() if gpus is None else list(gpus)
        slots = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in self.gpus] or [{}] * cpu_runs
        if not self.gpus and cpu_runs > 1 and "OMP_NUM_THREADS" not in os.environ:
            slots = [{"OMP_NUM_THREADS": str(max(_num_cpus() // cpu_runs, 1))}] * cpu_runs
        free: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        for slot in slots:
            free.put(slot)
        super().__init__(len(slots), initializer=_take_slot, initargs=(free,))


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
    environment: dict[str, str] = getattr(_slot, "environment", {})
    return environment


def _num_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _take_slot(free: "queue.SimpleQueue[dict[str, str]]") -> None:
    _slot.environment = free.get()
