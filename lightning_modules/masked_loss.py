"""The masked loss: what errors count where the dancers are."""

from torch import Tensor

from datamodules.batch import ClipBatch
from datamodules.dance import DanceDataModule
from lightning_modules.settings import MaskSpec
from musicinfuser.errors import UserError
from musicinfuser.media.latents import ClipHeader


def ask_for_masks(
    spec: MaskSpec, data: DanceDataModule, headers: list[ClipHeader] | None = None
) -> str:
    """Have training clips bring their masks, where the loss wants them.

    Args:
        spec: The option.
        data: The clips.
        headers: Of their cache; None reads them.

    Returns:
        A sentence on clips that are trained on without one; empty where there are none.

    Raises:
        CacheError: Clips have no mask, and ``spec`` refuses such.
    """
    return data.use_masks(headers, may_lack=spec.unmasked == "plain") if spec.is_on else ""


def pixel_weights(spec: MaskSpec, batch: ClipBatch) -> Tensor | None:
    """What the error of each latent pixel counts, ``(B, T, H, W)``; None: all the same.

    1 outside the mask and ``spec.weight`` inside, in between in proportion.

    Raises:
        UserError: The batch brings no masks.
    """
    if not spec.is_on:
        return None
    if batch.mask is None:
        raise UserError(
            "model.objective.mask is set, but the batches bring no masks: start by train.py, or "
            "call the data module's use_masks before the run."
        )
    return 1 + (spec.weight - 1) * batch.mask
