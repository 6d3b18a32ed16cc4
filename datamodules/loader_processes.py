"""What happens in the processes that load data."""

import signal

from lightning.fabric.utilities.seed import pl_worker_init_function

from musicinfuser.errors import UserError


def checked_number(num_workers: int) -> int:
    """A number of loader processes.

    Raises:
        UserError: Less than 0.
    """
    if num_workers < 0:
        raise UserError(
            f"data.num_workers is {num_workers}; use 0 to load in the main process, or more."
        )
    return num_workers


def outlive_first_signal(worker_id: int) -> None:
    """Let a first SIGTERM or ctrl-C pass: it may come to all processes of a run, which then saves.

    A second one ends the loader, as does the end of the run.
    """
    pl_worker_init_function(worker_id)

    def pass_once(signum: int, *_: object) -> None:
        signal.signal(signum, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, pass_once)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, pass_once)
