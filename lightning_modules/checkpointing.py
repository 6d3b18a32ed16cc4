"""Checkpoints that hold the adapters only, and refuse to be loaded into another model."""

from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from musicinfuser.adapters.settings import SETTINGS_KEY, with_younger_options
from musicinfuser.errors import UserError
from musicinfuser.networks.music_model import MusicModel
from musicinfuser.networks.origin import Origin
from musicinfuser.setting_differences import differences


class CheckpointMismatchError(UserError):
    """A checkpoint belongs to a model with other settings."""


def keep_adapters(checkpoint: dict[str, Any], trainable: set[str]) -> None:
    """Drop every weight that training does not change."""
    state = checkpoint["state_dict"]
    checkpoint["state_dict"] = {name: state[name] for name in state if name in trainable}
    assert set(checkpoint["state_dict"]) == trainable


def check_agreement(
    checkpoint: dict[str, Any], settings: dict[str, Any], trainable: set[str]
) -> None:
    """Compare a checkpoint's settings with the configured ones before anything is loaded.

    Raises:
        CheckpointMismatchError: Names every setting that differs, or the first missing weight.
    """
    stored = checkpoint.get(SETTINGS_KEY)
    if stored is None:
        raise CheckpointMismatchError(
            "this checkpoint was not written by this program: it has no model settings."
        )
    stored = {**stored, "model": with_younger_options(stored.get("model", {}))}
    settings = {**settings, "model": with_younger_options(settings["model"])}
    if "fps" not in stored["model"]:  # older files do not say it
        settings = {**settings, "model": {**settings["model"], "fps": None}}
    different = differences(settings, {group: stored.get(group, {}) for group in settings})
    if different:
        raise CheckpointMismatchError(
            f"the checkpoint belongs to another run ({'; '.join(different)}); change the config, "
            "or give another --ckpt_path or trainer.default_root_dir."
        )
    names = set(checkpoint["state_dict"])
    if names != trainable:
        raise CheckpointMismatchError(
            f"the checkpoint's weights are not this model's adapters; first difference: "
            f"{min(names ^ trainable)}."
        )


def check_checkpoint_origin(checkpoint: dict[str, Any], now: Origin, *, trainer: Any) -> None:
    """`Origin.notes` for a checkpoint; training does not go on with another transformer.

    Args:
        checkpoint: One that `check_agreement` has passed.
        now: What the run is to go on with.
        trainer: Has ``ckpt_path`` and ``training``.

    Raises:
        CheckpointMismatchError: Names what differs.
    """
    settings, path = checkpoint[SETTINGS_KEY], trainer.ckpt_path
    trained = Origin.from_stored(settings) or Origin.assumed(
        path, audio_width=settings["model"].get("audio_width")
    )
    where = path or "the checkpoint"
    other = trained.other_weights(now).get("transformer")
    if trainer.training and other is not None:
        raise CheckpointMismatchError(
            f"{where} belongs to a run on another transformer ({other}); give model.backbone the "
            "one it was trained on, or another trainer.default_root_dir."
        )
    if settings["model"].get("layers"):
        for note in trained.notes(now, path=where, refuse=CheckpointMismatchError):
            rank_zero_warn(note)


def architecture(model: MusicModel) -> dict[str, Any]:
    """The backbone's sizes, for the settings of a checkpoint."""
    return model.kind.sizes
