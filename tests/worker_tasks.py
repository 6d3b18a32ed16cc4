"""What tests hand to other processes; imports little, since each of them imports it again."""

import os
import signal

import torch

from dance_eval.metrics.clip import ClipMetric


def squared(number):
    """A square, with the number of threads and the process; 3 kills its process."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 100:
        raise ValueError("no square")
    return number**2, torch.get_num_threads(), os.getpid()


class Deadly(ClipMetric):
    """Kills the process that scores one of the clips, as the kernel does where memory runs out."""

    value_names = ("num_threads",)

    def __init__(self, *, victim: str = "", name: str = "deadly"):
        super().__init__(name=name)
        self.victim = victim

    def score_clip(self, clip):
        if clip.name == self.victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"num_threads": float(torch.get_num_threads())}
