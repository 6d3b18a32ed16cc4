"""The counterfactual term: a clip with changed music must be predicted worse than with its own.

The idea, to train on the same clip with music that is not its own, is CAT-LoRA's; the form is
ours. A hinge bounds it, and the loss with the own music stays in it: to harm a prediction whatever
the music is lowers nothing, as both losses rise alike.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from datamodules.batch import ClipBatch
from lightning_modules.settings import CounterfactualSpec
from musicinfuser.errors import UserError
from musicinfuser.keyed_random import generator

# One latent frame of Mochi's is 0.2 s: of less ZICA may see nothing. More than 0.5 s is a beat.
SHIFT_SECONDS = (0.2, 0.5)


def check_batch(
    spec: CounterfactualSpec, batch_size: int, pieces_of: Callable[[], set[str]] = set
) -> None:
    """Refuse batches that have no other music.

    Args:
        spec: The term.
        batch_size: Clips of a batch.
        pieces_of: Gives the music of all training clips; empty is not known.

    Raises:
        UserError: ``kind`` is ``other``, and a batch has one clip, or all clips one piece.
    """
    if not (spec.weight and spec.kind == "other"):
        return
    if len(pieces := pieces_of()) == 1:
        raise UserError(
            "model.objective.counterfactual.kind is other, but all training clips have the music "
            f"{min(pieces)}; encode clips of another track, or use kind shifted or silent."
        )
    if batch_size < 2:
        raise UserError(
            f"model.objective.counterfactual.kind is other, but data.batch_size is {batch_size}: "
            "the other clip is of the same batch; use 2 or more, or kind shifted or silent."
        )


def counterfactual_term(
    spec: CounterfactualSpec,
    batch: ClipBatch,
    own: Tensor,
    losses_of: Callable[..., Tensor],
    *,
    seed: int,
    hop_seconds: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The term of a batch, times its weight, and what is logged of it by name.

    Args:
        spec: The option.
        batch: Encoded clips.
        own: ``(B,)`` losses with the clips' own music.
        losses_of: ``losses_of(audio=...)`` gives the losses with other music at the same noise.
        seed: The run's.
        hop_seconds: Between two features of audio.
    """
    changed = losses_of(audio=changed_audio(spec, batch, seed=seed, hop_seconds=hop_seconds))
    counted = batch.music_weight
    if spec.kind == "other":
        has_other = own.new_tensor([i != other for i, other in enumerate(other_clips(batch))])
        counted = has_other if counted is None else counted * has_other
    term = counterfactual_loss(own, changed, margin=spec.margin, has_music=counted).mean()
    # Of samples without music, or without other music, the gap is 0, and was never anything else.
    gap = (changed - own).detach().mean()
    logged = {"train/counterfactual_loss": term, "train/counterfactual_gap": gap}
    return spec.weight * term, logged


def other_clips(batch: ClipBatch) -> list[int]:
    """For each clip of a batch the next one with other music; itself where all have its own."""
    music = batch.music
    return [
        next((k for k in (*range(i + 1, len(music)), *range(i)) if music[k] != own), i)
        for i, own in enumerate(music)
    ]


def changed_audio(
    spec: CounterfactualSpec, batch: ClipBatch, *, seed: int, hop_seconds: float
) -> Tensor | None:
    """The music a batch is predicted worse with, ``(B, S, audio width)``; None is none.

    Args:
        spec: Which change: ``shifted`` rolls each clip's features by `SHIFT_SECONDS`, earlier or
            later, as drawn for its sample; ``other`` is that of the batch's next clip with other
            music, and a clip's own where it has none.
        batch: Encoded clips.
        seed: The run's.
        hop_seconds: Between two features.
    """
    if spec.kind == "silent":
        return None
    if spec.kind == "other":
        return batch.audio[other_clips(batch)]
    low, high = SHIFT_SECONDS
    rolled = []
    for audio, index in zip(batch.audio, batch.sample_index, strict=True):
        drawn = torch.rand(2, generator=generator(seed, index, "counterfactual shift")).tolist()
        steps = max(1, round((low + (high - low) * drawn[0]) / hop_seconds))
        rolled.append(audio.roll(steps if drawn[1] < 0.5 else -steps, dims=0))
    return torch.stack(rolled)


def counterfactual_loss(
    own: Tensor, changed: Tensor, *, margin: float, has_music: Tensor | None
) -> Tensor:
    """relu((1 + margin) own - changed) per sample, the margin's own loss without a gradient.

    Args:
        own: ``(B,)`` losses with the clips' own music.
        changed: ``(B,)`` losses with changed music, at the same noise.
        margin: By what share of ``own`` the other should be worse; a share, as losses differ
            between noise levels.
        has_music: ``(B,)``, 0 for samples whose music was dropped, which have no term; None: all
            have theirs.
    """
    losses = (margin * own.detach() + own - changed).relu()
    return losses if has_music is None else losses * has_music
