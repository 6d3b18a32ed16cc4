"""SlurmArray: the executor of a cluster, by submitit (extra ``slurm``)."""

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from typing import Any

from sweeps.settings import SweepError


class SlurmArray(Executor):
    """Runs as the tasks of one job array, each put back into the queue when its time is up.

    Before the time is up a run saves and ends, and submitit requeues it (`Work.checkpoint`). The
    driver waits for the array; ctrl-C takes it back from the queue. If the driver dies, the array
    goes on: repeat the command once it is through (what is in work or finished is left alone). Give
    the sweep ``configs/slurm/slurm.yaml`` among its ``configs``, so that Lightning does not requeue
    as well. Never run under a real SLURM: the tests look at the script with a stand-in for sbatch.
    """

    def __init__(
        self,
        folder: str,
        hours: float,
        parallel_runs: int = 8,
        gpus: int = 1,
        cpus: int = 4,
        memory_gb: int = 96,
        minutes_to_save: float = 10,
        requeues: int = 20,
        partition: str | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> None:
        """Set up; nothing is sent to SLURM before the first run is.

        Args:
            folder: Where submitit keeps scripts, logs and results; seen by all nodes.
            hours: Time limit of a job.
            parallel_runs: Tasks of an array that run at once.
            gpus: Per run.
            cpus: Per run.
            memory_gb: Per run.
            minutes_to_save: How long before the limit a run gets the signal to save.
            requeues: How often a run may come back for being out of time.
            partition: Where to; null: the cluster's default.
            parameters: Further parameters of submitit's SlurmExecutor, such as ``account``.

        Raises:
            SweepError: submitit is not installed, or there is no SLURM.
        """
        try:
            from submitit import SlurmExecutor
        except ImportError as error:
            raise SweepError(
                "submitit is not installed; run `python -m pip install '.[slurm]'`."
            ) from error
        try:
            self._executor = SlurmExecutor(folder=folder, max_num_timeout=requeues)
        except RuntimeError as error:
            raise SweepError(
                f"there is no SLURM here ({error}); submit from a login node."
            ) from error
        more = {} if partition is None else {"partition": partition}
        self._executor.update_parameters(
            job_name="sweep",
            time=round(hours * 60),
            nodes=1,
            ntasks_per_node=1,
            gpus_per_node=gpus,
            cpus_per_task=cpus,
            mem=f"{memory_gb}GB",
            array_parallelism=parallel_runs,
            signal_delay_s=round(minutes_to_save * 60),
            additional_parameters={"requeue": True},
            **more,
            **(parameters or {}),
        )

    def batch(self) -> AbstractContextManager[None]:
        """What is submitted within becomes one array."""
        return self._executor.batch()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Queue a call; gives submitit's job, which has a future's methods."""
        return self._executor.submit(fn, *args, **kwargs)
