"""How much memory one training step holds, at full size and without a GPU.

    python -m benchmarks.meta_memory --out benchmarks/results/meta_memory.json

Runs forward and backward of the whole recipe on the meta device and follows every storage: it is
noted when an operation returns it and forgotten when it is freed, so the peak is what a perfect
allocator would have needed. What a kernel needs for itself is not seen.
Attention counts as the fused kernel it is on a GPU. Weights and what the optimizer holds are left
out, and counted beside. Adapters and their gradients are taken in bf16, so that results compare
with the plan; with ``--autocast`` they are in fp32 and autocast runs, as in training (slower).
"""

import argparse
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.profiles import audio_width, build_on_meta, read_profile
from benchmarks.report import GIB, Figure, command_of, parser
from benchmarks.small_run import recipe_optimization
from musicinfuser.clip_size import latent_shape, num_latent_frames, num_visual_tokens
from musicinfuser.errors import UserError
from musicinfuser.memory.host_memory import host_empty
from musicinfuser.memory.streaming import StreamedBlocks
from musicinfuser.networks.backbones import Mochi
from musicinfuser.networks.music_model import MusicModel
from preflight.memory import BYTES_PER_TRAINED, frozen_bytes

POLICIES = ("full", "self_attention", "attention", "none")
# GiB at 73 frames of 480x848 with 48 blocks: held after forward, and the peak, both above weights.
PLANNED = {
    "full": (6.3, 11.5),
    "self_attention": (12.3, 17.5),
    "attention": (14.2, 19.4),  # and 1.9 of attention to audio in 16 blocks
    "none": (167.0, 168.0),
}
WORST_DEVIATION = 0.02
AUDIO_TOKENS, TEXT_TOKENS = 124, 32
# Flash attention takes heads of at most 256 channels; wider ones go to another fused kernel.
WIDEST_FLASH_HEAD = 256
_attention = torch.nn.functional.scaled_dot_product_attention


class LiveBytes(TorchDispatchMode):
    """Counts bytes of storages while it is entered; what was there before does not count."""

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        """Set up; ``known`` tensors, such as weights, are not counted."""
        super().__init__()
        self.now = 0
        """Bytes alive."""
        self.peak = 0
        """Most bytes alive at once."""
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}
        self._sizes: dict[int, int] = {}
        self._counts = True

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Within, what is made does not count: it stands for memory elsewhere."""
        self._counts = False
        try:
            yield
        finally:
            self._counts = True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run one operation and note what it returns."""
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._note(value)
        return result

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen or key in self._sizes:
            return
        self._sizes[key] = storage.nbytes() if self._counts else 0
        self.now += self._sizes[key]
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def fused_attention(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """What `scaled_dot_product_attention` runs on a GPU; on the meta device it keeps all logits."""
    if options.get("attn_mask") is not None:
        return _attention(query, key, value, **options)
    scale = options.get("scale")
    if query.shape[-1] <= WIDEST_FLASH_HEAD:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return flash(query, key, value, scale=scale)[0]
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    return efficient(query, key, value, None, compute_log_sumexp=True, scale=scale)[0]


@contextmanager
def host_memory_left_out(live: LiveBytes) -> Iterator[None]:
    """Blocks' inputs that are offloaded do not count for a while."""

    def elsewhere(like: Tensor) -> Tensor:
        with live.left_out():
            return host_empty(like)

    with patch("musicinfuser.memory.offloaded_checkpointing.host_empty", elsewhere):
        yield


@contextmanager
def attention_as_on_a_gpu() -> Iterator[None]:
    """Let attention be one fused operation for a while."""
    with patch("torch.nn.functional.scaled_dot_product_attention", fused_attention):
        yield


def simulated_step(
    model: MusicModel,
    num_frames: int,
    height: int,
    width: int,
    *,
    autocast: bool = False,
    first_given: bool = False,
) -> dict[str, int]:
    """Bytes of one forward and backward pass above the weights.

    The model is on the meta device, and its parameters are replaced; with ``autocast`` adapters
    are kept in fp32 and it runs under autocast, as all families but Mochi have to. There are as
    many frames as the family takes, 6k + 1 of Mochi; sides are in pixels. With ``first_given``
    the clip begins with a given frame.
    ``after_forward`` and ``peak`` are above the weights, ``gradients`` among them at the end;
    ``frozen_gradients`` says how many frozen parameters got one.
    """
    size = (num_frames, height, width)
    with _simulated(model, size, autocast=autocast, first_given=first_given) as (live, velocity):
        loss = velocity().float().square().mean()
        after_forward = live.now
        loss.backward()
    have_one = [p for p in model.parameters() if p.grad is not None]
    return {
        "after_forward": after_forward,
        "peak": live.peak,
        "gradients": sum(p.grad.nbytes for p in have_one if p.grad is not None),
        "frozen_gradients": sum(not p.requires_grad for p in have_one),
    }


def counted_step(
    model: MusicModel, num_frames: int, height: int, width: int, *, first_given: bool = False
) -> float:
    """TFLOP of one forward and backward pass as torch counts them, under autocast.

    Arguments as of `simulated_step`; what is computed again is in it.
    """
    size = (num_frames, height, width)
    with (
        _simulated(model, size, autocast=True, first_given=first_given) as (_, velocity),
        FlopCounterMode(display=False) as counter,
    ):
        velocity().float().square().mean().backward()
    return counter.get_total_flops() / 1e12


@torch.no_grad()
def simulated_sampling(
    model: MusicModel, num_frames: int, height: int, width: int, *, first_given: bool = False
) -> int:
    """Most bytes above the weights in a pass of a sampling, under autocast.

    Arguments as of `simulated_step`.
    """
    size = (num_frames, height, width)
    with _simulated(model, size, autocast=True, first_given=first_given) as (live, velocity):
        velocity()
    return live.peak


@contextmanager
def _simulated(
    model: MusicModel, size: tuple[int, int, int], *, autocast: bool, first_given: bool
) -> Iterator[tuple[LiveBytes, Callable[[], torch.Tensor]]]:
    """A count of what is alive, and the model's forward pass on a clip of a size."""
    kind = model.kind
    lowered: Any = torch.autocast("cpu", torch.bfloat16, cache_enabled=False)
    with _without_memory(model, autocast=autocast) as device, torch.device(device):
        latents = torch.empty(1, *latent_shape(*size, geometry=kind.geometry))
        text = torch.empty(1, TEXT_TOKENS, model.backbone.config[kind.text_width_key])
        levels = torch.empty(1, latents.shape[2]) if first_given else torch.empty(1)
        audio = torch.empty(1, AUDIO_TOKENS, audio_width(model))
        if not autocast:
            audio = audio.bfloat16()

        def velocity() -> torch.Tensor:
            with lowered if autocast else nullcontext():
                return model(
                    latents, text, levels, audio_features=audio,
                    text_lengths=(TEXT_TOKENS,),
                )  # fmt: skip

        live = LiveBytes([*model.parameters(), *model.buffers()])
        with attention_as_on_a_gpu(), live, host_memory_left_out(live):
            yield live, velocity


@contextmanager
def _without_memory(model: MusicModel, *, autocast: bool) -> Iterator[str]:
    """A device without memory for the model's weights and everything made meanwhile."""
    if autocast:
        # The meta device has no autocast; fake tensors have all of a CPU's but its memory.
        with FakeTensorMode(allow_non_fake_inputs=True):
            for module in model.modules():
                _replace_weights(module)
            if model.streamed is not None:
                # Of parameters that have just been replaced.
                with patch("musicinfuser.memory.streaming.own_pages", _bytes):
                    model.streamed = StreamedBlocks(
                        model.kind.blocks, leave=model.kind.not_streamed
                    )
            yield "cpu"
        return
    if not isinstance(model.kind, Mochi):
        raise UserError(
            f"parts of {model.kind.family} stay in fp32, so it is counted with autocast only; give "
            "--autocast."
        )
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    # Rotations go through an autocast region that the meta device does not have.
    heads, channels = model.backbone.pos_frequencies.shape[1:]
    tables = lambda t, h, w, _: (torch.empty(t * h * w, heads, channels, device="meta"),) * 2  # noqa: E731
    model.kind.rotary = tables  # type: ignore[assignment]
    yield "meta"


def _bytes(number: int) -> torch.Tensor:
    return torch.empty(number, dtype=torch.uint8)


def _replace_weights(module: nn.Module) -> None:
    for name, parameter in module._parameters.items():
        if parameter is not None:
            empty = torch.empty(parameter.shape, dtype=parameter.dtype)
            module._parameters[name] = nn.Parameter(empty, parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def deviation_from_a_line(values: Sequence[float], tokens: Sequence[int]) -> float:
    """How far the middle of three values is off the line through the others, relative to it."""
    low, middle, high = values
    share = (tokens[1] - tokens[0]) / (tokens[2] - tokens[0])
    return abs(middle - (low + share * (high - low))) / middle


def held_by_training(model: MusicModel) -> tuple[dict[str, int], int]:
    """Bytes of frozen weights, and of trained weights, gradients and Adam.

    Also how many frozen parameters the optimizer holds.
    """
    made = recipe_optimization().build(model.parameters(), 4000)
    held = [p for group in made["optimizer"].param_groups for p in group["params"]]
    trained_state = BYTES_PER_TRAINED * sum(p.numel() for p in held)
    sizes = {"frozen": frozen_bytes(model), "trained_state": trained_state}
    return sizes, sum(not p.requires_grad for p in held)


def measure(settings: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    """Every policy at every length."""
    config = read_profile(settings.profile)
    tokens = [num_visual_tokens(f, settings.height, settings.width) for f in settings.frames]
    figures, details = [], {}
    is_planned = settings.layers == 48 and (settings.height, settings.width) == (480, 848)
    for policy in settings.policies:
        steps = []
        for frames in settings.frames:
            # Nothing is compiled without a device: these are eager's sums, the larger ones.
            model = build_on_meta(
                config, num_layers=settings.layers, gradient_checkpointing=policy,
                compile_blocks=False,
            )  # fmt: skip
            size = (frames, settings.height, settings.width)
            held, num_frozen = held_by_training(model)
            step = simulated_step(model, *size, autocast=settings.autocast)
            steps.append(step)
            details[f"{policy}, {frames} frames"] = step
            planned: Sequence[float | None] = (None, None)
            if is_planned and num_latent_frames(frames) == 13:
                planned = PLANNED[policy]
            for what, limit in zip(("after_forward", "peak"), planned, strict=True):
                name = f"{policy}, {frames} frames: {what.replace('_', ' ')}"
                figures.append(Figure(name, step[what] / GIB, "GiB above weights", limit))
        if len(steps) == 3:
            for what in ("after_forward", "peak"):
                off = deviation_from_a_line([step[what] for step in steps], tokens)
                name = f"{policy}: {what.replace('_', ' ')}, off a line in tokens"
                figures.append(Figure(name, off, "of it", WORST_DEVIATION))
    figures += [
        Figure("frozen weights with a gradient or in the optimizer", num_frozen
               + sum(step["frozen_gradients"] for step in details.values()), "", 0),
        Figure("frozen weights", held["frozen"] / GIB, "GiB", 2 * 10_027_677_744 / GIB),
        Figure("trained weights, gradients and Adam, fp32", held["trained_state"] / GIB, "GiB",
               16 * 747_804_672 / GIB),
    ]  # fmt: skip
    return figures, details


OPTIONS = parser(
    __doc__, "profile", "layers", "height", "width", frames=[73, 145],
    policies={"nargs": "+", "default": list(POLICIES), "choices": POLICIES},
    autocast={"action": "store_true", "help": "adapters in fp32; slower"},
)  # fmt: skip
main = command_of("meta_memory", OPTIONS, measure)

if __name__ == "__main__":
    main()
