"""The weights that an optimizer gives, where they are others than those it trains."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

TRAINED_KEY = "musicinfuser_trained_weights"
"""In checkpoints of optimizers that give other weights than they train."""


def averages(optimizer: Any) -> bool:
    """Whether an optimizer trains at other weights than it gives, as schedule-free ones do.

    These have `train` and `eval`, which torch's own have not.
    """
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


class GivenWeights:
    """The weights that an optimizer such as schedulefree's gives, in the place of those it trains.

    `put_in` and `put_back` change nothing of the training: what was trained comes back to the bit,
    which the optimizer's own `train` would only do up to rounding.
    """

    def __init__(self) -> None:
        """Nothing is put in."""
        self._trained: dict[nn.Parameter, Tensor] = {}

    def put_in(self, optimizers: Iterable[Any]) -> None:
        """Replace the weights of every optimizer that averages; nothing of others."""
        for optimizer in optimizers:
            held = [p for group in optimizer.param_groups for p in group["params"]]
            if averages(optimizer) and not any(p in self._trained for p in held):
                self._trained |= {p: p.detach().clone() for p in held}
                optimizer.eval()

    def put_back(self, optimizers: Iterable[Any]) -> None:
        """Go on from the weights that are trained."""
        for optimizer in optimizers:
            if averages(optimizer):
                optimizer.train()
        with torch.no_grad():
            for parameter, trained in self._trained.items():
                parameter.copy_(trained)
        self._trained = {}

    @contextmanager
    def swapped(self, optimizers: Iterable[Any], *, given: bool) -> Iterator[None]:
        """For a while the weights that are given, or those that are trained."""
        optimizers = list(optimizers)
        was_given = bool(self._trained)
        change, change_back = self.put_in, self.put_back
        if not given:
            change, change_back = self.put_back, self.put_in
        if was_given == given:
            yield
            return
        change(optimizers)
        try:
            yield
        finally:
            change_back(optimizers)

    def keep_both(
        self,
        checkpoint: dict[str, Any],
        optimizers: Sequence[Any],
        trained: Mapping[str, nn.Parameter],
    ) -> None:
        """Put both kinds of weights into a checkpoint, and the state that belongs to the trained.

        Nothing where no optimizer averages.

        Args:
            checkpoint: Gets the given weights as its ``state_dict``.
            optimizers: Of the run.
            trained: The parameters that they train, by name.
        """
        if not any(map(averages, optimizers)):
            return

        def copied() -> dict[str, Tensor]:
            return {name: p.detach().clone() for name, p in trained.items()}

        with self.swapped(optimizers, given=False):
            checkpoint[TRAINED_KEY] = copied()
            checkpoint["optimizer_states"] = [o.state_dict() for o in optimizers]
            with self.swapped(optimizers, given=True):
                checkpoint["state_dict"] = copied()
