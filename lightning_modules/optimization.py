"""The optimizer and the schedule that a config names, tried before anything is read or trained."""

import importlib
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lightning_modules.given_weights import averages
from lightning_modules.learning_rate import WarmUp
from musicinfuser.errors import UserError
from musicinfuser.moved_names import with_schedule
from musicinfuser.setting_checks import check_number

_TRIED_SHAPE = (64, 128)
"""Of the parameter that an optimizer is tried on: 8-bit optimizers need 4,096 numbers."""
_MOST_TRIED_STEPS = 100_000
"""Of a schedule: of longer runs the rest is not tried, which takes a second here."""
_PLAIN = (bool, int, float, str, torch.dtype, type(None))
_CLASS, _INNER, _CONTEXT, _SHAPE = "tensor class", "inner tensors", "context", "shape"


class Optimization:
    """An optimizer and its schedule, by class path with arguments.

    Attributes:
        make_optimizer: Takes parameters; ``model.optimizer`` of a config.
        make_schedule: Takes the optimizer; ``model.schedule``; None keeps the optimizer's own rate.
    """

    def __init__(
        self, make_optimizer: OptimizerCallable, make_schedule: LRSchedulerCallable | None
    ) -> None:
        """Note both, and make them once.

        Raises:
            UserError: One of the two cannot be made with these arguments.
        """
        self.make_optimizer, self.make_schedule = make_optimizer, make_schedule
        rate = self.settings["optimizer"]["init_args"].get("lr")
        if isinstance(rate, int | float):
            check_number("optimizer.lr", rate, above=0)
        self.build([nn.Parameter(torch.zeros(_TRIED_SHAPE))], num_steps=1)

    @cached_property
    def settings(self) -> dict[str, dict[str, Any]]:
        """``optimizer`` and ``schedule`` as a config has them, in plain values."""
        return {"optimizer": _named(self.make_optimizer), "schedule": _named(self.make_schedule)}

    @property
    def depends_on_length(self) -> bool:
        """Whether the rate of a step depends on ``trainer.max_steps``."""
        return self.settings["schedule"]["init_args"].get("decay") == "cosine"

    @cached_property
    def averages(self) -> bool:
        """Whether the optimizer gives other weights than it trains; see `averages`."""
        return averages(self.build([nn.Parameter(torch.zeros(1, 1))], num_steps=1)["optimizer"])

    def check(self, device: torch.device | str = "cpu", *, num_steps: int = -1) -> None:
        """Make one step with small parameters on a device; the run must be able to.

        Args:
            device: Of the run.
            num_steps: Of the run, which the schedule must reach; below 0: not known.

        Raises:
            UserError: The optimizer cannot step there, or the schedule ends before.
        """
        self._try(torch.device(device), _TRIED_SHAPE, _TRIED_SHAPE[1:])
        self._try_schedule(num_steps)

    def check_accumulation(self, num_batches: int) -> None:
        """Refuse several batches for a step of an optimizer that evaluates the loss repeatedly.

        Lightning clears gradients with the first batch only, so its later evaluations would add up.

        Raises:
            UserError: It is such an optimizer, as L-BFGS is.
        """
        if num_batches > 1 and self._num_evaluations > 1:
            name = self.settings["optimizer"]["class_path"]
            raise UserError(
                f"{name} evaluates the loss several times in a step, which "
                f"trainer.accumulate_grad_batches {num_batches} does not allow; set that to 1, or "
                "name another optimizer."
            )

    @cached_property
    def _num_evaluations(self) -> int:
        """Of the loss, in one step of the optimizer."""
        count = Counter[str]()
        self._try(torch.device("cpu"), _TRIED_SHAPE, count=count)
        return count["evaluations"]

    @cached_property
    def state_bytes(self) -> float:
        """Of the optimizer's state per trained number: 8 of Adam's two moments in fp32."""
        try:
            optimizer = self._try(torch.device("cpu"), _TRIED_SHAPE)
        except UserError:  # runs on another device only
            return 8.0
        found = list(_tensors(optimizer.state_dict()["state"]))
        size = sum(tensor.numel() * tensor.element_size() for tensor in found if tensor.numel() > 1)
        return size / (_TRIED_SHAPE[0] * _TRIED_SHAPE[1])

    def build(
        self, parameters: Iterable[nn.Parameter], num_steps: int
    ) -> OptimizerLRSchedulerConfig:
        """Both, over what has a gradient, for a run of so many optimizer steps.

        Raises:
            UserError: One of the two cannot be made with its arguments.
        """
        trained = [p for p in parameters if p.requires_grad]
        with _in_one_sentence("optimizer", self.settings["optimizer"]):
            optimizer = self.make_optimizer(trained)
        if not isinstance(optimizer, Optimizer):
            raise UserError(
                f"model.optimizer makes a {type(optimizer).__name__}, which is no torch Optimizer; "
                "name another class."
            )
        if self.make_schedule is None:
            return {"optimizer": optimizer}  # type: ignore[typeddict-item]
        with _in_one_sentence("schedule", self.settings["schedule"]):
            scheduler = self.make_schedule(optimizer)
        if not isinstance(scheduler, LRScheduler) or isinstance(scheduler, ReduceLROnPlateau):
            raise UserError(
                f"model.schedule makes a {type(scheduler).__name__}; name a schedule that follows "
                "the optimizer's steps and no metric."
            )
        if isinstance(scheduler, WarmUp):
            scheduler.num_steps = num_steps
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"},
        }

    def schedule_of(self, num_steps: int) -> WarmUp | None:
        """The curve of a run of so many steps, if it is a `WarmUp`."""
        made = self.build([nn.Parameter(torch.zeros(1))], num_steps).get("lr_scheduler")
        scheduler = made and made["scheduler"]  # type: ignore[index,typeddict-item]
        return scheduler if isinstance(scheduler, WarmUp) else None

    def _try_schedule(self, num_steps: int) -> None:
        """Take a schedule through a run; ours needs none of it."""
        made = self.build([nn.Parameter(torch.zeros(1, 1))], max(num_steps, 1))
        found: Any = made.get("lr_scheduler")
        scheduler = found and found["scheduler"]
        if scheduler is None or isinstance(scheduler, WarmUp):
            return
        with warnings.catch_warnings(), _in_one_sentence("schedule", self.settings["schedule"]):
            warnings.simplefilter("ignore")  # that no optimizer stepped before it
            for _ in range(min(max(num_steps, 1), _MOST_TRIED_STEPS)):
                scheduler.step()

    def _try(
        self,
        device: torch.device,
        *shapes: tuple[int, ...],
        count: "Counter[str] | None" = None,
    ) -> Optimizer:
        """The optimizer after a step of its own with parameters of some shapes."""
        parameters = [nn.Parameter(torch.zeros(shape, device=device)) for shape in shapes]
        optimizer: Any = self.build(parameters, num_steps=1)["optimizer"]

        def loss() -> Tensor:
            if count is not None:
                count["evaluations"] += 1
            optimizer.zero_grad()
            value = torch.stack([(p - 1).square().sum() for p in parameters]).sum()
            value.backward()
            return value

        with (
            _in_one_sentence("optimizer", self.settings["optimizer"]),
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
            torch.compiler.set_stance("force_eager"),
            torch.enable_grad(),
        ):
            if averages(optimizer):
                optimizer.train()
            optimizer.step(loss)
        return optimizer


def plain_states(states: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Optimizer states with tensors of torch's own kind only, which every reader can load.

    8-bit optimizers keep tensors of classes of their own. `own_states` makes them again.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor) and hasattr(value, "__tensor_flatten__"):
            names, context = value.__tensor_flatten__()
            return {
                _CLASS: class_path_of(type(value)),
                _INNER: {name: plain(getattr(value, name)) for name in names},
                _CONTEXT: _plain(context),
                _SHAPE: list(value.shape),
            }
        return value

    return [_changed(state, plain) for state in states]


def own_states(states: list[dict[str, Any]], class_path: str) -> list[dict[str, Any]]:
    """What `plain_states` changed, as it was: classes of the package of the optimizer named.

    Raises:
        UserError: The states are of a class of another package.
    """
    package = class_path.partition(".")[0]

    def own(value: Any) -> Any:
        if not (isinstance(value, dict) and _CLASS in value):
            return value
        module, _, name = value[_CLASS].rpartition(".")
        if module.partition(".")[0] != package:
            raise UserError(
                f"the checkpoint's optimizer holds {value[_CLASS]}, which {package} does not have; "
                "name the optimizer it was trained with."
            )
        kind = getattr(importlib.import_module(module), name)
        inner = {key: own(tensor) for key, tensor in value[_INNER].items()}
        size = torch.Size(value[_SHAPE])
        return kind.__tensor_unflatten__(inner, value[_CONTEXT], size, None)

    return [_changed(state, own) for state in states]


def stored_optimization(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """``optimizer`` and ``schedule`` of a checkpoint, those of earlier versions too.

    These knew AdamW only, and had the schedule in the optimizer's group.
    """
    optimizer = dict(settings.get("optimizer", {}))
    if "class_path" in optimizer or not optimizer:
        return {"optimizer": optimizer, "schedule": dict(settings.get("schedule", {}))}
    return {
        name: with_schedule({"optimizer": optimizer})[name] for name in ("optimizer", "schedule")
    }


def comparable(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Of both groups of a run the arguments that a checkpoint knows too.

    Another version of a library may have others.
    """
    found = {group: dict(mine[group]) for group in mine}
    for group, named in found.items():
        if named.get("class_path") == theirs[group].get("class_path"):
            known = theirs[group].get("init_args", {})
            named["init_args"] = {k: v for k, v in named["init_args"].items() if k in known}
    return found


def class_path_of(made: Any) -> str:
    """The shortest dotted name under which a class or function can be imported."""
    modules, name = made.__module__.split("."), made.__qualname__
    for end in range(1, len(modules) + 1):
        package = ".".join(modules[:end])
        if getattr(sys.modules.get(package), name, None) is made:
            return f"{package}.{name}"
    return f"{made.__module__}.{name}"


def _named(factory: Callable[..., Any] | None) -> dict[str, Any]:
    """A class path and arguments of what jsonargparse or `functools.partial` made of them."""
    if factory is None:
        return {"class_path": None, "init_args": {}}
    if not isinstance(factory, partial):
        return {"class_path": class_path_of(factory), "init_args": {}}
    classes = [made for made in (*factory.args, factory.func) if isinstance(made, type)]
    named = classes[0] if classes else factory.func
    return {"class_path": class_path_of(named), "init_args": _plain(factory.keywords)}


def _plain(value: Any) -> Any:
    """What a checkpoint can hold: values that are none of these as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return (
            type(value)(_plain(inner) for inner in value)
            if type(value) in (list, tuple)
            else [_plain(inner) for inner in value]
        )
    return value if isinstance(value, _PLAIN) else str(value)


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """A nest of dicts and lists with every value changed, from the top."""
    new = change(value)
    if new is not value:
        return new
    if isinstance(value, dict):
        return {key: _changed(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_changed(inner, change) for inner in value]
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of a state, those within tensors of classes of their own too."""
    [flat] = plain_states([{"state": value}])
    stack = [flat]
    while stack:
        value = stack.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict):
            stack.extend(value.values())
        elif isinstance(value, list | tuple):
            stack.extend(value)


@contextmanager
def _in_one_sentence(group: str, settings: Mapping[str, Any]) -> Iterator[None]:
    """What a class of any library refuses, as a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise UserError(
            f"model.{group}: {settings['class_path']} cannot be used with its arguments ({reason});"
            f" change model.{group}.init_args, or name another class."
        ) from error
