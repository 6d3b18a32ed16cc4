"""SIGTERM and ctrl-C: the run stops after the current optimizer step."""

import signal
import threading
from types import FrameType
from typing import Any

import lightning.pytorch as L

from lightning_modules.long_clips import leave_unless_done


class SigtermNotice:
    """Whether this process got a signal to end, and which.

    Lightning leaves at the end of the batch in which SIGTERM came, which may be in the middle of
    accumulated gradients, and at once on ctrl-C (SIGINT), which loses the steps since the last
    checkpoint. Its handlers are replaced while training runs; a second ctrl-C ends at once. Those
    of SLURM's requeue (SIGUSR1) are not touched.
    """

    def __init__(self) -> None:
        self.received = False
        self.signal = signal.SIGTERM

    @property
    def exit_code(self) -> int:
        """0 after SIGTERM, which job systems send; after ctrl-C what follows must not start."""
        return 0 if self.signal == signal.SIGTERM else 128 + self.signal

    def listen(self, trainer: L.Trainer) -> None:
        """Take over from Lightning, which restores the handlers it found when the run is over."""
        connector = trainer._signal_connector
        self.received, connector.received_sigterm = connector.received_sigterm, False
        self.signal = signal.SIGTERM
        if threading.current_thread() is not threading.main_thread():
            return

        def note(signum: int, frame: FrameType | None) -> None:
            if signum == signal.SIGINT and self.received:
                raise KeyboardInterrupt
            launcher = trainer.strategy.launcher
            # The other processes of this run, which it started; ctrl-C comes to them as well.
            if signum == signal.SIGTERM and not self.received and launcher is not None:
                launcher.kill(signum)
            if not self.received:
                self.signal = signal.Signals(signum)
            self.received = True

        signal.signal(signal.SIGTERM, note)
        # One that is ignored (`nohup`, a job in the background) stays so.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, note)

    def agreed(self, trainer: L.Trainer) -> bool:
        """Whether any process of the run got a signal; every process must call this."""
        if trainer.world_size == 1:
            return self.received
        self.received = trainer.strategy.reduce_boolean_decision(self.received, all=False)
        return self.received

    def leave(self, trainer: L.Trainer) -> None:
        """Let Lightning end the run where it next looks: after this batch's logs, or validation's.

        It raises its ``SIGTERMException``, a ``SystemExit`` with exit code 0. A validation that is
        due is left out: processes with different numbers of batches would not leave it together.
        """
        trainer._signal_connector.received_sigterm = True
        trainer.fit_loop.epoch_loop._skip_next_val = True


class EndOnSigterm(L.Callback):
    """On SIGTERM, stops `predict` after the current batch is written; Lightning would go on."""

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Leave unless this was the last one; no process waits for another."""
        leave_unless_done(trainer, batch_idx + 1, sum(trainer.num_predict_batches), "batches")


NOTICE = SigtermNotice()
"""Of this process: signals are the process's, not a trainer's."""
