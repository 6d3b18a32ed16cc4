"""What reaches the device while a model runs."""

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Operations that wait for the device to hand a value, or a size, to the host.
WAITING = {"nonzero", "_local_scalar_dense", "masked_select", "equal", "is_nonzero", "item"}


class CountedOperations(TorchDispatchMode):
    """Names of the operations within, and what those that wait were asked of."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []
        self.waited_for: list[torch.Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.names.append(name)
        if name in WAITING:
            self.waited_for.append(args[0])
        return func(*args, **(kwargs or {}))

    @property
    def num_attention(self) -> int:
        """Forward passes of fused attention."""
        counts = Counter(self.names)
        return sum(
            number
            for name, number in counts.items()
            if name.startswith("_scaled_dot_product") and "backward" not in name
        )
