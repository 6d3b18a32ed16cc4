"""What happens in the processes that load data."""

import signal

from lightning.fabric.utilities.seed import pl_worker_init_function


def outlive_sigterm(worker_id: int) -> None:
    """Let a first SIGTERM pass: sent to a whole job, it would end loaders before the run has saved.

    A second one ends the loader, as does the end of the run.
    """
    pl_worker_init_function(worker_id)

    def pass_once(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, pass_once)
