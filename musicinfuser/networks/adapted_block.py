"""A block and the audio that enters after it, recomputed and compiled as one."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from musicinfuser.errors import UserError
from musicinfuser.memory.offload_hooks import is_hooked
from musicinfuser.memory.settings import KEPT_BY_POLICY, GradientCheckpointing

# Kinds of block, times lengths of text (0, 1 and others), sizes of clips, training or not.
MAX_GRAPHS = 128
T = TypeVar("T")


class BlockAudio:
    """The adapter after a block, its audio tokens ``(B, S, D)`` and their weights ``(B,)``.

    No tuple or dataclass: FSDP's hooks look for tensors in those and put a mark on each, which
    would change the order in which the gradients of the audio are added up, hence their last bits.
    By a view, what arrives at the audio tokens is summed up within the block, however blocks are
    run: the last bits of the projector's gradients depend on the order.
    """

    def __init__(self, zica: nn.Module, tokens: Tensor, weight: Tensor | None = None) -> None:
        self.zica, self.tokens, self.weight = zica, tokens.view_as(tokens), weight

    @classmethod
    def of(
        cls, zica: nn.Module | None, tokens: Tensor | None, weight: Tensor | None
    ) -> "BlockAudio | None":
        """None where a block has no adapter, or no audio."""
        return None if zica is None or tokens is None else cls(zica, tokens, weight)


AudioParts = tuple[nn.Module | None, Tensor | None, Tensor | None]


def parts_of(audio: BlockAudio | None) -> AudioParts:
    """Adapter, tokens and weights; three times None where there is no audio."""
    return (None, None, None) if audio is None else (audio.zica, audio.tokens, audio.weight)


def recomputed(run: Callable[[Tensor], T], visual: Tensor, policy: GradientCheckpointing) -> T:
    """What ``run`` makes of the visual tokens, of which ``policy`` says what backward keeps."""
    if policy == "none" or not torch.is_grad_enabled():
        return run(visual)
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if policy != "full":  # torch's compiler takes no default for `context_fn`
        options["context_fn"] = KEPT_BY_POLICY[policy]
    return checkpoint(run, visual, **options)


def compiled(
    run_block: Callable[..., Any], backend: str | Callable[..., Any] = "inductor"
) -> Callable[..., Any]:
    """A family's ``run_block`` for all blocks of a model, one whole graph for each kind of them."""
    # Torch's stubs leave the last two out.
    return torch.compile(  # type: ignore[call-overload]
        run_block,
        fullgraph=True,
        backend=backend,
        recompile_limit=MAX_GRAPHS,
        isolate_recompiles=True,
    )


def adapt_blocks(blocks: nn.ModuleList, adapted: type[nn.Module]) -> None:
    """Replace blocks by ``adapted`` ones with the same weights under the same names.

    Blocks that are adapted already stay.

    Raises:
        UserError: Blocks have hooks, which belong to the ones that would be replaced.
    """
    for i, block in enumerate(blocks):
        if isinstance(block, adapted):
            continue
        if is_hooked(block):
            raise UserError(
                "the transformer's blocks are offloaded already; put the model together first, "
                "then switch offloading on."
            )
        blocks[i] = adapted(block)
